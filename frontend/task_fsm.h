/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task_fsm.h - one device that a gateway of another domain wants attached, or
 * that is to be taken back (task_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef TASK_FSM_H
#define TASK_FSM_H

#define FSM_DEF    "frontend/task_fsm.def"
#define FSM_NAME   task
#define FSM_PREFIX TASK
#include "vchan-transport/fsm_declare.inc"

#endif
