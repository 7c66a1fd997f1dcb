# SPDX-License-Identifier: Apache-2.0
"""How much may be under way to a peer by a proxy."""

from __future__ import annotations

import itertools
from typing import cast

from zmq_core._flow import Flows
from zmq_core._uplink import Uplink

# Only what they are, not what they do, matters here.
ONE, TWO = cast(Uplink, object()), cast(Uplink, object())
PEER = b"host/1/oslo/abc"
_ids = itertools.count()


def send(flows: Flows, number: int, uplink: Uplink = ONE, peer: bytes = PEER) -> list[bytes]:
    """Send so many messages; the ids of those that are followed by a PROBE."""
    ids = [b"%d" % next(_ids) for _ in range(number)]
    return [message_id for message_id in ids if flows.sent(uplink, peer, message_id)]


def test_a_window_is_full_until_the_mark_in_its_middle_is_answered() -> None:
    flows = Flows()
    assert flows.full(PEER, [ONE, TWO]) == []
    (marker,) = send(flows, 99)
    assert flows.full(PEER, [ONE, TWO]) == []
    assert send(flows, 1) == []
    assert flows.full(PEER, [ONE, TWO]) == [ONE]
    assert flows.markers(PEER, [ONE, TWO]) == [(ONE, marker)]
    assert flows.confirmed(marker)
    assert flows.full(PEER, [ONE, TWO]) == []
    assert not flows.confirmed(marker), "it was answered already"
    assert flows.markers(PEER, [ONE, TWO]) == []


def test_a_window_that_many_found_open_at_once_opens_again() -> None:
    flows = Flows()
    (marker,) = send(flows, 200)
    assert flows.confirmed(marker)
    assert flows.full(PEER, [ONE]) == [ONE], "150 are under way"
    [(_, another)] = flows.markers(PEER, [ONE])
    assert flows.markers(PEER, [ONE]) == [(ONE, another)]
    assert flows.confirmed(another)
    assert flows.full(PEER, [ONE]) == []


def test_each_road_has_a_window_of_its_own() -> None:
    flows = Flows()
    send(flows, 100)
    assert flows.full(b"another", [ONE]) == []
    send(flows, 100, TWO)
    assert flows.full(PEER, [ONE, TWO]) == [ONE, TWO]


def test_nothing_is_under_way_by_an_uplink_that_has_ended() -> None:
    flows = Flows()
    (marker,) = send(flows, 100)
    flows.forget(ONE)
    assert flows.full(PEER, [ONE]) == []
    assert not flows.confirmed(marker)


def test_peers_that_are_not_sent_to_any_more_are_forgotten() -> None:
    flows = Flows()
    for number in range(5000):
        send(flows, 60, peer=b"%d" % number)
    assert len(flows._flows) <= 4096
    assert len(flows._roads) <= 4096
