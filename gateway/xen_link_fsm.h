/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xen_link_fsm.h - one channel of one guest as a table (xen_link_fsm.def).
 *
 * The same table makes the code, the test that walks it, and docs/states.md.
 */
#ifndef XEN_LINK_FSM_H
#define XEN_LINK_FSM_H

#define FSM_DEF    "gateway/xen_link_fsm.def"
#define FSM_NAME   xen_link
#define FSM_PREFIX XEN_LINK
#include "vchan-transport/fsm_declare.inc"

#endif
