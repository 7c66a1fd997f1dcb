# SPDX-License-Identifier: Apache-2.0
"""Several Redis servers that know nothing of each other: written to all, read from one.

Which one: the one that was told everything for the longest time.  A server that
comes back, empty or with what it had when it went, is told everything by each
process within seconds, and its age begins anew with that; until it is settled,
another one is read.

One that does not answer costs the others nothing: each is written to by a thread
of its own, and nobody waits for the slowest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

from zmq_matchmaker._errors import Unavailable
from zmq_matchmaker._model import Entry, Key, Listing
from zmq_matchmaker.backends.redis._store import SETTLED, Answer, Store

__all__ = ["Independent"]

T = TypeVar("T")

_PATIENCE: Final = 0.3
"""Seconds for which those that have answered wait for those that have not."""
_AVOID: Final = 5.0
"""Seconds for which one that failed is read only if no other can be."""
_ALIKE: Final = 1.0
"""Seconds by which ages differ that are as good as equal."""
_NEVER: Final = float("inf")


class Independent:
    """What one process has in all of them: a `Store` to its users.  Thread-safe.

    Every method raises Unavailable if it failed for all; those that write also if
    it failed for one, or is not done there yet: the others have it then.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(len(stores), thread_name_prefix="zmq-redis")
        self._busy: dict[Store, Future[Any]] = {}
        self._avoid_until: dict[Store, float] = {}
        self._told_since: dict[Store, float] = {}
        """By our clock, as far as it was asked; `_NEVER` if it was told nothing."""

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Add the records to the process's lease with each."""
        self._write(lambda store: store.register(entries, ttl))

    def refresh(self, ttl: float | None) -> bool:
        """Prolong the lease; false if one of them has none."""
        return all(self._write(lambda store: store.refresh(ttl)))

    def unregister(self, entries: Sequence[Entry], *, anybody: bool = False) -> None:
        """Remove the records of this process, or of `anybody`."""
        self._write(lambda store: store.unregister(entries, anybody=anybody))

    def set_aside(self, pauses: Mapping[Entry, float]) -> None:
        """Note for how long others are to be preferred."""
        self._write(lambda store: store.set_aside(pauses))

    def _write(self, work: Callable[[Store], T]) -> list[T]:
        """What `work` returns for each."""
        with self._lock:
            started: dict[Store, Future[T]] = {}
            for store in self.stores:
                busy = self._busy.get(store)
                if busy is None or busy.done():
                    self._busy[store] = started[store] = self._pool.submit(work, store)
        pending = set(started.values())
        done, pending = wait(pending, _longest(self.stores), return_when="FIRST_COMPLETED")
        if pending:
            late, pending = wait(pending, _PATIENCE)
            done |= late
        problems = []
        for store in self.stores:
            future = started.get(store)
            if future is None or future in pending:
                problems.append(f"{store.server} does not answer")
            elif (error := future.exception()) is not None:
                if not isinstance(error, Unavailable):
                    raise error
                self._avoid(store)
                problems.append(str(error))
        if problems:
            taken = len(self.stores) - len(problems)
            raise Unavailable(
                f"{taken} of {len(self.stores)} Redis servers took it: {'; '.join(problems)}"
            )
        return [future.result() for future in started.values()]

    def find(self, keys: Sequence[Key]) -> Answer:
        """What the server knows that was told everything for the longest time."""
        best: Answer | None = None
        problems: list[Unavailable] = []
        for store in self._order():
            if best is not None and not self._may_know_more(store, best):
                break
            try:
                answer = store.find(keys)
            except Unavailable as error:
                self._avoid(store)
                problems.append(error)
                continue
            known = answer.age >= 0
            self._told_since[store] = time.monotonic() - answer.age if known else _NEVER
            if best is None or answer.age > best.age:
                best = answer
        if best is None:
            raise _all_failed(problems)
        return best

    def survey(self) -> list[Listing]:
        """Everything, as the first server has it that answers."""
        problems: list[Unavailable] = []
        for store in self._order():
            try:
                return store.survey()
            except Unavailable as error:
                self._avoid(store)
                problems.append(error)
        raise _all_failed(problems)

    def _order(self) -> list[Store]:
        """First those of which we know nothing yet, then the oldest; last those that failed."""
        return sorted(
            self.stores, key=lambda store: (self._avoided(store), self._told_since.get(store, 0.0))
        )

    def _may_know_more(self, store: Store, best: Answer) -> bool:
        if best.age < SETTLED:
            return True
        age = time.monotonic() - self._told_since.get(store, -_NEVER)
        return age > best.age + _ALIKE and not self._avoided(store)

    def _avoided(self, store: Store) -> bool:
        return self._avoid_until.get(store, 0.0) > time.monotonic()

    def _avoid(self, store: Store) -> None:
        self._avoid_until[store] = time.monotonic() + _AVOID

    def close(self) -> None:
        """End the threads; takes as long as a server's time limit if one hangs."""
        self._pool.shutdown(cancel_futures=True)
        for store in self.stores:
            store.server.close()


def _longest(stores: Sequence[Store]) -> float:
    return max(store.server.timeout for store in stores) * 3


def _all_failed(problems: Sequence[Unavailable]) -> Unavailable:
    return Unavailable("no Redis server answers: " + "; ".join(map(str, problems)))
