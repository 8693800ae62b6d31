/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One URB slot of the gateway in its smallest honest world: a peer that submits,
 * perhaps unlinks, waits for its answers and submits again; a device that gives
 * back what it holds when it is asked to, and perhaps by itself; and a link that
 * may be lost at any moment. The slot's table is the one that the code is made of,
 * gateway/urb_fsm.def, so what is proved is proved about that table:
 *
 *  - no cell marked BUG or VIOLATION is met;
 *  - a buffer is never released while the device holds it, nor twice;
 *  - each submit is settled once, by RET_SUBMIT or by a RET_UNLINK that is not
 *    0, and a RET_UNLINK of 0 comes behind the RET_SUBMIT it is too late for;
 *  - what the device has done is never reported as unlinked;
 *  - while the link lives, what the device ends and what the peer unlinks is
 *    answered in the end, even if the device alone would hold it for ever;
 *  - when the link is lost, the slot is free in the end.
 */

mtype:state = {
#define STATE(name, meaning) S_##name,
#include "gateway/urb_fsm.def"
	S_NUM
};

mtype:stim = {
#define STIM(name, meaning) E_##name,
#include "gateway/urb_fsm.def"
	E_NUM
};

mtype:act = {
#define ACT(name, meaning) A_##name,
#include "gateway/urb_fsm.def"
	A_NUM
};

mtype:wire = { SUBMIT, DATA, UNLINK, RET_SUBMIT, RET_UNLINK, RET_TOO_LATE };

chan commands = [3] of { mtype:wire };
chan answers = [3] of { mtype:wire };

/* The slot and what the device and the engine know about it. */
mtype:state state = S_FREE;
mtype:act act = A_NONE;
bool has_buffer = false;
bool device_holds = false;
bool is_cancelled = false;
bool will_end = false;
bool has_ended = false;
bool is_linked = true;

/* What the peer is owed. */
bool owes_submit = false;
bool owes_unlink = false;
bool has_unlinked = false;

#define arrived(channel, what) (is_linked && channel?[what]) -> channel?what
#define answer(what) assert(is_linked); answers!what

inline perform()
{
	if
	:: act == A_NONE -> skip
	:: act == A_START -> assert(has_buffer && !device_holds);
		device_holds = true;
		is_cancelled = false
	:: act == A_CANCEL -> assert(device_holds);
		is_cancelled = true
	:: act == A_RET_SUBMIT -> answer(RET_SUBMIT)
	:: act == A_RET_UNLINK -> answer(RET_UNLINK)
	:: act == A_RET_BOTH -> answer(RET_SUBMIT); answer(RET_TOO_LATE)
	:: act == A_TOO_LATE -> answer(RET_TOO_LATE)
	:: act == A_RELEASE -> assert(has_buffer && !device_holds);
		has_buffer = false
	:: else -> assert(false)
	fi
}

inline feed(stim)
{
	if
#define ON(from, on, to, action) \
	:: state == S_##from && stim == E_##on -> \
		state = S_##to; act = A_##action
#include "gateway/urb_fsm.def"
	fi;
	perform()
}

active proctype engine()
{
end:	do
	:: atomic { arrived(commands, SUBMIT) ->
		has_buffer = true;
		feed(E_SUBMIT) }
	:: atomic { arrived(commands, DATA) ->
		if
		:: feed(E_RECEIVED)
		:: feed(E_REFUSED)
		fi }
	:: atomic { arrived(commands, UNLINK) ->
		if
		/* Not in flight any more, so its answer has left already. */
		:: state == S_FREE -> answers!RET_TOO_LATE
		:: else -> feed(E_UNLINK)
		fi }
	od
}

active proctype device()
{
end:	do
	:: atomic { device_holds && (is_cancelled || will_end) ->
		device_holds = false;
		if
		:: has_ended = true; feed(E_ENDED)
		:: feed(E_CANCELLED)
		fi }
	od
}

/* What leaves the gateway reaches the peer; the slot's own answer frees it. */
active proctype wire()
{
end:	do
	:: atomic { arrived(answers, RET_SUBMIT) ->
		assert(owes_submit);
		owes_submit = false;
		feed(E_SENT) }
	:: atomic { arrived(answers, RET_UNLINK) ->
		assert(owes_submit && owes_unlink && !has_ended);
		owes_submit = false;
		owes_unlink = false;
		feed(E_SENT) }
	:: atomic { arrived(answers, RET_TOO_LATE) ->
		assert(!owes_submit && owes_unlink);
		owes_unlink = false }
	od
}

active proctype peer()
{
end:	do
	:: atomic { is_linked && !owes_submit && !owes_unlink ->
		owes_submit = true;
		has_ended = false;
		if
		:: will_end = true
		:: will_end = false
		fi;
		has_unlinked = false;
		commands!SUBMIT;
		commands!DATA }
	:: atomic { is_linked && owes_submit && !has_unlinked ->
		owes_unlink = true;
		has_unlinked = true;
		commands!UNLINK }
	od
}

/* The link may be lost, or live for ever. */
active proctype loss()
{
end:	if
	:: skip
	:: atomic { is_linked ->
		is_linked = false;
		feed(E_LOST) }
	fi
}

ltl what_ends_is_answered { [] (owes_submit && will_end ->
	<> (!is_linked || !owes_submit)) }
ltl an_unlink_is_answered { [] (owes_unlink ->
	<> (!is_linked || (!owes_submit && !owes_unlink))) }
ltl lost_means_free { [] (!is_linked -> <> (state == S_FREE && !has_buffer)) }
