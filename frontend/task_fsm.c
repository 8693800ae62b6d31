/* SPDX-License-Identifier: Apache-2.0 */
#include "frontend/task_fsm.h"

#define FSM_DEF    "frontend/task_fsm.def"
#define FSM_NAME   task
#define FSM_PREFIX TASK
#include "vchan-transport/fsm_define.inc"
