# SPDX-License-Identifier: Apache-2.0
"""Requests through proxies: when one counts as lost."""

from __future__ import annotations

import pytest

from zmq_core import Envelope, MessageType, NackCode, PeerLost, ProxyLost, QueueFull, Refused
from zmq_core._pending import Patience, PendingRequest
from zmq_core._routed import Asked, judge
from zmq_core._uplink import Uplink

ID = bytes(range(16))
PEER = b"host/1/oslo/abc"
CALL = Envelope(type=MessageType.CALL, id=ID, key=b"\0\0\0\1a\0\0", ttl=10.0)
PROBE = Envelope(type=MessageType.PROBE, id=ID)
ALIVE = Envelope(type=MessageType.HEARTBEAT, id=ID)
ONE, OTHER = object.__new__(Uplink), object.__new__(Uplink)


@pytest.fixture
def asked() -> Asked:
    return Asked(PendingRequest(Patience(0.0, 60.0, None)), PEER, "tcp://host:1")


def test_a_reply_is_the_outcome(asked: Asked) -> None:
    reply = Envelope(type=MessageType.REPLY, id=ID, body=b"x")
    assert judge(asked, reply, ONE) is reply


@pytest.mark.parametrize(
    ("code", "error"),
    [(NackCode.UNROUTABLE, PeerLost), (NackCode.UNKNOWN_ID, ProxyLost)],
)
def test_a_request_is_lost_when_it_was_denied_twice(
    asked: Asked, code: NackCode, error: type[PeerLost]
) -> None:
    assert judge(asked, PROBE.refused(code), ONE) is None
    assert type(judge(asked, PROBE.refused(code), ONE)) is error


def test_a_sign_of_life_between_two_denials_clears_the_first(asked: Asked) -> None:
    before = asked.pending.patience.last_sign
    for _ in range(5):
        assert judge(asked, PROBE.refused(NackCode.UNKNOWN_ID), ONE) is None
        assert judge(asked, ALIVE, ONE) is None
    assert asked.pending.patience.last_sign > before


def test_a_probe_that_found_a_full_queue_says_nothing(asked: Asked) -> None:
    for _ in range(5):
        assert judge(asked, PROBE.refused(NackCode.QUEUE_FULL), ONE) is None


def test_a_refused_request_was_not_delivered(asked: Asked) -> None:
    refused = judge(asked, CALL.refused(NackCode.UNROUTABLE), ONE)
    assert isinstance(refused, Refused)
    assert refused.code is NackCode.UNROUTABLE
    assert isinstance(judge(asked, CALL.refused(NackCode.QUEUE_FULL), ONE), QueueFull)


def test_answers_to_probes_are_counted_as_such_whatever_they_say(asked: Asked) -> None:
    for answer in (ALIVE, PROBE.refused(NackCode.UNKNOWN_ID)):
        asked.probed(ONE)
        judge(asked, answer, ONE)
        assert not asked.silent(1, proxies=1)
    asked.probed(ONE)
    judge(asked, PROBE.refused(NackCode.QUEUE_FULL), ONE)
    assert asked.silent(1, proxies=1), "a proxy says that, and not the peer"


def test_a_peer_is_silent_if_it_does_not_answer_by_one_proxy_nor_by_another(asked: Asked) -> None:
    asked.probed(ONE)
    asked.probed(ONE)
    assert asked.silent(2, proxies=1)
    assert not asked.silent(3, proxies=1)
    assert not asked.silent(2, proxies=3)
    asked.probed(OTHER)
    assert asked.silent(3, proxies=3)


def test_it_is_known_which_proxies_have_no_connection_to_the_peer(asked: Asked) -> None:
    judge(asked, PROBE.refused(NackCode.UNKNOWN_ID), ONE)
    assert asked.denied_by == set(), "the peer itself said so"
    judge(asked, ALIVE, ONE)
    judge(asked, PROBE.refused(NackCode.UNROUTABLE), OTHER)
    assert asked.denied_by == {OTHER}
    judge(asked, ALIVE, ONE)
    assert asked.denied_by == set()
