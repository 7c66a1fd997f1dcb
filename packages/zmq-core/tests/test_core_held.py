# SPDX-License-Identifier: Apache-2.0
"""Requests of others: who still has them, and what comes a second time."""

from __future__ import annotations

from zmq_core import Envelope, Flag, MessageType, NackCode
from zmq_core._held import HeldRequests

ID = bytes(range(16))
PEER = b"host/1/oslo/abc"
CALL = Envelope(type=MessageType.CALL, id=ID, key=b"\0\0\0\1a\0\0", ttl=10.0)
REPEATABLE = Envelope(type=MessageType.CALL, id=ID, key=CALL.key, ttl=10.0, flags=Flag.REPEATABLE)
CAST = Envelope(type=MessageType.CAST, id=ID, key=CALL.key, flags=Flag.ACK_WANTED)
REPLY = Envelope(type=MessageType.REPLY, id=ID, body=b"x")
PROBE = Envelope(type=MessageType.PROBE, id=ID)
ALIVE = Envelope(type=MessageType.HEARTBEAT, id=ID)


def test_a_request_is_held_until_it_is_answered() -> None:
    held = HeldRequests(remember=60.0)
    held.add(PEER, CALL, now=100.0)
    assert held.reply_to_probe(PROBE).type is MessageType.HEARTBEAT
    other = Envelope(type=MessageType.PROBE, id=ID[::-1])
    assert held.reply_to_probe(other).nack_code is NackCode.UNKNOWN_ID
    held.answered(PEER, ALIVE, now=101.0)
    assert held.reply_to_probe(PROBE).type is MessageType.HEARTBEAT
    held.answered(PEER, Envelope(type=MessageType.REPLY, id=ID), now=102.0)
    denial = held.reply_to_probe(PROBE)
    assert (denial.nack_code, denial.subject) == (NackCode.UNKNOWN_ID, MessageType.PROBE)


def test_what_wants_no_answer_is_not_held() -> None:
    held = HeldRequests(remember=60.0)
    cast = Envelope(type=MessageType.CAST, id=ID, key=CALL.key)
    held.add(PEER, cast, now=100.0)
    assert len(held) == 0
    wanted = Envelope(type=MessageType.CAST, id=ID, key=CALL.key, flags=Flag.ACK_WANTED)
    held.add(PEER, wanted, now=100.0)
    assert len(held) == 1


def test_a_flag_that_a_message_of_its_type_does_not_have_is_ignored() -> None:
    held = HeldRequests(remember=60.0)
    for kind in (MessageType.CAST, MessageType.FANOUT, MessageType.NOTIFY):
        again = Envelope(type=kind, id=ID, key=CALL.key, flags=Flag.REPEATABLE)
        assert [held.add(PEER, again, now=100.0) for _ in range(2)] == [None, None]
    assert len(held) == 0
    call = Envelope(type=MessageType.CALL, id=ID, key=CALL.key, flags=Flag.ACK_WANTED)
    held.add(PEER, call, now=100.0)
    held.answered(PEER, REPLY, now=100.0)
    assert held.kept == 0


def test_of_what_is_never_answered_no_more_than_so_much_is_held() -> None:
    held = HeldRequests(remember=60.0)
    for number in range(250_000):
        call = Envelope(type=MessageType.CALL, id=number.to_bytes(16, "big"))
        held.add(PEER, call, now=100.0)
    assert len(held) <= 100_000
    assert held.reply_to_probe(Envelope(type=MessageType.PROBE, id=call.id)).code == 0


def test_what_an_application_never_answers_is_forgotten_when_its_time_is_over() -> None:
    held = HeldRequests(remember=60.0)
    for number in range(50_000):
        late = Envelope(type=MessageType.CALL, id=number.to_bytes(16, "big"), ttl=1.0)
        held.add(PEER, late, now=number / 100)
    assert len(held) <= 10_000


def test_a_message_that_is_never_acknowledged_is_forgotten_when_it_will_not_come_again() -> None:
    held = HeldRequests(remember=60.0)
    for number in range(50_000):
        id_ = number.to_bytes(16, "big")
        cast = Envelope(type=MessageType.CAST, id=id_, key=CALL.key, flags=Flag.ACK_WANTED)
        held.add(PEER, cast, now=number / 100)
    assert len(held) <= 10_000


def test_what_comes_again_before_it_is_answered_is_told_to_wait() -> None:
    held = HeldRequests(remember=60.0)
    assert held.add(PEER, REPEATABLE, now=100.0) is None
    assert held.add(PEER, REPEATABLE, now=101.0) == ALIVE


def test_what_comes_again_or_is_asked_after_gets_the_same_answer() -> None:
    held = HeldRequests(remember=60.0)
    held.add(PEER, REPEATABLE, now=100.0)
    held.answered(PEER, REPLY, now=101.0)
    assert held.add(PEER, REPEATABLE, now=102.0) is REPLY
    assert held.reply_to_probe(PROBE) is REPLY
    ack = Envelope(type=MessageType.ACK, id=ID)
    held = HeldRequests(remember=60.0)
    held.add(PEER, CAST, now=100.0)
    held.answered(PEER, ack, now=101.0)
    assert held.add(PEER, CAST, now=102.0) is ack


def test_who_has_connected_again_gets_the_answer_to_what_came_before() -> None:
    held = HeldRequests(remember=60.0)
    renamed = b"\0abcd"
    ack = Envelope(type=MessageType.ACK, id=ID)
    assert held.add(renamed, CAST, now=100.0) is None
    assert held.add(PEER, CAST, now=100.0) == ALIVE
    assert held.answered(renamed, ack, now=101.0) == PEER
    held = HeldRequests(remember=60.0)
    assert held.add(PEER, CAST, now=100.0) is None
    assert held.add(renamed, CAST, now=100.0) == ALIVE
    assert held.answered(PEER, ack, now=101.0) == PEER


def test_an_answer_is_not_kept_of_what_will_not_come_again() -> None:
    held = HeldRequests(remember=60.0)
    held.add(PEER, CALL, now=100.0)
    held.answered(PEER, REPLY, now=101.0)
    assert held.kept == 0


def test_what_was_refused_may_be_tried_again() -> None:
    held = HeldRequests(remember=60.0)
    held.add(PEER, CAST, now=100.0)
    held.answered(PEER, CAST.refused(NackCode.UNKNOWN_KEY), now=101.0)
    assert held.add(PEER, CAST, now=102.0) is None


def repeatable(number: int, held: HeldRequests, now: float, body: bytes = b"") -> None:
    """A request of that number comes and is answered."""
    id_ = number.to_bytes(16, "big")
    call = Envelope(type=MessageType.CALL, id=id_, flags=Flag.REPEATABLE, ttl=10.0)
    held.add(PEER, call, now)
    held.answered(PEER, Envelope(type=MessageType.REPLY, id=id_, body=body), now)


def test_answers_are_kept_no_longer_than_they_are_to_be_remembered() -> None:
    held = HeldRequests(remember=60.0)
    for number in range(100):
        repeatable(number, held, now=float(number))
    assert held.kept == 60


def test_the_number_and_the_size_of_what_is_kept_are_bounded() -> None:
    held = HeldRequests(remember=60.0)
    for number in range(60_000):
        repeatable(number, held, now=1.0)
    assert held.kept == 50_000
    held = HeldRequests(remember=60.0)
    for number in range(100):
        repeatable(number, held, now=1.0, body=bytes(2**20))
    assert held.kept == 64
