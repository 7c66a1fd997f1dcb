# SPDX-License-Identifier: Apache-2.0
"""Which proxies a node has connections to, and whether they can be used."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from zmq_core._errors import NotDelivered
from zmq_core._ratelimit import RateLimitedLog

__all__ = ["Changed", "ProxyAddress", "ProxyEnd", "Road", "Roster"]

LOG = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0


class ProxyAddress(msgspec.Struct, frozen=True, order=True):
    """One router: its routing id, and the endpoints that take messages in and give them out."""

    name: str
    frontend: str
    backend: str


class ProxyEnd(msgspec.Struct, frozen=True, order=True):
    """One end of a publisher: its routing id, and the endpoint that takes in or gives out."""

    name: str
    endpoint: str


Address = ProxyAddress | ProxyEnd


class Road(Protocol):
    """The way to one proxy, for as long as its connections live."""

    @property
    def proxy(self) -> Address: ...
    @property
    def ready(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    def open(self) -> None: ...
    def close(self, reason: str) -> None: ...


R = TypeVar("R", bound=Road)
Changed = Callable[[R], None]
"""Told that a road is ready, has room again, or is closed."""


class Roster(Generic[R]):
    """The roads to all proxies that are registered.  Thread-safe; times are in seconds.

    `make` makes one, given what is to be told of its changes.  `ended` is told of each
    that has ended, on the reactor's thread.  If there is `no_other_way`, proxies that are
    no longer registered are used while none is: the matchmaker may have forgotten them
    all at once.
    """

    def __init__(
        self,
        make: Callable[[Address, Changed[R]], R],
        log: RateLimitedLog,
        ended: Callable[[R], None] = lambda road: None,
        *,
        no_other_way: bool = False,
    ) -> None:
        self._make = make
        self._log = log
        self._ended = ended
        self._no_other_way = no_other_way
        self._lock = threading.Lock()
        self._roads: dict[Address, R] = {}
        self._pauses: dict[Address, tuple[float, float]] = {}
        """Of proxies whose road ended: until when they are left alone, and that pause."""
        self._leaving: list[R] = []
        """To proxies that are no longer registered: only what they still bring is taken."""
        self._ready: tuple[R, ...] = ()
        self._gates: list[threading.Lock] = []
        self.closed = False
        """Whether it is over."""

    def use(self, proxies: Iterable[Address]) -> None:
        """Have connections to these proxies, and use no others any more.

        To be called again from time to time: connections that have ended are made
        anew, after pauses that double.  Blocks while it resolves host names.
        """
        wanted = set(proxies)
        now = time.monotonic()
        with self._lock:
            if self.closed:
                return
            for proxy in set(self._roads) - wanted:
                self._leaving.append(self._roads.pop(proxy))
            for road in [r for r in self._leaving if r.proxy in wanted and not r.closed]:
                self._leaving.remove(road)
                self._roads[road.proxy] = road
            self._pauses = {p: pause for p, pause in self._pauses.items() if p in wanted}
            new = []
            for proxy in sorted(wanted - set(self._roads), key=lambda proxy: proxy.name):
                if self._pauses.get(proxy, (0.0, 0.0))[0] <= now:
                    road = self._make(proxy, self._changed)
                    self._roads[proxy] = road
                    new.append(road)
            self._settle()
        self.wake()
        for road in new:
            try:
                road.open()
            except NotDelivered as error:
                LOG.debug("the proxy %s: %s", road.proxy.name, error)  # `_forget` warns of it

    @property
    def ready(self) -> Sequence[R]:
        """Those that can be used now."""
        return self._ready

    @property
    def connecting(self) -> Sequence[R]:
        """Those of which it is not known yet whether they can be used."""
        return [road for road in tuple(self._roads.values()) if not (road.ready or road.closed)]

    @property
    def open(self) -> Sequence[R]:
        """All that have not ended, those to proxies that leave included."""
        with self._lock:
            return [*self._roads.values(), *self._leaving]

    @property
    def known(self) -> bool:
        """Whether any proxy is registered, as far as is known."""
        return bool(self._roads or self._pauses)

    def await_all(self, timeout: float) -> int:
        """Wait until every proxy in use is ready or has failed; how many are ready."""
        deadline = time.monotonic() + timeout
        while True:
            with self.in_line() as gate:
                left = deadline - time.monotonic()
                if not self.connecting or left <= 0:
                    return len(self._ready)
                gate.acquire(timeout=left)

    def _settle(self) -> None:
        """Work out who is ready.  Under the lock."""
        self._ready = tuple(road for road in self._roads.values() if road.ready)
        if self._no_other_way and not self._ready:
            self._ready = tuple(road for road in self._leaving if road.ready)

    def _changed(self, road: R) -> None:
        with self._lock:
            if road.closed:
                self._forget(road)
            elif road.ready:
                self._pauses.pop(road.proxy, None)
            self._settle()
        self.wake()
        if road.closed:
            self._ended(road)

    def _forget(self, road: R) -> None:
        """Take out `road`, which is closed.  Under the lock."""
        if road in self._leaving:
            self._leaving.remove(road)
        if self._roads.get(road.proxy) is road:
            del self._roads[road.proxy]
            _, pause = self._pauses.get(road.proxy, (0.0, _FIRST_PAUSE / 2))
            pause = min(pause * 2, _LONGEST_PAUSE)
            self._pauses[road.proxy] = (time.monotonic() + pause, pause)
            self._log.warning(
                ("road", road.proxy.name),
                "no connection to the proxy %s any more: %s",
                road.proxy.name,
                road.reason,
            )

    @contextlib.contextmanager
    def in_line(self) -> Iterator[threading.Lock]:
        """A lock that is released when it is worth trying again."""
        gate = threading.Lock()
        gate.acquire()
        with self._lock:
            self._gates.append(gate)
        try:
            yield gate
        finally:
            with self._lock:
                if gate in self._gates:
                    self._gates.remove(gate)

    def wake(self) -> None:
        """Let those who stand in line try again."""
        if not self._gates:
            return
        with self._lock:
            gates, self._gates = self._gates, []
        for gate in gates:
            gate.release()

    def close(self, reason: str) -> None:
        """End all roads.  Idempotent."""
        with self._lock:
            self.closed = True
            roads = [*self._roads.values(), *self._leaving]
            self._roads, self._leaving = {}, []
            self._settle()
        self.wake()
        for road in roads:
            road.close(reason)
