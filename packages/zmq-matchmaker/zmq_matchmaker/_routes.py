# SPDX-License-Identifier: Apache-2.0
"""What is known of who listens where, and which of them to leave alone for now.

No clock and no I/O: every method is told the time.  Not thread-safe, but that
`Route.ready` and `Route.usable` may be read at any moment.

A route is *ready* while it can be used without a thought: it has usable records,
none of them waits to be tried again, and it was read from the source lately.  A
route that nobody used for a tick is not read again and becomes *stale*: its
records are still used, but the next lookup has it read in the background.

A source that was emptied (a Redis that restarted) says that what it has is not
*complete*.  Nor is it in one that is back after it could not be asked, since nobody
could refresh records there.  Then those that it lacks are kept while they answer, since
their processes are about to register again; the first failure of one ends that.

A record is set aside by what this process met itself (*own*), or because the
source says that another process met it.  What one met itself counts for more:
only time, an answer, or a new registration of the record ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from zmq_matchmaker._health import SETTLED
from zmq_matchmaker._model import Found, Key, Record, Standing

__all__ = ["Route", "RouteTable"]

EMPTY_LIFETIME: Final = 1.0
"""Seconds for which it is believed that nobody listens."""


@dataclass(slots=True)
class _Aside:
    """A record that did not answer."""

    until: float
    pause: float
    gone: bool
    own: bool


@dataclass(slots=True)
class Route:
    """The records of one key.  `usable` is what lookups get, replaced as a whole."""

    fetched: float
    records: tuple[Record, ...] = ()
    usable: tuple[Record, ...] = ()
    ready: bool = False
    used: bool = True
    stale: bool = False
    registered: dict[Record, float | None] = field(default_factory=dict)
    doubtful: frozenset[Record] = frozenset()
    """Records that the source has lost, or whose processes have left: it does not know."""
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

    def everybody(self, now: float) -> tuple[Record, ...]:
        """`usable`, then those that are set aside, but for those that said they are not there."""
        if not self.aside:
            return self.usable  # all there are: not to be looked through for each message
        usable = set(self.usable)
        rest = []
        for record in self.records:
            item = self.aside.get(record)
            left = item is not None and item.gone and item.until > now
            if record not in usable and not left:
                rest.append(record)
        return (*self.usable, *rest)

    def set_stale(self, stale: bool) -> None:
        """Whether the source is to be asked before this is relied on much longer."""
        self.stale = stale
        self._set_ready()

    def _set_ready(self) -> None:
        self.ready = bool(self.usable) and self.next_return is None and not self.stale


class RouteTable:
    """All routes of a process.

    `first_pause` and `longest_pause` are the seconds for which a record that did
    not answer is set aside: the first, doubled each time, up to the second.  One that was
    registered, and says that nobody listens, is set aside for the second at once.
    `idle_limit` is after how many ticks an unused route is forgotten.
    """

    def __init__(self, first_pause: float, longest_pause: float, idle_limit: int = 10) -> None:
        self._routes: dict[Key, Route] = {}
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._idle_limit = idle_limit
        self._complete_from = float("-inf")
        """When what a source lacks that is back is gone, and not only about to return."""
        self.get: Final[Callable[[Key], Route | None]] = self._routes.get
        """What is known of a key."""

    def __len__(self) -> int:
        return len(self._routes)

    def clear(self) -> None:
        """Forget all of them."""
        self._routes.clear()

    def fresh(self, route: Route, now: float) -> bool:
        """Whether `route` may be used without waiting for the source."""
        if route.next_return is not None and route.next_return <= now:
            route.settle(now)
        return bool(route.usable) or now - route.fetched < EMPTY_LIFETIME

    def source_is_back(self, now: float) -> None:
        """It answers after it could not be asked: records may have ended there meanwhile."""
        self._complete_from = now + SETTLED

    def update(self, key: Key, found: Found, now: float) -> Route:
        """The source was asked and answered."""
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(fetched=now)
        route.fetched = now
        for standing in found.standings:
            self._weigh(route, standing, now)
        live = found.records
        route.doubtful = frozenset()
        if not found.complete or now < self._complete_from:
            gone = found.gone.union(live, route.aside)
            route.doubtful = frozenset(record for record in route.records if record not in gone)
        route.records = tuple(sorted((*live, *route.doubtful))) if route.doubtful else live
        route.registered = {standing.record: standing.registered for standing in found.standings}
        route.stale = False
        route.settle(now)
        return route

    def _weigh(self, route: Route, standing: Standing, now: float) -> None:
        """Take over what the source says of one record's availability."""
        record = standing.record
        before = route.registered.get(record)
        if before is not None and standing.registered not in (None, before):
            route.aside.pop(record, None)  # its process was started again, or can be reached again
        item = route.aside.get(record)
        if item is not None and item.own:
            return
        if standing.aside > 0:
            until = now + standing.aside
            route.aside[record] = _Aside(until, self._first_pause, gone=False, own=False)
        elif item is not None:
            del route.aside[record]

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

    def nack(self, key: Key, record: Record, now: float, *, gone: bool) -> float:
        """`record` did not answer, or (`gone`) said that nobody there listens on `key`.

        Returns the seconds for which it is set aside now; 0 if that was known.
        """
        route = self._routes.get(key)
        if route is None or record not in route.records:
            return 0.0
        if record in route.doubtful:
            route.doubtful -= {record}
            self.remove(key, record, now)
            return 0.0
        before = route.aside.get(record)
        # A second try costs a cast, and who listens again registers anew; but for what
        # stands in a static table, where nobody registers.
        final = gone and route.registered.get(record) is not None
        pause = self._longest_pause if final else self._first_pause
        if before is not None and before.own:
            if before.until > now and (before.gone or not gone):
                return 0.0  # several threads met the same failure: it counts once
            pause = min(max(before.pause * 2, pause), self._longest_pause)
        route.aside[record] = _Aside(now + pause, pause, gone, own=True)
        route.settle(now)
        return pause

    def ack(self, key: Key, record: Record, now: float) -> bool:
        """`record` answered; whether it was set aside until now."""
        route = self._routes.get(key)
        item = None if route is None else route.aside.pop(record, None)
        if route is None or item is None:
            return False
        route.settle(now)
        return item.until > now

    def keys(self) -> set[Key]:
        """The keys of all routes."""
        return set(self._routes)

    def distrust(self, keys: Iterable[Key] | None = None) -> None:
        """The routes of `keys` may have changed; None: any may have."""
        for key in self._routes if keys is None else keys:
            route = self._routes.get(key)
            if route is not None:
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
