# SPDX-License-Identifier: Apache-2.0
"""What is known of who listens where, and which of them to leave alone for now.

No clock and no I/O: every method is told the time.  Not thread-safe but for
`RouteTable.get`, which reads a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from zmq_matchmaker._model import Key, Record

__all__ = ["Route", "RouteTable"]

EMPTY_LIFETIME: Final = 1.0
"""Seconds for which it is believed that nobody listens."""


@dataclass(slots=True)
class _Aside:
    """A record that did not answer."""

    until: float
    pause: float
    gone: bool


@dataclass(slots=True)
class Route:
    """The records of one key.  `usable` is what lookups get, replaced as a whole."""

    fetched: float
    records: tuple[Record, ...] = ()
    usable: tuple[Record, ...] = ()
    used: bool = True
    idle_ticks: int = 0
    next_return: float | None = None
    """When the first record that was set aside is to be tried again."""
    aside: dict[Record, _Aside] = field(default_factory=dict)

    def settle(self, now: float) -> None:
        """Work out `usable` anew."""
        live = set(self.records)
        self.aside = {record: item for record, item in self.aside.items() if record in live}
        waiting = {record: item for record, item in self.aside.items() if item.until > now}
        answering = tuple(record for record in self.records if record not in waiting)
        if not answering:
            # Better a try than nothing, but for those that said they are not there.
            answering = tuple(r for r in self.records if not waiting[r].gone)
        self.usable = answering
        self.next_return = min((item.until for item in waiting.values()), default=None)


class RouteTable:
    """All routes of a process.

    `first_pause` and `longest_pause` are the seconds for which a record that did
    not answer is set aside: the first, doubled each time, up to the second.
    """

    def __init__(self, first_pause: float, longest_pause: float, idle_limit: int = 10) -> None:
        self._routes: dict[Key, Route] = {}
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._idle_limit = idle_limit

    def get(self, key: Key) -> Route | None:
        """What is known of `key`."""
        return self._routes.get(key)

    def fresh(self, route: Route, now: float) -> bool:
        """Whether `route` may be used without asking again."""
        return bool(route.usable) or now - route.fetched < EMPTY_LIFETIME

    def update(self, key: Key, records: Iterable[Record], now: float) -> Route:
        """The source was asked and answered."""
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(fetched=now)
        route.fetched = now
        route.records = tuple(records)
        route.settle(now)
        return route

    def add(self, key: Key, record: Record, now: float) -> None:
        """This process listens on `key` now: its own lookups need not wait to learn it."""
        route = self._routes.get(key)
        if route is not None and record not in route.records:
            route.records = tuple(sorted((*route.records, record)))
            route.settle(now)

    def remove(self, key: Key, record: Record, now: float) -> None:
        """This process no longer listens on `key`."""
        route = self._routes.get(key)
        if route is not None and record in route.records:
            route.records = tuple(other for other in route.records if other != record)
            route.settle(now)

    def nack(self, key: Key, record: Record, now: float, *, gone: bool) -> None:
        """`record` did not answer, or (`gone`) said that nobody there listens on `key`."""
        route = self._routes.get(key)
        if route is None or record not in route.records:
            return
        before = route.aside.get(record)
        if before is not None and before.until > now and (before.gone or not gone):
            return  # several threads met the same failure: it counts once
        pause = self._first_pause
        if before is not None:
            pause = min(before.pause * 2, self._longest_pause)
        route.aside[record] = _Aside(now + pause, pause, gone)
        route.settle(now)

    def ack(self, key: Key, record: Record, now: float) -> None:
        """`record` answered."""
        route = self._routes.get(key)
        if route is not None and route.aside.pop(record, None) is not None:
            route.settle(now)

    def in_use(self) -> list[Key]:
        """The keys that were looked up lately; forgets those that were not for long.

        To be called once a tick.
        """
        keys = []
        for key, route in list(self._routes.items()):
            route.idle_ticks = 0 if route.used else route.idle_ticks + 1
            if route.idle_ticks == 0:
                keys.append(key)
            elif route.idle_ticks >= self._idle_limit:
                del self._routes[key]
            route.used = False
        return keys
