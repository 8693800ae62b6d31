/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side of the handshake, whole (handshake_front.inc), and a gateway
 * that writes any word at any time, as often as it likes, takes its folder away
 * and makes the rings what it likes. Whatever it does, under fairness of our
 * side alone, and even if our own process does not hear:
 *
 *  - no cell that says BUG is met, and our node never says up but for something
 *    that was mapped;
 *  - an ask is settled, and so is what is to be mapped; what is to be let go is
 *    let go.
 *
 * GCC: -DNFAIR=3
 */
#define IS_GUARDED true
#define CAN_ASK true
#define NEW_EPOCH() last = 3 - last; w_epoch = last
#define CHECK_UP() assert(p_mapped != 0 || p == P_GONE)
#define RING_SAYS_END(e) rings_say_end

byte last = 1;
bool rings_say_end = false;

#include "tests/model/handshake_store.inc"
#include "tests/model/handshake_front.inc"

inline say(verb, epoch)
{
	g_verb = verb;
	g_epoch = epoch;
	w_dirty = w_live
}

proctype gateway()
{
	do
	:: d_step { peer != 0 -> say(NONE, 0) }
	:: d_step { peer != 0 -> say(JUNK, 0) }
	:: d_step { peer != 0 -> say(OPEN, 1) }
	:: d_step { peer != 0 -> say(OPEN, 2) }
	:: d_step { peer != 0 -> say(CLOSED, 1) }
	:: d_step { peer != 0 -> say(CLOSED, 2) }
	:: d_step { ring = 1 - ring }
	:: d_step { rings_say_end = !rings_say_end }
	:: d_step { peer != 0 ->
		peer = 0;
		f_verb = NONE;
		f_epoch = 0;
		say(NONE, 0) }
	:: d_step { peer == 0 -> peer = 1; w_dirty = w_live }
	od
}

proctype world()
{
	do
	:: d_step { !w_live && f_verb != NONE -> f_remove() }
	:: d_step { !w_live -> warden_start() }
	:: d_step { w_live -> warden_forget() }
	:: d_step { p != P_NONE && p != P_GONE -> p_end() }
	:: d_step { p != P_NONE && p != P_GONE -> p_is_deaf = true }
	od
}

init
{
	atomic {
		run warden_store(); run warden_process(); run warden_limit();
		run process(); run gateway(); run world()
	}
}

ltl an_ask_is_settled { [] (w_state == F_ASKING -> <> (w_state != F_ASKING)) }
ltl a_mapping_is_settled { [] (w_state == F_MAPPING -> <> (w_state != F_MAPPING)) }
ltl what_is_to_let_go_lets_go { [] (w_state == F_LEAVING -> <> (w_state != F_LEAVING)) }
ltl without_a_gateway_nothing_stays { [] ([] (peer == 0) -> <> (p_mapped == 0)) }
