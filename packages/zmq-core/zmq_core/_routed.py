# SPDX-License-Identifier: Apache-2.0
"""Requests of ours that are out through proxies: what becomes known of each.  No I/O, no clock.

A direct connection ends when its peer dies; one to a proxy does not.  So a
caller asks after a request that is out for long (PROBE): whoever has it says so,
and who does not denies it, or the proxy does for him.  A single denial proves
nothing, since it may overtake the request or its reply on another road.  A
process that stands still says nothing at all.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from zmq_core._envelope import Envelope, MessageType, encode
from zmq_core._errors import CoreError, NackCode, PeerLost, ProxyLost, QueueFull, Refused
from zmq_core._pending import PendingRequest
from zmq_core._uplink import Uplink

__all__ = ["Asked", "judge", "probe_of"]

_DENIALS: Final = 2
"""Times that a request has to be denied, one after the other, before it counts as lost."""
_BY_THE_PEER: Final = frozenset({NackCode.UNKNOWN_KEY, NackCode.UNKNOWN_ID})


class Asked:
    """A request of ours that is out."""

    __slots__ = (
        "asked_by",
        "denied_by",
        "endpoint",
        "peer",
        "pending",
        "probe_at",
        "unanswered",
        "unknown",
        "unroutable",
        "uplink",
    )

    def __init__(self, pending: PendingRequest, peer: bytes, endpoint: str) -> None:
        self.pending = pending
        self.peer = peer
        self.endpoint = endpoint
        self.uplink: Uplink | None = None
        """By which it went, as soon as it has."""
        self.probe_at = math.inf
        """When to ask after it."""
        self.unknown = 0
        """Times that the peer said, since it last had it, that it does not have it."""
        self.unroutable = 0
        """Times that proxies said, since it last gave a sign of life, that it is not connected."""
        self.denied_by: set[Uplink] = set()
        """By which they said so."""
        self.unanswered = 0
        """Times that it was asked after since the last answer."""
        self.asked_by: set[Uplink] = set()
        """By which that was."""

    def concerns(self, sender: bytes, answer: Envelope) -> bool:
        """Whether `answer` is about this request: another peer may have had it before, by its id.

        What a proxy may say for the peer counts whoever says it.
        """
        by_peer = answer.type is not MessageType.NACK or answer.nack_code in _BY_THE_PEER
        return sender == self.peer or not by_peer

    def probed(self, uplinks: Collection[Uplink]) -> None:
        """It was asked after by these."""
        self.unanswered += 1
        self.asked_by.update(uplinks)

    def silent(self, probes: float, proxies: int) -> bool:
        """Whether so many `probes` were for nothing; where there are several `proxies`, by two.

        What one of them does not bring may be the fault of the road to it.
        """
        roads = self.asked_by | self.denied_by
        return self.unanswered >= probes and len(roads) >= min(2, proxies)

    def silence(self, seconds: float) -> PeerLost:
        """That all probes of the last `seconds` were sent for nothing."""
        return PeerLost(self.endpoint, f"no answer to heartbeats by the proxies for {seconds:g} s")

    def answered(self) -> None:
        """There is an answer to the probes."""
        self.unanswered = 0
        self.asked_by.clear()

    def lives(self) -> None:
        """The peer has answered."""
        self.answered()
        self.unroutable = 0
        self.denied_by.clear()


def judge(
    asked: Asked, answer: Envelope, uplink: Uplink, uplinks: Collection[Uplink]
) -> Envelope | CoreError | None:
    """What `answer`, which `uplink` brings, means for the request: its outcome, or None.

    `uplinks` are all that could bring one.
    """
    if answer.type is MessageType.HEARTBEAT:
        asked.lives()
        asked.unknown = 0
        asked.pending.sign_of_life()
        return None
    if answer.type is not MessageType.NACK:
        return answer
    if answer.subject != MessageType.PROBE:
        if answer.nack_code is NackCode.QUEUE_FULL:
            return QueueFull(asked.endpoint, "its queue, or that of a proxy for it, is full")
        return Refused(asked.endpoint, answer.nack_code)
    if answer.nack_code is NackCode.QUEUE_FULL:
        return None
    if answer.nack_code is NackCode.UNROUTABLE:
        asked.answered()
        asked.unroutable += 1
        asked.denied_by.add(uplink)
        if asked.unroutable >= _DENIALS and asked.denied_by.issuperset(uplinks):
            return PeerLost(asked.endpoint, "it is not connected to the proxies any more")
        return None
    asked.lives()
    asked.unknown += 1
    if asked.unknown >= _DENIALS:
        return ProxyLost(asked.endpoint, "the request or its reply was lost with a proxy")
    return None


def probe_of(peer: bytes, sender: bytes, message_id: bytes) -> list[bytes]:
    """The frames by which `sender` asks `peer` whether it has that message."""
    return [peer, sender, *encode(Envelope(type=MessageType.PROBE, id=message_id))]
