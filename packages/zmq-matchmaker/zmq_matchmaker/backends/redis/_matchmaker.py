# SPDX-License-Identifier: Apache-2.0
"""The backend: finds out what its hosts are, then keeps the records there."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from zmq_matchmaker._backend import Changed, Characteristics, Matchmaker, Watch
from zmq_matchmaker._errors import MatchmakerError
from zmq_matchmaker._forking import tell_of_forks
from zmq_matchmaker._health import SETTLED
from zmq_matchmaker._model import Entry, Finding, Found, Key, Listing, Record
from zmq_matchmaker._url import MatchmakerURL
from zmq_matchmaker.backends.redis._independent import Independent
from zmq_matchmaker.backends.redis._inspection import inspect_all, unreachable
from zmq_matchmaker.backends.redis._server import Server, discover
from zmq_matchmaker.backends.redis._settings import RedisSettings
from zmq_matchmaker.backends.redis._store import SETTLED_AMONG_OTHERS, Store
from zmq_matchmaker.backends.redis._watch import RedisWatch

__all__ = ["RedisMatchmaker"]


class RedisMatchmaker(Matchmaker):
    """`redis://[user[:password]@]host[:port][,host…]/deployment?db=0&ssl=true…`.

    The hosts are one Redis, nodes of a cluster, Sentinels, or several Redis that
    know nothing of each other: they are asked at the first use.  With the scheme
    `sentinel` they have to be Sentinels, and the path is `/group/deployment`.
    """

    characteristics: ClassVar = Characteristics(
        shared_across_processes=True,
        shared_across_hosts=True,
        persistent=True,
        expiry=True,
        push=True,
        availability=True,
        survey=True,
    )

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        self._settings = RedisSettings.of(url)
        self.begin_in_child()
        tell_of_forks(self)

    def begin_in_child(self) -> None:
        """Know no server yet: connections, threads, and what was registered, are the parent's."""
        self._lock = threading.Lock()
        self._stores: tuple[Store, ...] = ()
        self._independent: Independent | None = None

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Add the records to this process's lease, and collect what has expired."""
        self._records().register(entries, ttl)

    def refresh(self, entries: Sequence[Entry], ttl: float | None) -> bool:
        """Prolong the lease: one command, whatever the number of records."""
        return self._records().refresh(ttl)

    def unregister(self, entries: Sequence[Entry]) -> None:
        """Remove those of the records that are this process's."""
        self._records().unregister(entries)

    def remove(self, entries: Sequence[Entry]) -> None:
        """Remove the records."""
        self._records().unregister(entries, anybody=True)

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """The records that have not expired."""
        return [found.records for found in self.find(keys)]

    def find(self, keys: Sequence[Key]) -> list[Found]:
        """The same, with all that is known of them."""
        return self._records().find(keys).found

    def set_aside(self, pauses: Mapping[Entry, float]) -> None:
        """Note for how long others are to be preferred."""
        self._records().set_aside(pauses)

    def survey(self) -> list[Listing]:
        """Everything in this deployment."""
        return self._records().survey()

    def inspect(self) -> list[Finding]:
        """What is wrong with each server, and what to do about it."""
        try:
            self._records()
        except MatchmakerError as error:
            return [unreachable(error)]
        return inspect_all(self._stores)

    def watch(self, changed: Changed) -> Watch:
        """Subscribes on a connection of its own, with each server."""
        self._records()
        watches = [RedisWatch(store.server, store.name, changed) for store in self._stores]
        return watches[0] if len(watches) == 1 else _Watches(watches)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            stores, self._stores = self._stores, ()
            independent, self._independent = self._independent, None
        if independent is not None:
            independent.close()
        for store in stores:
            store.server.close()

    def _records(self) -> Store | Independent:
        """Where to write and read; asks the hosts what they are, if that is not known yet."""
        with self._lock:
            if not self._stores:
                servers: list[Server] = discover(self._settings)
                settled = SETTLED if len(servers) == 1 else SETTLED_AMONG_OTHERS
                prefix = self._settings.prefix
                self._stores = tuple(Store(server, prefix, settled) for server in servers)
            if len(self._stores) == 1:
                return self._stores[0]
            if self._independent is None:
                self._independent = Independent(self._stores)
            return self._independent


class _Watches(Watch):
    """One for each server: what several report is looked at once."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = watches

    def follow(self, keys: Collection[Key]) -> None:
        for watch in self._watches:
            watch.follow(keys)

    def close(self) -> None:
        for watch in self._watches:
            watch.close()
