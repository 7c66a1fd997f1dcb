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
from typing import Final

from zmq_core._envelope import Envelope, Flag, MessageType
from zmq_core._errors import NackCode

__all__ = ["REPEATABLE", "HeldRequests"]

REPEATABLE: Final = Flag.ACK_WANTED | Flag.REPEATABLE
_PRUNE_AT: Final = 10_000
_HELD_MOST: Final = 100_000
_KEPT_MOST: Final = 50_000
_KEPT_BYTES: Final = 64 * 2**20

_Name = tuple[bytes, bytes]
"""Of a request: its sender and its id."""


class HeldRequests:
    """Thread-safe.  Told the time, never asks for it.

    Answers are kept for `remember` seconds, but no more than 50,000 and 64 MiB of them,
    and no more than 100,000 requests that have none yet: then the oldest go.
    """

    def __init__(self, remember: float) -> None:
        self._remember = remember
        self._lock = threading.Lock()
        self._until: dict[_Name, tuple[float, bool]] = {}
        """Until when somebody waits for the answer, and whether it is to be kept."""
        self._prune_at = _PRUNE_AT
        self._kept: OrderedDict[_Name, tuple[float, Envelope]] = OrderedDict()
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
        name = (peer, request.id)
        with self._lock:
            if name in self._until:
                return Envelope(type=MessageType.HEARTBEAT, id=request.id)
            if name in self._kept:
                return self._kept[name][1]
            forever = math.inf if is_call else now + self._remember
            until = now + request.ttl if request.ttl else forever
            self._until[name] = (until, keep)
            if len(self._until) >= self._prune_at:
                self._prune(now)
        return None

    def _prune(self, now: float) -> None:
        """Some application does not answer: forget those whom nobody waits for any more."""
        self._until = {name: it for name, it in self._until.items() if it[0] > now}
        if len(self._until) >= _HELD_MOST:
            rest = itertools.islice(self._until.items(), _PRUNE_AT, None)
            self._until = dict(rest)
        self._prune_at = max(_PRUNE_AT, min(2 * len(self._until), _HELD_MOST))

    def answered(self, peer: bytes, answer: Envelope, now: float) -> None:
        """`answer` goes to `peer`."""
        if answer.type is MessageType.HEARTBEAT or not self._until:
            return
        name = (peer, answer.id)
        with self._lock:
            _, keep = self._until.pop(name, (0.0, False))
            if keep and answer.type is not MessageType.NACK:
                self._kept[name] = (now + self._remember, answer)
                self._kept_bytes += len(answer.body)
                self._forget_old(now)

    def _forget_old(self, now: float) -> None:
        while self._kept:
            name, (until, answer) = next(iter(self._kept.items()))
            room = len(self._kept) <= _KEPT_MOST and self._kept_bytes <= _KEPT_BYTES
            if until > now and room:
                return
            del self._kept[name]
            self._kept_bytes -= len(answer.body)

    def reply_to_probe(self, peer: bytes, probe: Envelope) -> Envelope:
        """What to tell `peer`, who asks after a request."""
        name = (peer, probe.id)
        with self._lock:
            if name in self._until:
                return Envelope(type=MessageType.HEARTBEAT, id=probe.id)
            if name in self._kept:
                return self._kept[name][1]
        return probe.refused(NackCode.UNKNOWN_ID)
