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


def say(
    asked: Asked, answer: Envelope, by: Uplink = ONE, of: tuple[Uplink, ...] = (ONE,)
) -> object:
    return judge(asked, answer, by, of)


def test_a_reply_is_the_outcome(asked: Asked) -> None:
    reply = Envelope(type=MessageType.REPLY, id=ID, body=b"x")
    assert say(asked, reply) is reply


@pytest.mark.parametrize(
    ("code", "error"),
    [(NackCode.UNROUTABLE, PeerLost), (NackCode.UNKNOWN_ID, ProxyLost)],
)
def test_a_request_is_lost_when_it_was_denied_twice(
    asked: Asked, code: NackCode, error: type[PeerLost]
) -> None:
    assert say(asked, PROBE.refused(code)) is None
    assert type(say(asked, PROBE.refused(code))) is error


def test_a_peer_is_lost_when_all_proxies_say_so(asked: Asked) -> None:
    denial = PROBE.refused(NackCode.UNROUTABLE)
    for _ in range(5):
        assert say(asked, denial, ONE, (ONE, OTHER)) is None
    assert isinstance(say(asked, denial, OTHER, (ONE, OTHER)), PeerLost)


@pytest.mark.parametrize("code", [NackCode.UNROUTABLE, NackCode.UNKNOWN_ID])
def test_a_sign_of_life_between_two_denials_clears_the_first(asked: Asked, code: NackCode) -> None:
    before = asked.pending.patience.last_sign
    for _ in range(5):
        assert say(asked, PROBE.refused(code)) is None
        assert say(asked, ALIVE) is None
    assert asked.pending.patience.last_sign > before


def test_the_denial_of_a_proxy_is_none_of_the_peer(asked: Asked) -> None:
    for _ in range(3):
        assert say(asked, PROBE.refused(NackCode.UNROUTABLE)) is None
        outcome = say(asked, PROBE.refused(NackCode.UNKNOWN_ID))
        if outcome is not None:
            break
    assert isinstance(outcome, ProxyLost), "the peer itself has answered twice"
    assert asked.unroutable == 0


def test_a_probe_that_found_a_full_queue_says_nothing(asked: Asked) -> None:
    for _ in range(5):
        assert say(asked, PROBE.refused(NackCode.QUEUE_FULL)) is None


def test_a_refused_request_was_not_delivered(asked: Asked) -> None:
    refused = say(asked, CALL.refused(NackCode.UNROUTABLE))
    assert isinstance(refused, Refused)
    assert refused.code is NackCode.UNROUTABLE
    assert isinstance(say(asked, CALL.refused(NackCode.QUEUE_FULL)), QueueFull)


def test_what_another_peer_says_is_not_about_this_request(asked: Asked) -> None:
    ack = Envelope(type=MessageType.ACK, id=ID)
    for answer in (ack, ALIVE, CALL.refused(NackCode.UNKNOWN_KEY)):
        assert asked.concerns(PEER, answer)
        assert not asked.concerns(b"another peer", answer)
    assert asked.concerns(b"the proxy's name", PROBE.refused(NackCode.UNROUTABLE))


def test_answers_to_probes_are_counted_as_such_whatever_they_say(asked: Asked) -> None:
    for answer in (ALIVE, PROBE.refused(NackCode.UNKNOWN_ID)):
        asked.probed([ONE])
        say(asked, answer)
        assert not asked.silent(1, proxies=1)
    asked.probed([ONE])
    say(asked, PROBE.refused(NackCode.QUEUE_FULL))
    assert asked.silent(1, proxies=1), "a proxy says that, and not the peer"


def test_a_peer_is_silent_if_it_does_not_answer_by_one_proxy_nor_by_another(asked: Asked) -> None:
    asked.probed([ONE])
    asked.probed([ONE])
    assert asked.silent(2, proxies=1)
    assert not asked.silent(3, proxies=1)
    assert not asked.silent(2, proxies=3)
    asked.probed([OTHER])
    assert asked.silent(3, proxies=3)


def test_a_peer_is_silent_that_one_proxy_does_not_know_and_that_does_not_answer_by_another(
    asked: Asked,
) -> None:
    say(asked, PROBE.refused(NackCode.UNROUTABLE), OTHER, (ONE, OTHER))
    asked.probed([ONE])
    asked.probed([ONE])
    assert asked.silent(2, proxies=2)


def test_it_is_known_which_proxies_have_no_connection_to_the_peer(asked: Asked) -> None:
    say(asked, PROBE.refused(NackCode.UNKNOWN_ID))
    assert asked.denied_by == set(), "the peer itself said so"
    say(asked, PROBE.refused(NackCode.UNROUTABLE), OTHER)
    assert asked.denied_by == {OTHER}
    say(asked, ALIVE)
    assert asked.denied_by == set()
