# SPDX-License-Identifier: Apache-2.0
"""The front of a backend: a cache, the upkeep of what is announced, and one thread for both.

Callers never talk to the backend themselves.  A warm lookup reads a dictionary;
a cold one is asked by the directory's thread, together with whatever else is
wanted at that moment, and the caller waits no longer than it wants to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from zmq_matchmaker._backend import Matchmaker, Watch
from zmq_matchmaker._errors import MatchmakerError, Unavailable
from zmq_matchmaker._model import Entry, Key, Record
from zmq_matchmaker._registrations import BackOff, Registrations
from zmq_matchmaker._routes import RouteTable

__all__ = ["Directory", "DirectoryStatistics"]

LOG = logging.getLogger(__name__)

TICK: Final = 5.0
REFRESH_INTERVAL: Final = 0.1
WARNING_INTERVAL: Final = 30.0
WRITE_PATIENCE: Final = 5.0
FOREVER_UPDATE: Final = 40.0


@dataclass(slots=True)
class DirectoryStatistics:
    """Counters since the directory was made, and its present state."""

    cold_lookups: int = 0
    """Lookups that had to wait for the source."""
    rounds: int = 0
    """Round trips for lookups."""
    writes: int = 0
    """Round trips for announcing and withdrawing."""
    failures: int = 0
    """Round trips that failed."""
    reachable: bool = True
    """Whether the last round trip succeeded."""
    announced: int = 0
    """Entries that are kept known."""


class _Request:
    """A caller that waits for the thread."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: MatchmakerError | None = None


class Directory:
    """Who listens where, as one process sees it.  Thread-safe; times are in seconds.

    `expire` is how long a record lives without being refreshed (0 or less: for
    ever), `update` how often it is refreshed (None: a third of that).  A record
    that did not answer is set aside for `first_pause`, doubled up to
    `longest_pause`.  Making one does no I/O; the thread starts with the first use.
    """

    def __init__(
        self,
        backend: Matchmaker,
        *,
        expire: float = 120.0,
        update: float | None = None,
        first_pause: float = 1.0,
        longest_pause: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._ttl = expire if expire > 0 else None
        if update is None:
            update = expire / 3 if expire > 0 else FOREVER_UPDATE
        self._tick = min(update, TICK)
        self._clock = clock
        self._routes = RouteTable(first_pause, longest_pause)
        self._registrations = Registrations(update)
        self._back_off = BackOff()
        self._statistics = DirectoryStatistics()
        self._changed = threading.Condition()
        self._wanted: dict[Key, _Request] = {}
        self._writing: _Request | None = None
        self._next_tick = 0.0
        self._quiet_until = 0.0
        self._warned = -WARNING_INTERVAL
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def statistics(self) -> DirectoryStatistics:
        """A copy of the counters."""
        return replace(self._statistics, announced=len(self._registrations))

    # -- looking up ------------------------------------------------------------------

    def lookup(self, key: Key, timeout: float | None) -> tuple[Record, ...]:
        """The records of `key` that are worth a try; empty when nobody listens.

        No I/O when they are known.  Otherwise waits up to `timeout` (None: for ever).

        :raises Unavailable: they were never known, and the source cannot be asked.
        """
        route = self._routes.get(key)
        if route is not None and route.next_return is None and route.usable:
            route.used = True
            return route.usable
        return self._lookup_slowly(key, timeout)

    def _lookup_slowly(self, key: Key, timeout: float | None) -> tuple[Record, ...]:
        now = self._clock()
        with self._changed:
            route = self._routes.get(key)
            if route is not None:
                route.used = True
                if route.next_return is not None and route.next_return <= now:
                    route.settle(now)
                if self._routes.fresh(route, now):
                    return route.usable
        self._statistics.cold_lookups += 1
        return self._ask(key, timeout)

    def refresh(self, key: Key, timeout: float | None) -> tuple[Record, ...]:
        """The same, asked anew unless that was done within the last tenth of a second.

        While the source cannot be asked, what was known last is returned.
        """
        route = self._routes.get(key)
        if route is not None and self._clock() - route.fetched < REFRESH_INTERVAL:
            return self.lookup(key, timeout)
        return self._ask(key, timeout)

    def _ask(self, key: Key, timeout: float | None) -> tuple[Record, ...]:
        with self._changed:
            request = self._want(key)
        answered = request.done.wait(timeout)
        with self._changed:
            route = self._routes.get(key)
            if route is not None:
                route.used = True
                return route.usable
        if request.error is not None:
            raise request.error
        if answered:
            return ()
        raise Unavailable(f"{self._backend.url}: no answer within {timeout:g} s")

    def _want(self, key: Key) -> _Request:
        """Have the thread look `key` up, together with others.  Under the lock."""
        request = self._wanted.get(key)
        if request is None:
            request = self._wanted[key] = _Request()
            self._wake()
        return request

    # -- availability ----------------------------------------------------------------

    def nack(self, key: Key, record: Record, *, gone: bool = False) -> None:
        """`record` did not answer: others are preferred for a while.

        `gone`: it answered that nobody there listens on `key`.  It is not tried
        at all for that while, and the source is asked again.  Does not block.
        """
        with self._changed:
            self._routes.nack(key, record, self._clock(), gone=gone)
            if gone and not self._closing:
                self._want(key)

    def ack(self, key: Key, record: Record) -> None:
        """`record` answered: it is as good as any other.  Does not block."""
        route = self._routes.get(key)
        if route is not None and route.aside:
            with self._changed:
                self._routes.ack(key, record, self._clock())

    # -- announcing ------------------------------------------------------------------

    def announce(self, entries: Iterable[Entry]) -> None:
        """Let others find the entries, from now until `withdraw` or `close`.

        Returns when they are registered.  If the source cannot be reached it
        returns after one try, logs a warning, and registers them as soon as it can.
        """
        now = self._clock()
        with self._changed:
            entries = list(entries)
            self._registrations.announce(entries, now)
            for key, record in entries:
                self._routes.add(key, record, now)
            request = self._write()
        request.done.wait(WRITE_PATIENCE)

    def withdraw(self, entries: Iterable[Entry]) -> None:
        """Let nobody find the entries any more.

        If the source cannot be reached they expire there; that is logged, not raised.
        """
        now = self._clock()
        with self._changed:
            entries = list(entries)
            self._registrations.withdraw(entries, now)
            for key, record in entries:
                self._routes.remove(key, record, now)
            request = self._write()
        request.done.wait(WRITE_PATIENCE)

    def _write(self) -> _Request:
        if self._writing is None:
            self._writing = _Request()
        self._wake()
        return self._writing

    # -- the thread ------------------------------------------------------------------

    def close(self) -> None:
        """Withdraw everything, end the thread, close the backend.  Idempotent."""
        with self._changed:
            already, self._closing = self._closing, True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join()
        if not already:
            self._farewell()

    def _farewell(self) -> None:
        entries = self._registrations.entries()
        if self._watch is not None:
            self._watch.close()
        try:
            if entries and self._statistics.reachable:
                self._backend.unregister(entries)
        except MatchmakerError as error:
            LOG.warning("not unregistered, will expire: %s", error)
        self._backend.close()

    def _wake(self) -> None:
        """Have the thread look at what there is to do; start it if need be.  Under the lock."""
        if self._closing:
            for request in (*self._wanted.values(), self._writing):
                if request is not None:
                    request.error = Unavailable(f"{self._backend.url}: the directory is closed")
                    request.done.set()
            self._wanted.clear()
            self._writing = None
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="zmq-directory", daemon=True)
            self._next_tick = self._clock() + self._tick
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closing and not self._work_is_due():
                    self._changed.wait(self._patience())
                if self._closing:
                    self._wake()
                    return
            try:
                self._start_watch()
                self._do_writes()
                self._do_lookups()
            except MatchmakerError as error:
                self._failed(error)
            except Exception as error:
                LOG.exception("the matchmaker thread met an error; it goes on")
                self._failed(Unavailable(f"{self._backend.url}: {type(error).__name__}: {error}"))

    def _work_is_due(self) -> bool:
        now = self._clock()
        if self._wanted or self._writing is not None:
            return True
        return now >= max(min(self._next_tick, self._registrations.due), self._quiet_until)

    def _patience(self) -> float:
        due = max(min(self._next_tick, self._registrations.due), self._quiet_until)
        return max(0.0, due - self._clock())

    def _start_watch(self) -> None:
        if self._watch is None and self._backend.characteristics.push:
            self._watch = self._backend.watch(self._source_changed)

    def _source_changed(self, key: Key | None) -> None:
        """The source says that something is new."""
        with self._changed:
            if key is None:
                self._next_tick = self._clock()
                self._changed.notify_all()
            elif self._routes.get(key) is not None and not self._closing:
                self._want(key)

    def _do_writes(self) -> None:
        with self._changed:
            request, self._writing = self._writing, None
            due = self._registrations.due <= self._clock()
            entries = self._registrations.entries()
            leaving = self._registrations.leaving()
        try:
            if due and leaving:
                self._statistics.writes += 1
                self._backend.unregister(leaving)
            if due and entries:
                self._statistics.writes += 1
                self._backend.register(entries, self._ttl)
            if due:
                with self._changed:
                    self._registrations.written(entries, leaving, self._clock())
                self._succeeded()
        finally:
            if request is not None:
                request.done.set()

    def _do_lookups(self) -> None:
        with self._changed:
            requests, self._wanted = self._wanted, {}
            keys = dict.fromkeys(requests)
            now = self._clock()
            own = None
            if now >= self._next_tick:
                self._next_tick = now + self._tick
                keys.update(dict.fromkeys(self._routes.in_use()))
                own = self._registrations.own()
                if own is not None:
                    keys[own[0]] = None
        if not keys:
            return
        try:
            self._statistics.rounds += 1
            found = dict(zip(keys, self._backend.lookup(list(keys)), strict=True))
        except MatchmakerError as error:
            for request in requests.values():
                request.error = error
            raise
        else:
            self._take(found, own, set(requests))
            self._succeeded()
        finally:
            for request in requests.values():
                request.done.set()

    def _take(
        self, found: Mapping[Key, Sequence[Record]], own: Entry | None, asked: set[Key]
    ) -> None:
        now = self._clock()
        with self._changed:
            for key, records in found.items():
                if key in asked or self._routes.get(key) is not None:
                    self._routes.update(key, records, now)
            if own is not None and own[1] not in found[own[0]]:
                self._registrations.lost(now)

    def _succeeded(self) -> None:
        self._back_off.reset()
        self._quiet_until = 0.0
        if not self._statistics.reachable:
            self._statistics.reachable = True
            LOG.info("%s: reachable again", self._backend.url)

    def _failed(self, error: MatchmakerError) -> None:
        now = self._clock()
        pause = self._back_off.next()
        with self._changed:
            self._statistics.failures += 1
            self._statistics.reachable = False
            self._quiet_until = now + pause
            self._registrations.failed(now, pause)
            for request in self._wanted.values():
                request.error = error
                request.done.set()
            self._wanted.clear()
        if now - self._warned >= WARNING_INTERVAL:
            self._warned = now
            LOG.warning(
                "%s; known routes stay in use, %d records wait to be registered; trying on",
                error,
                len(self._registrations),
            )
