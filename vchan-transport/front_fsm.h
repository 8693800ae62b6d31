/* SPDX-License-Identifier: Apache-2.0 */
/*
 * front_fsm.h - the life of one channel in the guest as a table (front_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef FRONT_FSM_H
#define FRONT_FSM_H

#define FSM_DEF    "vchan-transport/front_fsm.def"
#define FSM_NAME   front
#define FSM_PREFIX FRONT
#include "vchan-transport/fsm_declare.inc"

#endif
