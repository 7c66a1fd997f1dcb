# SPDX-License-Identifier: Apache-2.0
"""Requests that go through proxies: ours that are out, others' that are here.  No I/O, no clock.

A direct connection ends when its peer dies; one to a proxy does not.  So a
caller asks after a request that is out for long (PROBE): whoever has it says so,
and who does not denies it, or the proxy does for him.  A single denial proves
nothing, since it may overtake the request or its reply on another road.  A
process that stands still says nothing at all.
"""

from __future__ import annotations

import math
from typing import Final

from zmq_core._envelope import Envelope, MessageType
from zmq_core._errors import CoreError, NackCode, PeerLost, ProxyLost, QueueFull, Refused
from zmq_core._pending import PendingRequest
from zmq_core._uplink import Uplink

__all__ = ["Asked", "judge"]

_DENIALS: Final = 2
"""Times that a request has to be denied, one after the other, before it counts as lost."""


class Asked:
    """A request of ours that is out."""

    __slots__ = (
        "asked_by",
        "denials",
        "denied_by",
        "endpoint",
        "peer",
        "pending",
        "probe_at",
        "unanswered",
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
        self.denials = 0
        self.denied_by: set[Uplink] = set()
        """By which it was said, since the last sign of life, that the peer is not connected."""
        self.unanswered = 0
        """Probes since the last that was answered."""
        self.asked_by: set[Uplink] = set()
        """By which those went."""

    def probed(self, uplink: Uplink) -> None:
        """A probe has gone out by `uplink`."""
        self.unanswered += 1
        self.asked_by.add(uplink)

    def answered(self) -> None:
        """A probe was answered."""
        self.unanswered = 0
        self.asked_by.clear()

    def silent(self, probes: float, proxies: int) -> bool:
        """Whether so many `probes` were for nothing; where there are several `proxies`, by two.

        What one of them does not bring may be the fault of the road to it.
        """
        return self.unanswered >= probes and len(self.asked_by) >= min(2, proxies)

    def silence(self, seconds: float) -> PeerLost:
        """That all probes of the last `seconds` were sent for nothing."""
        return PeerLost(self.endpoint, f"no answer to heartbeats by the proxies for {seconds:g} s")


def judge(asked: Asked, answer: Envelope, uplink: Uplink) -> Envelope | CoreError | None:
    """What `answer`, which `uplink` brings, means for the request: its outcome, or None."""
    if answer.type is MessageType.HEARTBEAT:
        asked.answered()
        asked.denials = 0
        asked.denied_by.clear()
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
    asked.answered()
    asked.denials += 1
    if answer.nack_code is NackCode.UNROUTABLE:
        asked.denied_by.add(uplink)
    if asked.denials < _DENIALS:
        return None
    if answer.nack_code is NackCode.UNROUTABLE:
        return PeerLost(asked.endpoint, "it is not connected to the proxies any more")
    return ProxyLost(asked.endpoint, "the request or its reply was lost with a proxy")
