/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway's side of the handshake, whole (handshake_gateway.inc), and a
 * guest that writes any word at any time, as often as it likes, and makes the
 * rings say what it likes. Whatever it does, under fairness of our side alone:
 *
 *  - no cell that says BUG is met, no second session is started for a channel,
 *    and no assertion on the way fails;
 *  - an ask or an up that stays is answered; a guest to be held is held; what
 *    is to end ends, or is the kernel's; of a dead guest nothing is left.
 *
 * PAN: -w22
 * GCC: -DNFAIR=4
 */
#define CHAOS 1
#define HOLDS 2
#define KILLS_LEFTOVERS true
#define CLIENT_LEFT (!s_is_deaf)

byte chaos = 0;
byte guests = 0;

#include "tests/model/handshake_store.inc"
#include "tests/model/handshake_gateway.inc"

inline say(verb, epoch)
{
	f_verb = verb;
	f_epoch = epoch;
	m_dirty = m_live
}

proctype guest()
{
end:	do
	:: d_step { peer != 0 && dom == peer -> say(NONE, 0) }
	:: d_step { peer != 0 && dom == peer -> say(HIDDEN, 0) }
	:: d_step { peer != 0 && dom == peer -> say(JUNK, 0) }
	:: d_step { peer != 0 && dom == peer -> say(ASK, 1) }
	:: d_step { peer != 0 && dom == peer -> say(ASK, 2) }
	:: d_step { peer != 0 && dom == peer -> say(UP, 1) }
	:: d_step { peer != 0 && dom == peer -> say(UP, 2) }
	:: d_step { peer != 0 && dom == peer && h_epoch != 0 ->
		h_done = h_epoch;
		h_dirty = m_live }
	od
}

/* What happens on our own side, and the guest's death. */
proctype world()
{
	do
	:: d_step { s_is_stuck -> s_is_stuck = false }
	:: d_step { dom == 0 -> guests++; dom = guests }
	:: d_step { chaos < CHAOS && dom != 0 ->
		chaos++;
		guests++;
		dom = guests;
		f_verb = HIDDEN;
		f_epoch = 0;
		m_dirty = m_live }
	:: d_step { chaos < CHAOS && dom != 0 ->
		chaos++;
		dom = 0;
		f_verb = HIDDEN;
		f_epoch = 0;
		m_dirty = m_live }
	:: d_step { chaos < CHAOS && m_live -> chaos++; manager_forget() }
	:: d_step { s_is_there && !s_is_deaf -> s_is_deaf = true }
	:: d_step { s_is_there && s_is_deaf && !s_is_stuck ->
		s_is_stuck = true }
	:: atomic { m_live && !note && h_next < HOLDS ->
		g_on = GE_HOLD;
		guest_settle() }
	:: atomic { m_live && note && h_next < HOLDS ->
		g_on = GE_RESUME;
		guest_settle() }
	:: atomic { chaos < CHAOS && m_live && l_live ->
		chaos++;
		l_dirty = true;
		l_on = LE_REVOKE;
		link_settle() }
	:: break
	od
}

init
{
	atomic {
		run manager(); run link_session(); run link_limit();
		run guest_done(); run guest_limit(); run guest_quiet();
		run session(); run pairs(); run guest(); run world()
	}
}

#define asks_1 (dom != 0 && peer == dom && f_epoch == 1)
#define answered_1 (g_epoch == 1 && (g_verb == OPEN || g_verb == CLOSED))
#define released (g_verb == NONE && ring == 0 && !stray && \
	g_state == G_ABSENT && (!s_is_there || s_is_killed))

/* As one claim they cost a third. */
#define an_ask_is_answered ([] asks_1 -> <> answered_1)
#define who_is_to_be_held_is_held \
	([] (note && dom == 1 && peer == 1) -> <> (g_state == G_HELD))
#define a_start_is_settled (l_state == L_STARTING -> <> (l_state != L_STARTING))
#define is_waiting (l_state == L_WAITING || l_state == L_REVOKED)
#define a_wait_is_settled (is_waiting -> <> !is_waiting)
#define who_is_to_end_ends (l_state == L_ENDING -> <> (l_state != L_ENDING))
#define who_is_killed_ends (l_state == L_KILLING -> <> (l_state != L_KILLING))
#define nothing_of_the_dead_is_left ([] (dom == 0) -> <> released)

ltl everything_is_settled { [] (an_ask_is_answered &&
	who_is_to_be_held_is_held && a_start_is_settled && a_wait_is_settled &&
	who_is_to_end_ends && who_is_killed_ends && nothing_of_the_dead_is_left) }
