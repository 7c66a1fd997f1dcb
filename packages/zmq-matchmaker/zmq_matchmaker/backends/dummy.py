# SPDX-License-Identifier: Apache-2.0
"""`dummy`: for clients and servers of one process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import ClassVar, Final

from zmq_matchmaker._backend import Changed, Characteristics, Matchmaker, Watch
from zmq_matchmaker._model import Entry, Key, Record
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["DummyMatchmaker"]

_NEVER: Final = float("inf")


class _Registry:
    """The records of all `dummy` matchmakers of a process that have the same path."""

    def __init__(self) -> None:
        self.users = 0
        self.begin()

    def begin(self) -> None:
        """Be empty, with a lock that nobody holds."""
        self.lock = threading.Lock()
        self.deadlines: dict[Key, dict[Record, float]] = {}
        self.watches: list[_DummyWatch] = []

    def live(self, key: Key, now: float) -> tuple[Record, ...]:
        """The records of `key` that have not expired.  Under the lock."""
        records = self.deadlines.get(key)
        if records is None:
            return ()
        for record in [record for record, deadline in records.items() if deadline <= now]:
            del records[record]
        if not records:
            del self.deadlines[key]
        return tuple(sorted(records))


class _DummyWatch(Watch):
    def __init__(self, registry: _Registry, changed: Changed) -> None:
        self._registry = registry
        self.changed = changed

    def close(self) -> None:
        with self._registry.lock:
            if self in self._registry.watches:
                self._registry.watches.remove(self)


_registries: dict[str, _Registry] = {}
_lock = threading.Lock()


def _begin_in_child() -> None:
    """A forked child shares nothing with its parent."""
    global _lock
    _lock = threading.Lock()
    for registry in _registries.values():
        registry.begin()


os.register_at_fork(after_in_child=_begin_in_child)


class DummyMatchmaker(Matchmaker):
    """Keeps records in this process's memory; the URL's path separates deployments.

    They are gone when the last matchmaker of the path is closed.
    """

    characteristics: ClassVar = Characteristics(expiry=True, push=True)

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
                if record not in self._registry.live(key, now):
                    new[key] = None
                self._registry.deadlines.setdefault(key, {})[record] = deadline
        self._tell(new)

    def unregister(self, entries: Sequence[Entry]) -> None:
        """Forget the entries."""
        gone: dict[Key, None] = {}
        with self._registry.lock:
            for key, record in entries:
                records = self._registry.deadlines.get(key, {})
                if records.pop(record, None) is not None:
                    gone[key] = None
                if not records:
                    self._registry.deadlines.pop(key, None)
        self._tell(gone)

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """The records that have not expired."""
        now = time.monotonic()
        with self._registry.lock:
            return [self._registry.live(key, now) for key in keys]

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
