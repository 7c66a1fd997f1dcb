# SPDX-License-Identifier: Apache-2.0
"""What the directory's thread does with the backend: write, look up, share, and say goodbye.

What to ask, to write and to believe is decided by `RouteTable`, `Registrations`,
`Requests`, `Changes`, `Sharing` and `Health`, which know no thread; this tells
them the time and carries out what they say.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Callable, Mapping
from typing import Final

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._changes import Changes
from zmq_matchmaker._errors import MatchmakerError, Unavailable
from zmq_matchmaker._following import Following
from zmq_matchmaker._health import Health
from zmq_matchmaker._model import Entry, Found, Key
from zmq_matchmaker._registrations import Batch, Registrations
from zmq_matchmaker._requests import Requests
from zmq_matchmaker._routes import RouteTable
from zmq_matchmaker._sharing import Sharing
from zmq_matchmaker._statistics import DirectoryStatistics

__all__ = ["Rounds"]

LOG = logging.getLogger(__name__)

_NEVER: Final = float("inf")

Supervise = Callable[[str, Callable[[], None]], Exception | None]
"""Does a piece of work so that nothing that goes wrong gets out; what did if we are to stop."""


class Rounds:
    """For one thread, but for what is said to be called under the lock.

    `lock` protects the routes, the registrations and the requests; nothing that
    blocks is done under it.  `changed` is told that there may be something to do.
    Reading and writing fail apart from each other: a Redis that is full still answers
    lookups.
    """

    def __init__(
        self,
        backend: Matchmaker,
        routes: RouteTable,
        registrations: Registrations,
        supervise: Supervise,
        *,
        ttl: float | None,
        tick: float,
        longest_wait: float,
        clock: Callable[[], float],
    ) -> None:
        self.renew_lock()
        self.statistics = DirectoryStatistics()
        self.reading = Health(longest_wait)
        self.writing = Health(longest_wait)
        self.requests = Requests()
        self.sharing = Sharing(longest_wait)
        self._backend = backend
        self._routes = routes
        self._registrations = registrations
        self._supervise = supervise
        self._ttl = ttl
        self._tick = tick
        self._clock = clock
        self._changes = Changes()
        self._following = Following(backend, self._source_changed)
        self._next_tick = _NEVER

    def renew_lock(self) -> None:
        """Make new ones that nobody holds.

        To be entered by `lock`, never by `changed`: if the handler of a signal raises while a
        Condition is entered, which is Python code, its lock stays locked for ever.
        """
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    def begin(self) -> None:
        """There is a thread from now on.  Under the lock."""
        # Services that were started together do not look at one moment.
        self._next_tick = self._clock() + self._tick * random.uniform(0.4, 1.0)

    def due(self) -> float:
        """When there is something to do.  Under the lock."""
        if self.requests.write_wanted:
            return -_NEVER  # also if there is nothing left to write: somebody waits to hear it
        due = min(self._registrations.due, self._next_tick, self._changes.due, self.sharing.due)
        if self.requests.lookup_wanted:
            due = min(due, self.reading.impatient_at)
        return due

    def write(self) -> None:
        """Register, refresh and unregister what is due."""
        with self.lock:
            request = self.requests.take_write()
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

    def look_up(self) -> None:
        """Ask for what is wanted, for what has changed, and now and then for all that is in use."""
        with self.lock:
            now = self._clock()
            ticks = now >= self._next_tick
            asked: dict[Key, None] = {}
            if now >= self.reading.impatient_at:
                asked.update(dict.fromkeys(self.requests.ask()))
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
                problem = self._supervise(
                    "watch", functools.partial(self._following.follow, follow)
                )
                if problem is not None:
                    raise Unavailable(str(problem))
                self.statistics.rounds += 1
                found = dict(zip(asked, self._backend.find(list(asked)), strict=True))
                self._take(found, sample)
            if ticks:
                with self.lock:
                    self._routes.tick(asked)
            error = None
        except MatchmakerError as problem:
            error = problem
            raise
        finally:
            with self.lock:
                if error is not None:
                    self._routes.distrust(asked)
                    self.reading.failed(self._clock())
                    self._next_tick = self.reading.retry_at
                elif asked:
                    self._worked(self.reading)
                self.requests.answered(error)

    def _take(
        self,
        found: Mapping[Key, Found],
        sample: Entry | None,
    ) -> None:
        with self.lock:
            now = self._clock()
            if not self.reading.works and self._backend.characteristics.expiry:
                self._routes.source_is_back(now)
            for key, what in found.items():
                if self.requests.is_asked(key) or self._routes.get(key) is not None:
                    self._routes.update(key, what, now)
            # What was announced or withdrawn since the source was asked.
            announced, withdrawn = self._registrations.changes
            for key, record in announced:
                self._routes.add(key, record, now)
            for key, record in withdrawn:
                self._routes.remove(key, record, now)
            if sample is not None and sample[1] not in found[sample[0]].records:
                self._registrations.lost(now)

    def share(self) -> None:
        """Tell others of records that do not answer."""
        with self.lock:
            pauses = self.sharing.take(self._clock())
        if not pauses:
            return
        try:
            self._backend.set_aside(pauses)
        except MatchmakerError:
            self.sharing.failed(self._clock())
            raise
        self.sharing.succeeded()

    def say_goodbye(self, refusal: MatchmakerError, problem: Exception | None) -> None:
        """Withdraw everything, refuse what is wanted, close the backend.

        With a `problem` that the source had a moment ago nothing is withdrawn:
        whoever closes waits for a source that hangs once, not once more.
        """
        with self.lock:
            self.requests.refuse(refusal)
            batch = self._registrations.farewell()
        self._following.close()
        try:
            if batch and problem is None:
                self.statistics.writes += 1
                self._backend.unregister(batch)
        except MatchmakerError as error:
            self.statistics.failures += 1
            problem = error
        finally:
            self._backend.close()
        if batch and problem is not None:
            LOG.warning("%d records are left to expire: %s", len(batch), problem)

    def _worked(self, health: Health) -> None:
        health.succeeded()
        if self.reading.works and self.writing.works and not self.statistics.reachable:
            # In this order: whoever sees the one finds the other in the log.
            LOG.info("%s: works again", self._backend.url)
            self.statistics.reachable = True

    def _source_changed(self, key: Key | None) -> None:
        """The source says that something is new.  Called by its thread, or by any that writes."""
        with self.lock:
            if key is None:
                self._routes.distrust()
                self._registrations.doubt(self._clock())
                keys = self._routes.in_use()
            else:
                known = self.requests.is_asked(key) or self._routes.get(key) is not None
                keys = [key] if known else []
            if keys:
                self.statistics.changes += 1
                self._changes.add(keys, self._clock())
            self.changed.notify_all()
