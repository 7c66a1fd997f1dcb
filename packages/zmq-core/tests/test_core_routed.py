# SPDX-License-Identifier: Apache-2.0
"""Requests through proxies: when one counts as lost, and who still has it."""

from __future__ import annotations

import pytest

from zmq_core import Envelope, Flag, MessageType, NackCode, PeerLost, ProxyLost, QueueFull, Refused
from zmq_core._pending import Patience, PendingRequest
from zmq_core._routed import Asked, HeldRequests, judge

ID = bytes(range(16))
PEER = b"host/1/oslo/abc"
CALL = Envelope(type=MessageType.CALL, id=ID, key=b"\0\0\0\1a\0\0", ttl=10.0)
PROBE = Envelope(type=MessageType.PROBE, id=ID)
ALIVE = Envelope(type=MessageType.HEARTBEAT, id=ID)


@pytest.fixture
def asked() -> Asked:
    return Asked(PendingRequest(Patience(0.0, 60.0, None)), PEER, "tcp://host:1")


def test_a_reply_is_the_outcome(asked: Asked) -> None:
    reply = Envelope(type=MessageType.REPLY, id=ID, body=b"x")
    assert judge(asked, reply) is reply


@pytest.mark.parametrize(
    ("code", "error"),
    [(NackCode.UNROUTABLE, PeerLost), (NackCode.UNKNOWN_ID, ProxyLost)],
)
def test_a_request_is_lost_when_it_was_denied_twice(
    asked: Asked, code: NackCode, error: type[PeerLost]
) -> None:
    assert judge(asked, PROBE.refused(code)) is None
    assert type(judge(asked, PROBE.refused(code))) is error


def test_a_sign_of_life_between_two_denials_clears_the_first(asked: Asked) -> None:
    before = asked.pending.patience.last_sign
    for _ in range(5):
        assert judge(asked, PROBE.refused(NackCode.UNKNOWN_ID)) is None
        assert judge(asked, ALIVE) is None
    assert asked.pending.patience.last_sign > before


def test_a_probe_that_found_a_full_queue_says_nothing(asked: Asked) -> None:
    for _ in range(5):
        assert judge(asked, PROBE.refused(NackCode.QUEUE_FULL)) is None


def test_a_refused_request_was_not_delivered(asked: Asked) -> None:
    refused = judge(asked, CALL.refused(NackCode.UNROUTABLE))
    assert isinstance(refused, Refused)
    assert refused.code is NackCode.UNROUTABLE
    assert isinstance(judge(asked, CALL.refused(NackCode.QUEUE_FULL)), QueueFull)


def test_a_request_is_held_until_it_is_answered() -> None:
    held = HeldRequests()
    held.add(PEER, CALL, now=100.0)
    assert held.reply_to_probe(PEER, PROBE).type is MessageType.HEARTBEAT
    assert held.reply_to_probe(b"somebody else", PROBE).nack_code is NackCode.UNKNOWN_ID
    held.answered(PEER, ALIVE)
    assert held.reply_to_probe(PEER, PROBE).type is MessageType.HEARTBEAT
    held.answered(PEER, Envelope(type=MessageType.REPLY, id=ID))
    denial = held.reply_to_probe(PEER, PROBE)
    assert (denial.nack_code, denial.subject) == (NackCode.UNKNOWN_ID, MessageType.PROBE)


def test_what_wants_no_answer_is_not_held() -> None:
    held = HeldRequests()
    cast = Envelope(type=MessageType.CAST, id=ID, key=CALL.key)
    held.add(PEER, cast, now=100.0)
    assert len(held) == 0
    wanted = Envelope(type=MessageType.CAST, id=ID, key=CALL.key, flags=Flag.ACK_WANTED)
    held.add(PEER, wanted, now=100.0)
    assert len(held) == 1


def test_what_an_application_never_answers_is_forgotten_when_its_time_is_over() -> None:
    held = HeldRequests()
    for number in range(50_000):
        late = Envelope(type=MessageType.CALL, id=number.to_bytes(16, "big"), ttl=1.0)
        held.add(PEER, late, now=number / 100)
    assert len(held) <= 10_000
