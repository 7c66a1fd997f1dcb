# SPDX-License-Identifier: Apache-2.0
"""The directory's thread: started with the first request, supervised, ended by `close`.

What it does with the backend, and when, is decided by `Rounds`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._errors import Closed, MatchmakerError
from zmq_matchmaker._forking import tell_of_forks
from zmq_matchmaker._health import Health, RateLimitedLog
from zmq_matchmaker._model import Entry, Key
from zmq_matchmaker._registrations import Registrations
from zmq_matchmaker._requests import Request
from zmq_matchmaker._rounds import Rounds
from zmq_matchmaker._routes import RouteTable
from zmq_matchmaker._statistics import DirectoryStatistics

__all__ = ["Upkeep"]

LOG = logging.getLogger(__name__)


class Upkeep:
    """Reads and writes for a `Directory`, on one thread that starts with the first request.

    `ttl`, `tick` and `longest_wait` (between two attempts to reach the source) are
    seconds.
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
        self._backend = backend
        self._routes = routes
        self._registrations = registrations
        self._rounds = Rounds(
            backend,
            routes,
            registrations,
            self._supervised,
            ttl=ttl,
            tick=tick,
            longest_wait=longest_wait,
            clock=clock,
        )
        self._clock = clock
        self._log = RateLimitedLog(LOG, clock)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closing = False
        tell_of_forks(self)

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Protects the routes, the registrations and the requests."""
        return self._rounds.lock

    @property
    def statistics(self) -> DirectoryStatistics:
        """The counters themselves."""
        return self._rounds.statistics

    @property
    def reading(self) -> Health:
        """How lookups go."""
        return self._rounds.reading

    @property
    def writing(self) -> Health:
        """How registering goes."""
        return self._rounds.writing

    # -- what callers ask for; under the lock ---------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether there is nobody to do the work: closed, or left in the parent by a fork."""
        return self._closing

    def want(self, key: Key, *, anew: bool = False) -> Request:
        """Have `key` looked up soon, together with others.

        An answer that is on its way already will do, unless `anew`.
        """
        request = self._rounds.requests.pending(key, anew=anew)
        if request is None:
            if not self._start():
                return self._refused()
            request = self._rounds.requests.want(key)
            self._rounds.changed.notify_all()
        return request

    def want_write(self) -> Request:
        """Have the registrations' changes written now."""
        if not self._start():
            return self._refused()
        self._rounds.changed.notify_all()
        return self._rounds.requests.want_write()

    def _refused(self) -> Request:
        request = Request()
        request.finish(self.closed_error())
        return request

    def share(self, entry: Entry, pause: float) -> None:
        """Tell others that `entry` is set aside for `pause` seconds; 0: no longer."""
        if self._backend.characteristics.availability and self._start():
            self._rounds.sharing.add(entry, pause)
            self._rounds.changed.notify_all()

    def _start(self) -> bool:
        """Whether there is a thread to do the work, from now on."""
        if self._closing:
            return False
        if self._thread is None:
            self._pid = os.getpid()
            self._rounds.begin()
            thread = threading.Thread(target=self._run, name="zmq-directory", daemon=True)
            thread.start()  # raises if the system has no more; then the next caller tries again
            self._thread = thread
        return True

    def closed_error(self) -> Closed:
        """Why nothing is done any more."""
        if self._pid != os.getpid():
            return Closed(
                f"{self._backend.url}: the directory belongs to process {self._pid}; "
                "make another one after a fork"
            )
        return Closed(f"{self._backend.url}: the directory is closed")

    def begin_in_child(self) -> None:
        """This process is a forked child: the thread, if there was one, is not here."""
        self._rounds.renew_lock()  # somebody may have held it
        if self._thread is not None:
            self._closing = True
            self._routes.clear()  # nobody keeps them up to date here

    # -- the end --------------------------------------------------------------------------

    def close(self) -> None:
        """Withdraw everything, end the thread, close the backend.  Without the lock; idempotent."""
        if self._pid != os.getpid():
            return  # inherited over a fork: thread, connections and records are the parent's
        with self.lock:
            already, self._closing = self._closing, True
            thread = self._thread
            self._rounds.changed.notify_all()
        if thread is None:
            if not already:
                self._backend.close()
        elif thread is not threading.current_thread():
            thread.join()

    # -- the thread -----------------------------------------------------------------------

    def _is_in_charge(self) -> bool:
        """Whether the work is this thread's.

        If the handler of a signal raised where it was started it is not known yet, and there
        may be another by now.
        """
        current = threading.current_thread()
        with self.lock:
            if self._thread is None and not self._closing:
                self._thread = current
            return self._thread is current

    def _run(self) -> None:
        if not self._is_in_charge():
            return
        rounds, problem = self._rounds, None
        while True:
            with self.lock:
                while not self._closing and (seconds := rounds.due() - self._clock()) > 0:
                    rounds.changed.wait(seconds)
                if self._closing:
                    break
            problem = (
                self._supervised("register", rounds.write)
                or self._supervised("look up", rounds.look_up)
                or self._supervised("tell who does not answer", rounds.share)
            )
        try:
            rounds.say_goodbye(self.closed_error(), problem)
        except Exception:
            LOG.exception("%s: ending the matchmaker's thread", self._backend.url)

    def _supervised(self, what: str, work: Callable[[], None]) -> Exception | None:
        """Do a round of `work`, and let nothing that goes wrong end the thread.

        What went wrong, if the directory is being closed: nothing else is to be begun then.
        """
        if self._closing:
            return None
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
            return error if self._closing else None
        except Exception as error:
            self._count_failure()
            if self._log.passes(type(error).__name__):
                LOG.exception("%s: cannot %s; trying on", self._backend.url, what)
            return error if self._closing else None
        return None

    def _count_failure(self) -> None:
        self.statistics.failures += 1
        self.statistics.reachable = False
