/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standing_fsm.h - one device that is to stay attached (standing_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef STANDING_FSM_H
#define STANDING_FSM_H

#define FSM_DEF    "frontend/standing_fsm.def"
#define FSM_NAME   standing
#define FSM_PREFIX STANDING
#include "vchan-transport/fsm_declare.inc"

#endif
