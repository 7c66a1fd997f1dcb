# SPDX-License-Identifier: Apache-2.0
"""`dummy`: for clients and servers of one process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from zmq_matchmaker._backend import Changed, Characteristics, Matchmaker, Watch
from zmq_matchmaker._forking import tell_of_forks
from zmq_matchmaker._model import Entry, Found, Key, Listing, Record, Standing
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["DummyMatchmaker"]

_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Kept:
    """A record, in this process's monotonic time."""

    owner: object
    registered: float
    """Seconds since the epoch."""
    deadline: float
    aside_until: float = 0.0

    def standing(self, record: Record, now: float) -> Standing:
        ttl = None if self.deadline == _NEVER else self.deadline - now
        aside = max(0.0, self.aside_until - now)
        return Standing(record=record, ttl=ttl, registered=self.registered, aside=aside)


class _Registry:
    """The records of all `dummy` matchmakers of a process that have the same path."""

    def __init__(self) -> None:
        self.users = 0
        self.begin_in_child()
        tell_of_forks(self)

    def begin_in_child(self) -> None:
        """Be empty, with a lock that nobody holds: a child shares nothing with its parent."""
        self.lock = threading.Lock()
        self.kept: dict[Key, dict[Record, _Kept]] = {}
        self.watches: list[_DummyWatch] = []

    def live(self, key: Key, now: float) -> dict[Record, _Kept]:
        """The records of `key` that have not expired.  Under the lock."""
        records = self.kept.get(key, {})
        for record in [record for record, kept in records.items() if kept.deadline <= now]:
            del records[record]
        if not records:
            self.kept.pop(key, None)
        return records


class _DummyWatch(Watch):
    def __init__(self, registry: _Registry, changed: Changed) -> None:
        self._registry = registry
        self.changed = changed

    def follow(self, keys: Collection[Key]) -> None:
        """All changes are told: there is no message that could be spared."""

    def close(self) -> None:
        with self._registry.lock:
            if self in self._registry.watches:
                self._registry.watches.remove(self)


_registries: dict[str, _Registry] = {}
_lock = threading.Lock()


def _begin_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_begin_in_child)


class DummyMatchmaker(Matchmaker):
    """Keeps records in this process's memory; the URL's path separates deployments.

    They are gone when the last matchmaker of the path is closed.
    """

    characteristics: ClassVar = Characteristics(
        expiry=True, push=True, availability=True, survey=True
    )

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        url.settings(())
        self._closed = False
        with _lock:
            self._registry = _registries.setdefault(url.path, _Registry())
            self._registry.users += 1

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Keep the entries."""
        now = time.monotonic()
        deadline = _NEVER if ttl is None else now + ttl
        new: dict[Key, None] = {}
        with self._registry.lock:
            for key, record in entries:
                kept = self._registry.live(key, now).get(record)
                if kept is None or kept.owner is not self or kept.aside_until > now:
                    new[key] = None
                    kept = _Kept(self, time.time(), deadline)
                kept.deadline = deadline
                self._registry.kept.setdefault(key, {})[record] = kept
        self._tell(new)

    def unregister(self, entries: Sequence[Entry]) -> None:
        """Forget those of the entries that were registered here."""
        self._forget(entries, lambda kept: kept.owner is self)

    def remove(self, entries: Sequence[Entry]) -> None:
        """Forget the entries."""
        self._forget(entries, lambda kept: True)

    def _forget(self, entries: Iterable[Entry], which: Callable[[_Kept], bool]) -> None:
        gone: dict[Key, None] = {}
        with self._registry.lock:
            for key, record in entries:
                records = self._registry.kept.get(key, {})
                kept = records.get(record)
                if kept is not None and which(kept):
                    del records[record]
                    gone[key] = None
                if not records:
                    self._registry.kept.pop(key, None)
        self._tell(gone)

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """The records that have not expired."""
        return [found.records for found in self.find(keys)]

    def find(self, keys: Sequence[Key]) -> list[Found]:
        """The records that have not expired, and how they stand."""
        now = time.monotonic()
        with self._registry.lock:
            return [Found(self._standings(key, now)) for key in keys]

    def survey(self) -> list[Listing]:
        """All records of this process under the same path."""
        now = time.monotonic()
        with self._registry.lock:
            keys = sorted(self._registry.kept)
            return [Listing(key, item) for key in keys for item in self._standings(key, now)]

    def _standings(self, key: Key, now: float) -> tuple[Standing, ...]:
        live = self._registry.live(key, now)
        return tuple(live[record].standing(record, now) for record in sorted(live))

    def set_aside(self, pauses: Mapping[Entry, float]) -> None:
        """Note until when each record is to be left alone."""
        now = time.monotonic()
        changed: dict[Key, None] = {}
        with self._registry.lock:
            for (key, record), pause in pauses.items():
                kept = self._registry.live(key, now).get(record)
                if kept is not None and (kept.aside_until > now) != (pause > 0):
                    changed[key] = None
                if kept is not None:
                    kept.aside_until = max(kept.aside_until, now + pause) if pause else 0.0
        self._tell(changed)

    def watch(self, changed: Changed) -> Watch:
        """Changes are told by the thread that makes them."""
        watch = _DummyWatch(self._registry, changed)
        with self._registry.lock:
            self._registry.watches.append(watch)
        return watch

    def close(self) -> None:
        """Let the registry go, with the last of its users."""
        with _lock:
            if self._closed:
                return
            self._closed = True
            self._registry.users -= 1
            if self._registry.users == 0:
                _registries.pop(self.url.path, None)

    def _tell(self, keys: dict[Key, None]) -> None:
        with self._registry.lock:
            watches = list(self._registry.watches)
        for watch in watches:
            for key in keys:
                watch.changed(key)
