/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/standing_fsm.h"

#define FSM_DEF    "frontend/standing_fsm.def"
#define FSM_NAME   standing
#define FSM_PREFIX STANDING
#include "vchan-transport/fsm_define.inc"
