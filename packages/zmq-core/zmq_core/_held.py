# SPDX-License-Identifier: Apache-2.0
"""Requests of others that are here, and answers that are kept.  No I/O.

A sender asks after a request that went through a proxy (PROBE), and may send it again
when it was lost there, or, if it wanted an acknowledgement, when that did not come.  So
what may come again is remembered with its answer: it is executed once, and who asks
again gets the same answer.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from typing import Final, NamedTuple

from zmq_core._envelope import Envelope, Flag, MessageType
from zmq_core._errors import NackCode

__all__ = ["REPEATABLE", "HeldRequests"]

REPEATABLE: Final = Flag.ACK_WANTED | Flag.REPEATABLE
_PRUNE_AT: Final = 10_000
_HELD_MOST: Final = 100_000
_KEPT_MOST: Final = 50_000
_KEPT_BYTES: Final = 64 * 2**20


_MADE_UP: Final = b"\0"
"""How the names begin that libzmq gives to connections; no peer's own does."""


class _Waiting(NamedTuple):
    """A request without an answer."""

    until: float
    """When nobody waits for the answer any more."""
    keep: bool
    """Whether the answer is to be kept."""
    peer: bytes
    """Who gets it."""


class HeldRequests:
    """By their ids.  Thread-safe.  Told the time, never asks for it.

    Not by their senders too: libzmq renames the connection of a peer that connects again,
    and so what that has not read yet comes under a name that it makes up.

    Answers are kept for `remember` seconds, but no more than 50,000 and 64 MiB of them,
    and no more than 100,000 requests that have none yet: then the oldest go.
    """

    def __init__(self, remember: float) -> None:
        self._remember = remember
        self._lock = threading.Lock()
        self._until: dict[bytes, _Waiting] = {}
        self._prune_at = _PRUNE_AT
        self._kept: OrderedDict[bytes, tuple[float, Envelope]] = OrderedDict()
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._until)

    @property
    def kept(self) -> int:
        """How many answers are kept."""
        return len(self._kept)

    def add(self, peer: bytes, request: Envelope, now: float) -> Envelope | None:
        """`request` of `peer` has come.  If it is not for the first time, what to answer."""
        is_call = request.type is MessageType.CALL
        keep = bool(request.flags & (Flag.REPEATABLE if is_call else Flag.ACK_WANTED))
        if not (is_call or keep):
            return None
        with self._lock:
            waiting = self._until.get(request.id)
            if waiting is not None:
                if waiting.peer.startswith(_MADE_UP):
                    self._until[request.id] = waiting._replace(peer=peer)
                return Envelope(type=MessageType.HEARTBEAT, id=request.id)
            if request.id in self._kept:
                return self._kept[request.id][1]
            forever = math.inf if is_call else now + self._remember
            until = now + request.ttl if request.ttl else forever
            self._until[request.id] = _Waiting(until, keep, peer)
            if len(self._until) >= self._prune_at:
                self._prune(now)
        return None

    def _prune(self, now: float) -> None:
        """Some application does not answer: forget those whom nobody waits for any more."""
        self._until = {id_: it for id_, it in self._until.items() if it.until > now}
        if len(self._until) >= _HELD_MOST:
            rest = itertools.islice(self._until.items(), _PRUNE_AT, None)
            self._until = dict(rest)
        self._prune_at = max(_PRUNE_AT, min(2 * len(self._until), _HELD_MOST))

    def answered(self, peer: bytes, answer: Envelope, now: float) -> bytes:
        """There is an `answer` to a request of `peer`; to whom it goes.

        That is the same, unless that was a made-up name and the request has come again.
        """
        if answer.type is MessageType.HEARTBEAT or not self._until:
            return peer
        with self._lock:
            waiting = self._until.pop(answer.id, None)
            if waiting is None:
                return peer
            if waiting.keep and answer.type is not MessageType.NACK:
                self._kept[answer.id] = (now + self._remember, answer)
                self._kept_bytes += len(answer.body)
                self._forget_old(now)
            return waiting.peer

    def _forget_old(self, now: float) -> None:
        while self._kept:
            until, answer = next(iter(self._kept.values()))
            room = len(self._kept) <= _KEPT_MOST and self._kept_bytes <= _KEPT_BYTES
            if until > now and room:
                return
            del self._kept[answer.id]
            self._kept_bytes -= len(answer.body)

    def reply_to_probe(self, probe: Envelope) -> Envelope:
        """What to tell him who asks after a request."""
        with self._lock:
            if probe.id in self._until:
                return Envelope(type=MessageType.HEARTBEAT, id=probe.id)
            if probe.id in self._kept:
                return self._kept[probe.id][1]
        return probe.refused(NackCode.UNKNOWN_ID)
