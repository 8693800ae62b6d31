/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/urb_fsm.h"

#define FSM_DEF    "gateway/urb_fsm.def"
#define FSM_NAME   urb
#define FSM_PREFIX URB
#include "vchan-transport/fsm_define.inc"
