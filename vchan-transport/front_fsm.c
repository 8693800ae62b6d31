/* SPDX-License-Identifier: Apache-2.0 */
#include "vchan-transport/front_fsm.h"

#define FSM_DEF    "vchan-transport/front_fsm.def"
#define FSM_NAME   front
#define FSM_PREFIX FRONT
#include "vchan-transport/fsm_define.inc"
