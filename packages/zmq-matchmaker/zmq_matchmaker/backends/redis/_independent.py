# SPDX-License-Identifier: Apache-2.0
"""Several Redis servers that know nothing of each other: written to all, read from one.

Which one: the one that was told everything for the longest time.  A server that
comes back, empty or with what it had when it went, is told everything by each
process within seconds, and its age begins anew with that; until it is settled,
another one is read.

One that does not answer costs the others nothing: each has a thread of its own
that asks it, and nobody waits for the slowest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

from zmq_matchmaker._errors import Unavailable
from zmq_matchmaker._model import Entry, Key, Listing
from zmq_matchmaker.backends.redis._store import Answer, Store
from zmq_matchmaker.backends.redis._worker import Worker

__all__ = ["Independent"]

T = TypeVar("T")

_PATIENCE: Final = 0.3
"""Seconds for which those that have answered wait for those that have not."""
_AVOID: Final = 5.0
"""Seconds for which one that failed is read only if no other can be; doubled while it fails."""
_AVOID_LONGEST: Final = 60.0
_ALIKE: Final = 1.0
"""Seconds by which ages differ that are as good as equal."""
_NEVER: Final = float("inf")


class _Member:
    """One of the servers, and what this process has seen of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.worker = Worker("zmq-redis")
        self.told_since = -_NEVER
        """By our clock; -inf if we do not know, inf if it was told nothing."""
        self._avoid_until = 0.0
        self._pause = _AVOID

    def begin(self, work: Callable[[Store], T]) -> Future[T] | None:
        """Have its thread do `work`; None if that hangs with something else."""
        if self.worker.hangs(_PATIENCE):
            self.avoid()
            return None
        return self.worker.submit(lambda: work(self.store))

    def result(self, future: Future[T] | None) -> T:
        """What came out.

        :raises Unavailable: it failed, or there is nothing yet.
        """
        if future is None or not future.done():
            self.avoid()
            raise Unavailable(f"{self.store.server} does not answer")
        try:
            result = future.result()
        except Unavailable:
            self.avoid()
            raise
        self._avoid_until, self._pause = 0.0, _AVOID
        return result

    def avoid(self) -> None:
        if not self.avoided:
            self._avoid_until = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _AVOID_LONGEST)

    @property
    def avoided(self) -> bool:
        return self._avoid_until > time.monotonic()

    def take_age(self, answer: Answer) -> None:
        self.told_since = time.monotonic() - answer.age if answer.age >= 0 else _NEVER

    def may_know_more(self, best: Answer) -> bool:
        if best.age < self.store.settled:
            return True
        return time.monotonic() - self.told_since > best.age + _ALIKE and not self.avoided


class Independent:
    """What one process has in all of them: a `Store` to its users.  Thread-safe.

    Every method raises Unavailable if it failed for all; those that write also if
    it failed for one, or is not done there yet: the others have it then.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self._members = tuple(map(_Member, stores))
        self._lock = threading.Lock()
        self._longest = max(store.server.timeout for store in stores) * 3

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

    def find(self, keys: Sequence[Key]) -> Answer:
        """What the server knows that was told everything for the longest time."""
        futures: dict[_Member, Future[Answer] | None] = {}
        problems: dict[_Member, Unavailable] = {}
        best: Answer | None = None
        for member in self._order():
            if best is not None and not member.may_know_more(best):
                break
            futures[member] = future = member.begin(lambda store: store.find(keys))
            _wait([future], _PATIENCE)
            best = _better(best, member, future, problems)
        deadline = time.monotonic() + self._longest
        while best is None:  # nobody was quick
            late = {member: future for member, future in futures.items() if _is_late(future)}
            if not late or not _wait(late.values(), deadline - time.monotonic()):
                raise _all_failed(problems.values())
            for member, future in late.items():
                if not _is_late(future):
                    best = _better(best, member, future, problems)
        return best

    def survey(self) -> list[Listing]:
        """Everything, as the first server has it that answers."""
        problems: list[Unavailable] = []
        for member in self._order():
            future = member.begin(Store.survey)
            _wait([future], self._longest)
            try:
                return member.result(future)
            except Unavailable as error:
                problems.append(error)
        raise _all_failed(problems)

    def _order(self) -> list[_Member]:
        """First those of which we know nothing yet, then the oldest; last those that failed."""
        return sorted(self._members, key=lambda member: (member.avoided, member.told_since))

    def _write(self, work: Callable[[Store], T]) -> list[T]:
        """What `work` returns for each."""
        with self._lock:  # so that all are told the same in the same order
            futures = {member: member.begin(work) for member in self._members}
        _wait(futures.values(), self._longest)
        _wait(futures.values(), _PATIENCE, all_of_them=True)
        results, problems = [], []
        for member, future in futures.items():
            try:
                results.append(member.result(future))
            except Unavailable as error:
                problems.append(error)
        if problems:
            raise Unavailable(
                f"{len(results)} of {len(futures)} Redis servers took it: "
                f"{'; '.join(map(str, problems))}"
            )
        return results

    def close(self) -> None:
        """End the threads; takes as long as a server's time limit if one hangs."""
        for member in self._members:
            member.worker.close()


def _better(
    best: Answer | None,
    member: _Member,
    future: Future[Answer] | None,
    problems: dict[_Member, Unavailable],
) -> Answer | None:
    """The one of `best` and what `member` answered that was told everything for longer."""
    try:
        answer = member.result(future)
    except Unavailable as error:
        problems[member] = error
        return best
    member.take_age(answer)
    return answer if best is None or answer.age > best.age else best


def _is_late(future: Future[Any] | None) -> bool:
    return future is not None and not future.done()


def _wait(
    futures: Iterable[Future[Any] | None], seconds: float, *, all_of_them: bool = False
) -> bool:
    """Wait until one is done; whether one is."""
    begun = [future for future in futures if future is not None]
    when = "ALL_COMPLETED" if all_of_them else "FIRST_COMPLETED"
    return bool(begun) and bool(wait(begun, max(0.0, seconds), when).done)


def _all_failed(problems: Iterable[Unavailable]) -> Unavailable:
    return Unavailable("no Redis server answers: " + "; ".join(map(str, problems)))
