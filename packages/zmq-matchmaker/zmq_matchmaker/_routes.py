# SPDX-License-Identifier: Apache-2.0
"""What is known of who listens where, and which of them to leave alone for now.

No clock and no I/O: every method is told the time.  Not thread-safe, but that
`Route.ready` and `Route.usable` may be read at any moment.

A route is *ready* while it can be used without a thought: it has usable records,
none of them waits to be tried again, and it was read from the source lately.  A
route that nobody used for a tick is not read again and becomes *stale*: its
records are still used, but the next lookup has it read in the background.

A source that was emptied (a Redis that restarted) looks like one whose listeners
have all left.  So when all of a route's records vanish at once it becomes
*doubtful*: those that have answered so far are kept for a while, within which
their processes register again, and the first failure of one ends its grace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
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
    ready: bool = False
    used: bool = True
    stale: bool = False
    doubtful_until: float | None = None
    idle_ticks: int = 0
    next_return: float | None = None
    """When the first record that was set aside is to be tried again."""
    aside: dict[Record, _Aside] = field(default_factory=dict)

    def settle(self, now: float) -> None:
        """Work out `usable` and `ready` anew."""
        live = set(self.records)
        self.aside = {record: item for record, item in self.aside.items() if record in live}
        waiting = {record: item for record, item in self.aside.items() if item.until > now}
        usable = tuple(record for record in self.records if record not in waiting)
        if not usable:
            # Better a try than nothing, but for those that said they are not there.
            usable = tuple(r for r in self.records if not waiting[r].gone)
        self.usable = usable
        self.next_return = min((item.until for item in waiting.values()), default=None)
        self._set_ready()

    def set_stale(self, stale: bool) -> None:
        """Whether the source is to be asked before this is relied on much longer."""
        self.stale = stale
        self._set_ready()

    def _set_ready(self) -> None:
        self.ready = bool(self.usable) and self.next_return is None and not self.stale


class RouteTable:
    """All routes of a process.

    `first_pause` and `longest_pause` are the seconds for which a record that did
    not answer is set aside: the first, doubled each time, up to the second.  `grace`
    is for how long records that vanished all at once are kept, `idle_limit` after how
    many ticks an unused route is forgotten.
    """

    def __init__(
        self, first_pause: float, longest_pause: float, grace: float = 0.0, idle_limit: int = 10
    ) -> None:
        self._routes: dict[Key, Route] = {}
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._grace = grace
        self._idle_limit = idle_limit
        self.get: Final[Callable[[Key], Route | None]] = self._routes.get
        """What is known of a key."""

    def __len__(self) -> int:
        return len(self._routes)

    def fresh(self, route: Route, now: float) -> bool:
        """Whether `route` may be used without waiting for the source."""
        if route.next_return is not None and route.next_return <= now:
            route.settle(now)
        return bool(route.usable) or now - route.fetched < EMPTY_LIFETIME

    def update(self, key: Key, records: Iterable[Record], now: float) -> Route:
        """The source was asked and answered."""
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(fetched=now)
        route.fetched = now
        route.records = self._believed(route, tuple(records), now)
        route.stale = False
        route.settle(now)
        return route

    def _believed(self, route: Route, found: tuple[Record, ...], now: float) -> tuple[Record, ...]:
        """`found`, or what there was before while it may only have been forgotten."""
        if found or not route.records:
            route.doubtful_until = None
            return found
        if route.doubtful_until is None:
            route.doubtful_until = now + self._grace
        if route.doubtful_until <= now:
            route.doubtful_until = None
            return ()
        return tuple(record for record in route.records if record not in route.aside)

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
        if route.doubtful_until is not None:
            self.remove(key, record, now)
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

    def distrust(self) -> None:
        """Any route may have changed."""
        for route in self._routes.values():
            route.set_stale(True)

    def in_use(self) -> list[Key]:
        """The keys that were looked up since the last tick."""
        return [key for key, route in self._routes.items() if route.used]

    def tick(self, asked: Collection[Key]) -> None:
        """The source has answered for `asked`, of those that were in use.

        To be called once a tick, but not while the source cannot be reached: then
        nothing is forgotten.
        """
        for key, route in list(self._routes.items()):
            if key in asked:
                route.used = False
                route.idle_ticks = 0
            elif not route.used:
                route.idle_ticks += 1
                route.set_stale(True)
                if route.idle_ticks >= self._idle_limit:
                    del self._routes[key]
