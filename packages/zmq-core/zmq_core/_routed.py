# SPDX-License-Identifier: Apache-2.0
"""Requests that go through proxies: ours that are out, others' that are here.  No I/O, no clock.

A direct connection ends when its peer dies; one to a proxy does not.  So a
caller asks after a request that is out for long (PROBE): whoever has it says so,
and who does not denies it, or the proxy does for him.  A single denial proves
nothing, since it may overtake the request or its reply on another road.
"""

from __future__ import annotations

import math
from typing import Final

from zmq_core._envelope import Envelope, Flag, MessageType
from zmq_core._errors import CoreError, NackCode, PeerLost, ProxyLost, QueueFull, Refused
from zmq_core._pending import PendingRequest
from zmq_core._uplink import Uplink

__all__ = ["Asked", "HeldRequests", "judge"]

_DENIALS: Final = 2
"""Times that a request has to be denied, one after the other, before it counts as lost."""
_PRUNE_AT: Final = 10_000


class Asked:
    """A request of ours that is out."""

    __slots__ = ("denials", "endpoint", "peer", "pending", "sent_at", "uplink")

    def __init__(self, pending: PendingRequest, peer: bytes, endpoint: str) -> None:
        self.pending = pending
        self.peer = peer
        self.endpoint = endpoint
        self.uplink: Uplink | None = None
        """By which it went, as soon as it has."""
        self.sent_at = math.inf
        self.denials = 0


def judge(asked: Asked, answer: Envelope) -> Envelope | CoreError | None:
    """What `answer` means for the request: its outcome, or None if it is still out."""
    if answer.type is MessageType.HEARTBEAT:
        asked.denials = 0
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
    asked.denials += 1
    if asked.denials < _DENIALS:
        return None
    if answer.nack_code is NackCode.UNROUTABLE:
        return PeerLost(asked.endpoint, "it is not connected to the proxies any more")
    return ProxyLost(asked.endpoint, "the request or its reply was lost with a proxy")


class HeldRequests:
    """Requests of others that are here and not answered yet.  Not thread-safe."""

    def __init__(self) -> None:
        self._until: dict[tuple[bytes, bytes], float] = {}
        self._prune_at = _PRUNE_AT

    def __len__(self) -> int:
        return len(self._until)

    def add(self, peer: bytes, request: Envelope, now: float) -> None:
        """`request` of `peer` has come, if it is one that wants an answer."""
        if request.type is not MessageType.CALL and not request.flags & Flag.ACK_WANTED:
            return
        self._until[peer, request.id] = now + request.ttl if request.ttl else math.inf
        if len(self._until) >= self._prune_at:
            # Some application does not answer.  Nobody waits for these any more.
            self._until = {key: until for key, until in self._until.items() if until > now}
            self._prune_at = max(_PRUNE_AT, 2 * len(self._until))

    def answered(self, peer: bytes, answer: Envelope) -> None:
        """`answer` goes to `peer`."""
        if answer.type is not MessageType.HEARTBEAT:
            self._until.pop((peer, answer.id), None)

    def reply_to_probe(self, peer: bytes, probe: Envelope) -> Envelope:
        """What to tell `peer`, who asks after a request."""
        if (peer, probe.id) in self._until:
            return Envelope(type=MessageType.HEARTBEAT, id=probe.id)
        return probe.refused(NackCode.UNKNOWN_ID)
