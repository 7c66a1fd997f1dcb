# SPDX-License-Identifier: Apache-2.0
"""The directory's thread: all I/O with the backend, and nothing else.

What to ask, to write and to believe is decided by `RouteTable`, `Registrations`
and `Health`, which know no thread; this is the shell that tells them the time,
carries out what they say, and wakes those who wait.  Reading and writing fail
apart from each other: a Redis that is full still answers lookups.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Final

from zmq_matchmaker._backend import Matchmaker, Watch
from zmq_matchmaker._changes import Changes
from zmq_matchmaker._errors import MatchmakerError, Unavailable
from zmq_matchmaker._health import Health, RateLimitedLog
from zmq_matchmaker._model import Entry, Found, Key
from zmq_matchmaker._registrations import Batch, Registrations
from zmq_matchmaker._request import Request
from zmq_matchmaker._routes import RouteTable
from zmq_matchmaker._statistics import DirectoryStatistics

__all__ = ["Upkeep"]

LOG = logging.getLogger(__name__)

_WRITE, _READ, _WATCH, _SHARE = "register", "look up", "watch", "tell who does not answer"
_NEVER: Final = float("inf")


class Upkeep:
    """Reads and writes for a `Directory`, on one thread that starts with the first request.

    `lock` protects the routes, the registrations and the requests; nothing that
    blocks is done under it.  `ttl`, `tick` and `longest_wait`
    (between two attempts to reach the source) are seconds.
    """

    def __init__(
        self,
        backend: Matchmaker,
        routes: RouteTable,
        registrations: Registrations,
        *,
        ttl: float | None,
        tick: float,
        longest_wait: float,
        clock: Callable[[], float],
    ) -> None:
        self.lock = threading.Condition()
        self.statistics = DirectoryStatistics()
        self.reading = Health(longest_wait)
        self.writing = Health(longest_wait)
        self._sharing = Health(longest_wait)
        self._backend = backend
        self._routes = routes
        self._registrations = registrations
        self._ttl = ttl
        self._tick = tick
        self._clock = clock
        self._log = RateLimitedLog(LOG, clock)
        self._wanted: dict[Key, Request] = {}
        self._asked: dict[Key, Request] = {}
        self._write_request: Request | None = None
        self._pauses: dict[Entry, float] = {}
        self._changes = Changes()
        self._followed: set[Key] = set()
        self._next_tick = _NEVER
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closing = False
        _upkeeps.add(self)

    # -- what callers ask for; under the lock ---------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether there is nobody to do the work: closed, or left in the parent by a fork."""
        return self._closing

    def want(self, key: Key, *, anew: bool = False) -> Request:
        """Have `key` looked up soon, together with others.

        An answer that is on its way already will do, unless `anew`.
        """
        request = self._wanted.get(key)
        if request is None and not anew:
            request = self._asked.get(key)
        if request is None:
            request = Request()
            if self._start():
                self._wanted[key] = request
                self.lock.notify_all()
            else:
                request.finish(self.closed_error())
        return request

    def want_write(self) -> Request:
        """Have the registrations' changes written now."""
        if self._write_request is None:
            request = Request()
            if not self._start():
                request.finish(self.closed_error())
                return request
            self._write_request = request
        self.lock.notify_all()
        return self._write_request

    def share(self, entry: Entry, pause: float) -> None:
        """Tell others that `entry` is set aside for `pause` seconds; 0: no longer."""
        if self._backend.characteristics.availability and self._start():
            self._pauses[entry] = pause
            self.lock.notify_all()

    def _start(self) -> bool:
        """Whether there is a thread to do the work, from now on."""
        if self._closing:
            return False
        if self._thread is None:
            self._pid = os.getpid()
            # Services that were started together do not look at one moment.
            self._next_tick = self._clock() + self._tick * random.uniform(0.4, 1.0)
            thread = threading.Thread(target=self._run, name="zmq-directory", daemon=True)
            thread.start()  # raises if the system has no more; then the next caller tries again
            self._thread = thread
        return True

    def closed_error(self) -> Unavailable:
        """Why nothing is done any more."""
        if self._pid != os.getpid():
            return Unavailable(
                f"{self._backend.url}: the directory belongs to process {self._pid}; "
                "make another one after a fork"
            )
        return Unavailable(f"{self._backend.url}: the directory is closed")

    def begin_in_child(self) -> None:
        """This process is a forked child: the thread, if there was one, is not here."""
        self.lock = threading.Condition()  # somebody may have held it
        self._closing = self._closing or self._thread is not None

    # -- the end --------------------------------------------------------------------------

    def close(self) -> None:
        """Withdraw everything, end the thread, close the backend.  Without the lock; idempotent."""
        if self._pid != os.getpid():
            return  # inherited over a fork: thread, connections and records are the parent's
        with self.lock:
            already, self._closing = self._closing, True
            thread = self._thread
            self.lock.notify_all()
        if thread is None:
            if not already:
                self._backend.close()
        elif thread is not threading.current_thread():
            thread.join()

    def _say_goodbye(self) -> None:
        with self.lock:
            for request in self._wanted.values():
                request.finish(self.closed_error())
            self._wanted.clear()
            if self._write_request is not None:
                self._write_request.finish(self.closed_error())
                self._write_request = None
            batch = self._registrations.farewell()
        if self._watch is not None:
            self._watch.close()
        try:
            if batch:
                self.statistics.writes += 1
                self._backend.unregister(batch)
        except MatchmakerError as error:
            self.statistics.failures += 1
            LOG.warning("%d records are left to expire: %s", len(batch), error)
        finally:
            self._backend.close()

    # -- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self.lock:
                while not self._closing and (seconds := self._due() - self._clock()) > 0:
                    self.lock.wait(seconds)
                if self._closing:
                    break
            self._supervised(_WRITE, self._do_writes)
            self._supervised(_READ, self._do_lookups)
            self._supervised(_SHARE, self._do_share)
        try:
            self._say_goodbye()
        except Exception:
            LOG.exception("%s: ending the matchmaker's thread", self._backend.url)

    def _supervised(self, what: str, work: Callable[[], None]) -> None:
        """Do a round of `work`, and let nothing that goes wrong end the thread."""
        try:
            work()
        except MatchmakerError as error:
            self._count_failure()
            self._log.warning(
                "unavailable",
                "cannot %s: %s; known routes stay in use, %d records wait to be registered; "
                "trying on",
                what,
                error,
                self._registrations.unwritten,
            )
        except Exception as error:
            self._count_failure()
            if self._log.passes(type(error).__name__):
                LOG.exception("%s: cannot %s; trying on", self._backend.url, what)

    def _count_failure(self) -> None:
        self.statistics.failures += 1
        self.statistics.reachable = False

    def _due(self) -> float:
        """When there is something to do.  Under the lock."""
        if self._write_request is not None:
            return -_NEVER  # also if there is nothing left to write: somebody waits to hear it
        due = min(self._registrations.due, self._next_tick, self._changes.due)
        if self._pauses:
            due = min(due, self._sharing.retry_at)
        if self._wanted:
            due = min(due, self.reading.impatient_at)
        return due

    def _worked(self, health: Health) -> None:
        health.succeeded()
        if self.reading.works and self.writing.works and not self.statistics.reachable:
            self.statistics.reachable = True
            LOG.info("%s: works again", self._backend.url)

    def _follow(self, keys: set[Key]) -> None:
        """Have changes of `keys` reported, before they are looked up."""
        if keys == self._followed or not self._backend.characteristics.push:
            return
        if self._watch is None:
            self._watch = self._backend.watch(self._source_changed)
        if self._watch is not None:
            self._watch.follow(keys)
        self._followed = keys

    def _source_changed(self, key: Key | None) -> None:
        """The source says that something is new.  Called by its thread, or by any that writes."""
        with self.lock:
            if key is None:
                self._routes.distrust()
                self._registrations.doubt(self._clock())
                keys = self._routes.in_use()
            else:
                keys = [key] if key in self._asked or self._routes.get(key) is not None else []
            if keys:
                self.statistics.changes += 1
                self._changes.add(keys, self._clock())
            self.lock.notify_all()

    def _do_share(self) -> None:
        with self.lock:
            if not self._pauses or self._clock() < self._sharing.retry_at:
                return
            pauses, self._pauses = self._pauses, {}
        try:
            self._backend.set_aside(pauses)
        except MatchmakerError:
            self._sharing.failed(self._clock())  # not tried again: it is of the moment only
            raise
        self._sharing.succeeded()

    def _do_writes(self) -> None:
        with self.lock:
            request, self._write_request = self._write_request, None
            batch = self._registrations.batch(self._clock())
        error: MatchmakerError | None = Unavailable(f"{self._backend.url}: writing failed")
        kept = True
        try:
            if batch is not None:
                kept = self._write(batch)
            error = None
        except MatchmakerError as problem:
            error = problem
            raise
        finally:
            with self.lock:
                if error is not None:
                    now = self._clock()
                    self._registrations.failed(now, self.writing.failed(now))
                elif batch is not None:
                    self._registrations.written(batch, self._clock())
                    if not kept:
                        self._registrations.lost(self._clock())
                    self._worked(self.writing)
            if request is not None:
                request.finish(error)

    def _write(self, batch: Batch) -> bool:
        """Whether the source has kept what it was told before."""
        if batch.leaving:
            self.statistics.writes += 1
            self._backend.unregister(batch.leaving)
        if not batch.entries:
            return True
        self.statistics.writes += 1
        if batch.refresh:
            return self._backend.refresh(batch.entries, self._ttl)
        self._backend.register(batch.entries, self._ttl)
        return True

    def _do_lookups(self) -> None:
        with self.lock:
            now = self._clock()
            ticks = now >= self._next_tick
            requests: dict[Key, Request] = {}
            if self._wanted and now >= self.reading.impatient_at:
                requests, self._wanted = self._wanted, {}
                self._asked = requests
            asked = dict.fromkeys(requests)
            asked.update(dict.fromkeys(self._changes.take(now)))
            sample = None
            follow = self._routes.keys().union(asked)
            if ticks:
                self._next_tick = now + self._tick * random.uniform(0.8, 1.0)
                asked.update(dict.fromkeys(self._routes.in_use()))
                if self._backend.characteristics.writable:
                    sample = self._registrations.sample()
                if sample is not None:
                    asked[sample[0]] = None
        error: MatchmakerError | None = Unavailable(f"{self._backend.url}: looking up failed")
        try:
            if asked:
                self._supervised(_WATCH, lambda: self._follow(follow))
                self.statistics.rounds += 1
                found = dict(zip(asked, self._backend.find(list(asked)), strict=True))
                self._take(found, requests, sample)
            if ticks:
                with self.lock:
                    self._routes.tick(asked)
            error = None
        except MatchmakerError as problem:
            error = problem
            raise
        finally:
            with self.lock:
                self._asked = {}
                if error is not None:
                    self._routes.distrust(asked)
                    self.reading.failed(self._clock())
                    self._next_tick = self.reading.retry_at
                elif asked:
                    self._worked(self.reading)
            for request in requests.values():
                request.finish(error)

    def _take(
        self,
        found: Mapping[Key, Found],
        requests: Mapping[Key, Request],
        sample: Entry | None,
    ) -> None:
        with self.lock:
            now = self._clock()
            for key, what in found.items():
                if key in requests or self._routes.get(key) is not None:
                    self._routes.update(key, what, now)
            # What was announced or withdrawn since the source was asked.
            announced, withdrawn = self._registrations.changes
            for key, record in announced:
                self._routes.add(key, record, now)
            for key, record in withdrawn:
                self._routes.remove(key, record, now)
            if sample is not None and sample[1] not in found[sample[0]].records:
                self._registrations.lost(now)


_upkeeps: weakref.WeakSet[Upkeep] = weakref.WeakSet()


def _begin_in_child() -> None:
    for upkeep in list(_upkeeps):
        upkeep.begin_in_child()


os.register_at_fork(after_in_child=_begin_in_child)
