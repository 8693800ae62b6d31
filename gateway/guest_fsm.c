/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/guest_fsm.h"

#define FSM_DEF    "gateway/guest_fsm.def"
#define FSM_NAME   guest
#define FSM_PREFIX GUEST
#include "vchan-transport/fsm_define.inc"
