/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsm.h - the names that fsm_declare.inc and fsm_define.inc make: FSM_LOWER(_x)
 * is urb_x for FSM_NAME urb, FSM_UPPER(_X) is URB_X for FSM_PREFIX URB.
 */
#ifndef FSM_H
#define FSM_H

#define FSM_JOIN2(a, b) a##b
#define FSM_JOIN(a, b)  FSM_JOIN2(a, b)
#define FSM_LOWER(rest) FSM_JOIN(FSM_NAME, rest)
#define FSM_UPPER(rest) FSM_JOIN(FSM_PREFIX, rest)

#endif
