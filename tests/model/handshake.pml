/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel of two domains, both sides whole: the warden and its process, the
 * gateway's manager with one guest and one link, the session, the store between
 * them, and the folders' maker in dom0. The tables are those of the code. What
 * happens around them: any order of start; each process killed at any moment,
 * the manager so that its session outlives it; sessions that do not end when
 * they are told, or killed; the guest's death, whose nodes go before it, and
 * another guest with its number; folders removed and made again; revoke, hold and resume. What the
 * rings tell comes before or behind what the store says, or never.
 *
 *  - no cell that says BUG is met, and none of the assertions on the way: no
 *    second session is started for a channel, an up means that just this epoch
 *    is mapped, nothing of a dying guest's is freed because it is not seen;
 *  - it always comes to rest, and then (checker) both ends are in the same
 *    epoch or hold nothing, and nothing of a dead guest is left.
 *
 * PAN: -w24
 * CLAIMS: -a
 */
#define EPOCHS 3
#define CHAOS 2
#define GUESTS 2
#define IS_GUARDED true
#define KILLS_LEFTOVERS true
#define CAN_ASK true
#define NEW_EPOCH() epochs++; w_epoch = epochs
#define CHECK_UP() assert(p_mapped == w_epoch || p == P_GONE)
#define RING_SAYS_END(e) (rings_tell && !(s == S_GRANTED && s_epoch == e))
#define CLIENT_LEFT (rings_tell && p_mapped != s_epoch && orphan != s_epoch)

byte starts = 0;
byte epochs = 0;
byte guests = 0;
byte chaos = 0;
bool rings_tell = false;
bool is_at_rest = false;
/* A process whose warden was killed, and what it has mapped. */
bool orphan_told = false;
byte orphan = 0;

#include "tests/model/handshake_store.inc"
#include "tests/model/handshake_front.inc"
#include "tests/model/handshake_gateway.inc"

inline guest_is_destroyed()
{
	is_dying = true;
	warden_forget();
	orphan = 0;
	orphan_told = false;
	f_verb = (peer != 0 -> HIDDEN : NONE);
	f_epoch = 0;
	m_dirty = m_live
}

proctype world()
{
	if
	:: rings_tell = true
	:: skip
	fi;
	do
	:: d_step { dom == 0 && guests < GUESTS ->
		guests++;
		dom = guests }
	:: d_step { starts < EPOCHS && dom != 0 && !is_dying && !w_live ->
		starts++;
		warden_start() }
	:: d_step { s_is_stuck -> s_is_stuck = false }
	:: d_step { chaos < CHAOS && dom != 0 && !is_dying ->
		chaos++;
		guest_is_destroyed() }
	:: d_step { chaos < CHAOS && peer != 0 -> chaos++; folders_remove() }
	:: d_step { chaos < CHAOS && p != P_NONE && p != P_GONE ->
		chaos++;
		p_end() }
	:: d_step { chaos < CHAOS && w_live && !orphan && !orphan_told ->
		chaos++;
		orphan = p_mapped;
		orphan_told = (p == P_TOLD);
		warden_forget() }
	:: d_step { chaos < CHAOS && p != P_NONE -> chaos++; p_is_deaf = true }
	:: d_step { chaos < CHAOS && m_live -> chaos++; manager_forget() }
	:: d_step { chaos < CHAOS && s_is_there -> chaos++; s = S_ENDED }
	:: d_step { chaos < CHAOS && s_is_there -> chaos++; s_is_deaf = true }
	:: d_step { chaos < CHAOS && s_is_there ->
		chaos++;
		s_is_deaf = true;
		s_is_stuck = true }
	:: atomic { chaos < CHAOS && m_live && l_live ->
		chaos++;
		l_dirty = true;
		l_on = LE_REVOKE;
		link_settle() }
	:: atomic { chaos < CHAOS && m_live ->
		chaos++;
		if
		:: g_on = GE_HOLD
		:: g_on = GE_RESUME
		fi;
		guest_settle() }
	:: break
	od
}

proctype orphans()
{
end:	do
	:: d_step { orphan_told && ring != 0 ->
		orphan_told = false;
		orphan = ring }
	:: d_step { orphan_told -> orphan_told = false }
	:: d_step { orphan != 0 -> orphan = 0 }
	od
}

#define is_asked_to_hold (h_is_hold && h_epoch != 0 && h_done != h_epoch)

/* Removes what dead wardens left, and answers hold. */
proctype agent()
{
end:	do
	:: d_step { dom != 0 && !w_live && f_verb != NONE &&
		    f_verb != HIDDEN -> f_remove() }
	:: d_step { is_asked_to_hold && (p == P_WAITING || p == P_MAPPED) ->
		p_end() }
	:: d_step { is_asked_to_hold && !w_live && f_verb == NONE ->
		h_done = h_epoch;
		h_dirty = m_live }
	od
}

proctype destroyer()
{
end:	do
	:: d_step { is_dying ->
		is_dying = false;
		dom = 0 }
	od
}

#define is_up (w_live && w_state == F_UP && f_verb == UP && \
	f_epoch == w_epoch && p == P_MAPPED && p_mapped == w_epoch && \
	g_state == G_SERVING && l_state == L_OPEN && l_epoch == w_epoch && \
	g_verb == OPEN && g_epoch == w_epoch && s == S_GRANTED && \
	s_epoch == w_epoch && s_guest == dom)
#define is_down (!w_live && f_verb == NONE && p_mapped == 0 && orphan == 0 && \
	ring == 0 && is_wedged_or_idle)
#define is_wedged_or_idle ((s == S_NONE && l_state == L_IDLE && \
	g_verb == NONE) || (s_is_stuck && s_is_killed && (g_verb == NONE || \
	g_verb == CLOSED && dom != 0)))

proctype checker()
{
	timeout ->
	assert(is_up || is_down);
	assert(peer == dom && m_live && !stray);
	assert(dom == 0 || g_guest == dom);
	assert(dom == 0 -> g_state == G_ABSENT : (g_state == (note -> G_HELD : G_SERVING)));
	is_at_rest = true
}

init
{
	atomic {
		run warden_store(); run warden_process(); run warden_limit();
		run process(); run orphans(); run agent();
		run manager(); run link_session();
		run link_limit(); run guest_done(); run guest_limit();
		run guest_quiet(); run session(); run pairs();
		run destroyer(); run world(); run checker()
	}
}

ltl it_comes_to_rest { <> is_at_rest }
