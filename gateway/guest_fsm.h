/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_fsm.h - one guest domain as a table (guest_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef GUEST_FSM_H
#define GUEST_FSM_H

#define FSM_DEF    "gateway/guest_fsm.def"
#define FSM_NAME   guest
#define FSM_PREFIX GUEST
#include "vchan-transport/fsm_declare.inc"

#endif
