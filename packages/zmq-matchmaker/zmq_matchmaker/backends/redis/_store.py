# SPDX-License-Identifier: Apache-2.0
"""The records of a deployment in one logical server: entries to keys and arguments, and back."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from zmq_matchmaker._encoding import decode_record, encode_key, encode_record
from zmq_matchmaker._errors import Unavailable
from zmq_matchmaker._health import SETTLED, RateLimitedLog
from zmq_matchmaker._model import Entry, Found, Key, Listing, Record, Role, Standing
from zmq_matchmaker.backends.redis import _scripts as scripts
from zmq_matchmaker.backends.redis._server import Server

__all__ = ["SETTLED_AMONG_OTHERS", "Answer", "Store"]

LOG = logging.getLogger(__name__)

SETTLED_AMONG_OTHERS: Final = 60.0
"""`SETTLED` of a server that is not the only one: others are read, and few notice that it was
emptied before they refresh."""
_BATCH: Final = 500
"""Entries, or keys, per script: Redis does nothing else meanwhile."""


class Answer(NamedTuple):
    """What a server found, and for how many seconds it has been told everything; -1: never was."""

    found: list[Found]
    age: float


class Store:
    """What one process has in one server.  Thread-safe."""

    def __init__(self, server: Server, prefix: str, settled: float = SETTLED) -> None:
        self.server = server
        self.prefix = prefix
        self.settled = settled
        self._log = RateLimitedLog(LOG, time.monotonic)
        self._lock = threading.Lock()
        self._owner = uuid.uuid4().hex[:16]
        self._mine: set[Entry] = set()
        self._leases: set[str] = set()
        self._returns = False
        """Whether the server could not be told everything, so that others may miss it there too."""

    def name(self, key: Key) -> str:
        """The name of `key` in Redis, which is that of its channel as well."""
        return self.prefix + encode_key(key)

    # -- writing ---------------------------------------------------------------------------

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Add the records to the process's lease."""
        lease = self._lease(ttl)
        owned = f"{self.prefix}lease:{lease}"
        with self._lock:
            self._mine.update(entries)
            self._leases.add(lease)
        for batch in _batches(entries):
            returns = "1" if self._returns else ""
            head = ["leases", "since"]
            keys, places = self._places(head, batch, own=(owned,))
            arguments: list[Any] = [lease, _seconds(ttl), returns]
            for key, record in batch:
                arguments += [places[key], encode_record(record)]
            broken = self._write(scripts.REGISTER, keys, arguments)
            for name in broken:
                self._warn_of_type(name)

    def refresh(self, ttl: float | None) -> bool:
        """Prolong the lease; false if there is none."""
        lease = self._lease(ttl)
        keys = [f"{self.prefix}{name}" for name in ("leases", "since", f"lease:{lease}")]
        kept = bool(self._write(scripts.REFRESH, keys, [lease, _seconds(ttl)]))
        self._returns = self._returns or not kept
        return kept

    def unregister(self, entries: Sequence[Entry], *, anybody: bool = False) -> None:
        """Remove the records of this process, or of `anybody`; with the last one its leases."""
        with self._lock:
            left = self._mine.difference(entries)
            leases = [] if left or anybody else sorted(self._leases)
            owner = "" if anybody else self._owner
        for batch in _batches(entries):
            keys, places = self._places(["leases"], batch)
            last = batch[-1] is entries[-1]
            arguments: list[Any] = [owner, len(leases) if last else 0, *(leases if last else ())]
            for key, record in batch:
                arguments += [places[key], encode_record(record)]
            self._write(scripts.UNREGISTER, keys, arguments)
        with self._lock:
            self._mine.difference_update(entries)

    def set_aside(self, pauses: Mapping[Entry, float]) -> None:
        """Note for how long others are to be preferred."""
        keys, places = self._places(["leases"], pauses)
        arguments: list[Any] = []
        for (key, record), pause in pauses.items():
            arguments += [places[key], encode_record(record), _seconds(pause)]
        self.server.run(scripts.SET_ASIDE, keys, arguments)

    def _write(self, script: scripts.Script, keys: list[str], arguments: list[Any]) -> Any:
        try:
            answer = self.server.run(script, keys, arguments)
        except Unavailable:
            self._returns = True
            raise
        if script is scripts.REGISTER:
            self._returns = False
        return answer

    def _lease(self, ttl: float | None) -> str:
        """All records of a process that live for the same time share one."""
        return f"{self._owner}/{_seconds(ttl)}"

    def _places(
        self, head: Iterable[str], entries: Iterable[Entry], own: Iterable[str] = ()
    ) -> tuple[list[str], dict[Key, int]]:
        """The keys of a script, and where in them, counted from 1, each key of ours is."""
        names = [*(self.prefix + name for name in head), *own]
        places: dict[Key, int] = {}
        for key, _ in entries:
            if key not in places:
                names += self._names(key)
                places[key] = len(names) - 1
        return names, places

    def _names(self, key: Key) -> tuple[str, str]:
        name = encode_key(key)
        return self.prefix + name, f"{self.prefix}aside:{name}"

    # -- reading ---------------------------------------------------------------------------

    def find(self, keys: Sequence[Key]) -> Answer:
        """What is known of each key."""
        found: list[Found] = []
        age = -1.0
        for start in range(0, max(1, len(keys)), _BATCH):
            batch = keys[start : start + _BATCH]
            names = [f"{self.prefix}leases", f"{self.prefix}since"]
            for key in batch:
                names += self._names(key)
            since, *answers = self.server.run(scripts.LOOKUP, names, [])
            age = float(since) if since else -1.0
            for key, answer in zip(batch, answers, strict=True):
                standings, gone = self._parsed(self.name(key), answer)
                found.append(Found(standings, gone, age >= self.settled))
        return Answer(found, age)

    def survey(self) -> list[Listing]:
        """Everything, sorted."""
        names = [f"{self.prefix}leases", f"{self.prefix}since"]
        listings = []
        for name, answer in self.server.run(scripts.SURVEY, names, []):
            key = self._key(name.decode())
            if key is not None:
                standings, _ = self._parsed(name.decode(), answer)
                listings += [Listing(key, standing) for standing in standings]
        return sorted(listings)

    def _parsed(
        self, name: str, answer: list[Any]
    ) -> tuple[tuple[Standing, ...], frozenset[Record]]:
        if len(answer) == 1:
            self._warn_of_type(name)
            return (), frozenset()
        live, gone, garbage = answer
        standings = []
        for data, registered, ttl, aside in live:
            record = decode_record(data)
            if record is None:
                garbage.append(data)
                continue
            standings.append(
                Standing(
                    record=record,
                    registered=float(registered),
                    ttl=float(ttl) if ttl else None,
                    aside=float(aside),
                )
            )
        for data in garbage:
            self._log.warning(
                name,
                "%s: a field of %s is not a record and is ignored; remove it with HDEL: %.80r",
                self.server,
                name,
                data,
            )
        standings.sort(key=lambda standing: standing.record)
        return tuple(standings), frozenset(filter(None, map(decode_record, gone)))

    def _key(self, name: str) -> Key | None:
        parts = name.removeprefix(self.prefix).split(":")
        role, *rest = ("" if part == "%" else unquote(part) for part in parts)
        if len(rest) != 3 or role not in set(Role):
            return None
        return Key(Role(role), *rest)

    def _warn_of_type(self, name: str | bytes) -> None:
        self._log.warning(
            "WRONGTYPE",
            "%s: the key %s is not of ours, so that nobody is found there; remove it with DEL",
            self.server,
            name.decode() if isinstance(name, bytes) else name,
        )


def _batches(entries: Sequence[Entry]) -> Iterable[Sequence[Entry]]:
    return (entries[start : start + _BATCH] for start in range(0, len(entries), _BATCH))


def _seconds(ttl: float | None) -> str:
    return "" if ttl is None else repr(float(ttl))
