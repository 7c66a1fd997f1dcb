# SPDX-License-Identifier: Apache-2.0
"""Which of several proxies takes a message."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence
from typing import Final, Generic, Protocol, TypeVar

from zmq_core._errors import NoProxy
from zmq_core._roster import Road, Roster

__all__ = ["Ring"]

_LOOK_AGAIN: Final = 1.0


class _Sending(Road, Protocol):
    def send(self, frames: Sequence[bytes]) -> bool: ...


S = TypeVar("S", bound=_Sending)


class Ring(Generic[S]):
    """Gives messages to the roads of `roster` in turn.  Thread-safe; times are in seconds."""

    def __init__(self, roster: Roster[S], connect_timeout: float) -> None:
        self._roster = roster
        self._connect_timeout = connect_timeout
        self._turn = itertools.count()

    @property
    def closed(self) -> bool:
        """Whether there will be no road any more."""
        return self._roster.closed

    def hand_over(
        self,
        message: Sequence[bytes],
        deadline: float,
        endpoint: str,
        refusing: Collection[S] = (),
    ) -> S | None:
        """Give a message to a proxy that takes it; None if there is none but `refusing`.

        Waits until `deadline` for room, and not as long for a connection.  Errors name
        `endpoint`.

        :raises NoProxy: there is none, or none has room.
        """
        patience = min(deadline, time.monotonic() + self._connect_timeout)
        road = self.offer(message, refusing)
        while road is None:
            with self._roster.in_line() as gate:
                # Again, since it may have changed before we stood in line.
                road = self.offer(message, refusing)
                candidates = set(self._roster.ready) - set(refusing)
                if road is not None or not (candidates or self._connecting(refusing)):
                    break
                # A queue that is full is worth waiting for as long as there is time.
                left = (deadline if candidates else patience) - time.monotonic()
                if left <= 0:
                    if candidates:
                        raise NoProxy(endpoint, "the queues of all proxies were full")
                    break
                gate.acquire(timeout=min(left, _LOOK_AGAIN))
        self._roster.wake()  # our sending may have taken the signal that there is room
        if road is None and not refusing:
            raise self._nobody(endpoint)
        return road

    def offer(self, message: Sequence[bytes], refusing: Collection[S] = ()) -> S | None:
        """Give a message to the next proxy that takes it now."""
        for road in self._in_turn():
            if road not in refusing and road.send(message):
                return road
        return None

    def _connecting(self, refusing: Collection[S]) -> bool:
        """Whether it is worth waiting for a connection."""
        return not refusing and bool(self._roster.connecting)

    def _in_turn(self) -> Sequence[S]:
        ready = self._roster.ready
        if len(ready) < 2:
            return ready
        first = next(self._turn) % len(ready)
        return (*ready[first:], *ready[:first])

    def _nobody(self, endpoint: str) -> NoProxy:
        return NoProxy(
            endpoint,
            "none of the proxies that are registered can be reached"
            if self._roster.known
            else "no proxy is registered",
        )
