# SPDX-License-Identifier: Apache-2.0
"""The front of a backend: a cache, the upkeep of what is announced, and one thread for both.

Callers never talk to the backend themselves.  A warm lookup reads a dictionary;
a cold one is asked by the directory's thread, together with whatever else is
wanted at that moment, and the caller waits no longer than it wants to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._encoding import encode_record
from zmq_matchmaker._errors import AccessDenied, Closed, InvalidRecord, Unavailable
from zmq_matchmaker._health import BackOff
from zmq_matchmaker._model import Entry, Key, Record
from zmq_matchmaker._registrations import Registrations
from zmq_matchmaker._requests import Request
from zmq_matchmaker._routes import RouteTable
from zmq_matchmaker._statistics import DirectoryStatistics
from zmq_matchmaker._upkeep import Upkeep

__all__ = ["Directory"]

TICK: Final = 5.0
"""At most so many seconds between two looks at the routes in use."""
REFRESH_INTERVAL: Final = 0.1
WRITE_PATIENCE: Final = 5.0
"""Seconds for which `announce` and `withdraw` wait, should a backend take longer."""
FOREVER_UPDATE: Final = 40.0


class Directory:
    """Who listens where, as one process sees it.  Thread-safe; times are in seconds.

    `expire` is how long a record lives without being refreshed (0 or less: for
    ever), `update` how often it is refreshed (None: a third of that).  A record
    that did not answer is set aside for `first_pause`, doubled up to
    `longest_pause`.  While the source is down it is tried every `longest_wait` at
    the latest.  Making one does no I/O; the thread starts with the first use.

    :raises ValueError: `update` is not more than 0.

    It belongs to the process that uses it first: a forked child makes its own.
    """

    def __init__(
        self,
        backend: Matchmaker,
        *,
        expire: float = 120.0,
        update: float | None = None,
        first_pause: float = 1.0,
        longest_pause: float = 30.0,
        longest_wait: float = BackOff.LONGEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if update is not None and update <= 0:
            raise ValueError(f"update must be more than 0 seconds, not {update:g}")
        if update is None:
            update = expire / 3 if expire > 0 else FOREVER_UPDATE
        self._backend = backend
        self._clock = clock
        self._routes = RouteTable(first_pause, longest_pause)
        self._registrations = Registrations(update)
        self._upkeep = Upkeep(
            backend,
            self._routes,
            self._registrations,
            ttl=expire if expire > 0 else None,
            tick=min(update, TICK),
            longest_wait=longest_wait,
            clock=clock,
        )
        self._route: Final = self._routes.get

    @property
    def statistics(self) -> DirectoryStatistics:
        """A copy of the counters."""
        return replace(
            self._upkeep.statistics,
            announced=len(self._registrations),
            unwritten=self._registrations.unwritten,
        )

    @property
    def reachable(self) -> bool:
        """Whether the source answered when it was last asked."""
        return self._upkeep.statistics.reachable

    # -- looking up ------------------------------------------------------------------

    def lookup(self, key: Key, timeout: float | None) -> tuple[Record, ...]:
        """The records of `key` that are worth a try; empty when nobody listens.

        No I/O when they are known.  Otherwise waits up to `timeout` (None: for ever).

        :raises Unavailable: they are not known, and the source cannot be asked.
        :raises Closed: the same, and will stay so: this directory was closed.
        """
        route = self._route(key)
        if route is not None and route.ready:
            route.used = True
            return route.usable
        return self._lookup_slowly(key, timeout)

    def _lookup_slowly(self, key: Key, timeout: float | None) -> tuple[Record, ...]:
        with self._upkeep.lock:
            route = self._route(key)
            if route is not None:
                route.used = True
                if self._routes.fresh(route, self._clock()):
                    if route.stale and self._upkeep.reading.works:
                        self._upkeep.want(key)
                    return route.usable
            self._upkeep.statistics.cold_lookups += 1
            request = self._upkeep.want(key)
        return self._await(key, request, timeout)

    def everybody(self, key: Key, timeout: float | None) -> tuple[Record, ...]:
        """What `lookup` returns, and after it those that are set aside: for messages to all.

        Without those that answered that nobody there listens.

        :raises Unavailable: as `lookup`.
        """
        usable = self.lookup(key, timeout)
        with self._upkeep.lock:
            route = self._route(key)
            return usable if route is None else route.everybody(self._clock())

    def refresh(self, key: Key, timeout: float | None) -> tuple[Record, ...]:
        """The same, asked anew unless that was done within the last tenth of a second.

        While the source cannot be asked, what was known last is returned.
        """
        with self._upkeep.lock:
            route = self._route(key)
            if route is not None:
                route.used = True
                if self._clock() - route.fetched < REFRESH_INTERVAL:
                    return route.usable
                if route.usable and not self._upkeep.reading.works:
                    return route.usable
            request = self._upkeep.want(key, anew=True)
        return self._await(key, request, timeout)

    def _await(self, key: Key, request: Request, timeout: float | None) -> tuple[Record, ...]:
        answered = self._wait(request, timeout)
        with self._upkeep.lock:
            route = self._route(key)
            if route is not None and (route.usable or (answered and request.error is None)):
                route.used = True
                return route.usable
        if request.error is not None:
            # One request serves many callers: each gets an error of its own to raise.
            known = isinstance(request.error, AccessDenied | Closed)
            kind = type(request.error) if known else Unavailable
            raise kind(str(request.error)) from request.error
        if answered:
            return ()
        raise Unavailable(f"{self._backend.url}: no answer within {timeout or 0.0:g} s")

    def _wait(self, request: Request, timeout: float | None) -> bool:
        """Whether it was finished in time."""
        with self._upkeep.lock:
            gate = request.gate()
        seconds = -1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        gate.acquire(timeout=seconds)
        return request.finished

    # -- availability ----------------------------------------------------------------

    def nack(self, key: Key, host: Record | str, *, gone: bool = False) -> None:
        """`host` did not answer: others are preferred for a while, here and elsewhere.

        A record that `lookup` returned, or the endpoint of one (`tcp://host:port`,
        `host:port`).  Other processes learn it through the backend, if that can.
        `gone`: it answered that nobody there listens on `key`.  It is not tried
        at all for `longest_pause` or until it registers anew, and the source is asked
        again.  Does not block.
        """
        with self._upkeep.lock:
            for record in self._records_of(key, host):
                pause = self._routes.nack(key, record, self._clock(), gone=gone)
                if pause:
                    self._upkeep.share((key, record), pause)
            if gone and self._upkeep.reading.works:
                self._upkeep.want(key, anew=True)

    def ack(self, key: Key, host: Record | str) -> None:
        """`host` answered: it is as good as any other, at once.  Does not block."""
        route = self._route(key)
        if route is not None and route.aside:
            with self._upkeep.lock:
                for record in self._records_of(key, host):
                    if self._routes.ack(key, record, self._clock()):
                        self._upkeep.share((key, record), 0.0)

    def _records_of(self, key: Key, host: Record | str) -> Iterable[Record]:
        if isinstance(host, Record):
            return (host,)
        endpoint = host if "://" in host else f"tcp://{host}"
        route = self._route(key)
        records = route.records if route is not None else ()
        return [record for record in records if record.endpoint == endpoint]

    # -- announcing ------------------------------------------------------------------

    def announce(self, entries: Iterable[Entry]) -> None:
        """Let others find the entries, from now until `withdraw` or `close`.

        Returns when they are registered.  If the source cannot be reached it
        returns after one try, logs a warning, and registers them as soon as it can.

        :raises InvalidRecord: an entry holds text that cannot be written.
        :raises Closed: this directory is closed, or another process's.
        """
        entries = list(entries)
        for key, record in entries:
            _check(key, record)
        with self._upkeep.lock:
            if self._upkeep.closed:
                raise self._upkeep.closed_error()
            now = self._clock()
            self._registrations.announce(entries, now)
            for key, record in entries:
                self._routes.add(key, record, now)
            request = self._upkeep.want_write()
        self._wait(request, WRITE_PATIENCE)

    def withdraw(self, entries: Iterable[Entry]) -> None:
        """Let nobody find the entries any more.

        If the source cannot be reached, this goes on trying to until `close`, and
        the records expire there meanwhile; nothing is raised.
        """
        with self._upkeep.lock:
            now = self._clock()
            entries = list(entries)
            self._registrations.withdraw(entries, now)
            for key, record in entries:
                self._routes.remove(key, record, now)
            request = self._upkeep.want_write()
            patience = WRITE_PATIENCE if self._upkeep.writing.works else 0.0
        self._wait(request, patience)

    def close(self) -> None:
        """Withdraw everything, end the thread, close the backend.

        Idempotent; does nothing in a forked child.  Takes as long as the backend's
        time limit if the source hangs.
        """
        self._upkeep.close()


def _check(key: Key, record: Record) -> None:
    """One entry that cannot be written must not keep the others from it."""
    try:
        "".join(key).encode()
        encode_record(record)
    except (UnicodeEncodeError, TypeError) as error:
        raise InvalidRecord(f"{key!r}, {record!r} cannot be registered: {error}") from error
