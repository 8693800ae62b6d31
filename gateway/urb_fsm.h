/* SPDX-License-Identifier: Apache-2.0 */
/*
 * urb_fsm.h - the life of one URB in the gateway as a table (urb_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef URB_FSM_H
#define URB_FSM_H

#define FSM_DEF    "gateway/urb_fsm.def"
#define FSM_NAME   urb
#define FSM_PREFIX URB
#include "vchan-transport/fsm_declare.inc"

#endif
