# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: messages for any of several processes, spread over them.  No I/O."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from zmq_matchmaker import Key, Record

__all__ = ["Turns"]

_LIMIT: Final = 4096
_DIGEST: Final = 8


class _Ranked(NamedTuple):
    """Records by rank; messages go to the first `preferred` of them in turn."""

    source: Sequence[Record]
    records: Sequence[Record]
    preferred: int


class Turns:
    """Round robin: each key's messages go to its records in turn.  Thread-safe.

    With `servers`, only to those of so many processes, which depend on `name`, the sender's
    own: every sender ranks all by a hash of both names (rendezvous hashing).  So the senders
    together use all of them alike, and one that leaves or returns changes no other choice.
    """

    def __init__(self, name: str = "", servers: int = 0) -> None:
        self._name = name.encode()
        self._servers = servers
        self._counters: dict[tuple[Key, str], Iterator[int]] = {}
        self._ranked: dict[tuple[Key, str], _Ranked] = {}

    def order(self, key: Key, records: Sequence[Record], pool: str = "") -> Sequence[Record]:
        """All records in the order in which to try them, the one whose turn it is first."""
        if len(records) < 2:
            return records
        preferred = len(records)
        if self._servers:
            _, records, preferred = self._rank(key, records, pool)
        counter = self._counters.get((key, pool))
        if counter is None:
            if len(self._counters) >= _LIMIT:
                self._counters.clear()
            # Clients that start together must not all begin with the same server.
            start = random.randrange(len(records))
            counter = self._counters.setdefault((key, pool), itertools.count(start))
        turn = next(counter) % preferred
        return [*records[turn:preferred], *records[:turn], *records[preferred:]]

    def _rank(self, key: Key, records: Sequence[Record], pool: str) -> _Ranked:
        """As worked out before, if they are the same records."""
        ranked = self._ranked.get((key, pool))
        if ranked is None or ranked.source != records:
            if len(self._ranked) >= _LIMIT:
                self._ranked.clear()
            by_rank = sorted(records, key=lambda record: self._weight(record.endpoint))
            ranked = _Ranked(records, by_rank, _count(by_rank, self._servers))
            self._ranked[key, pool] = ranked
        return ranked

    def _weight(self, endpoint: str) -> bytes:
        names = self._name + b"\0" + endpoint.encode(errors="surrogatepass")
        return hashlib.blake2b(names, digest_size=_DIGEST).digest()


def _count(records: Sequence[Record], processes: int) -> int:
    """How many of the first `records` belong to that many processes."""
    seen: set[str] = set()
    for number, record in enumerate(records):
        seen.add(record.endpoint)
        if len(seen) > processes:
            return number
    return len(records)
