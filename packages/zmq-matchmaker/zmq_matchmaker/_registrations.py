# SPDX-License-Identifier: Apache-2.0
"""What this process has to tell the matchmaker, and when.  No clock and no I/O.

An entry is *unwritten* from its announcement until the source has taken it, and
*leaving* from its withdrawal until the source has dropped it.  Between the two
all entries are written again together, before they would expire.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from zmq_matchmaker._model import Entry

__all__ = ["Batch", "Registrations"]

_NEVER: Final = float("inf")


class Batch(NamedTuple):
    """What is to be written now."""

    leaving: tuple[Entry, ...]
    entries: tuple[Entry, ...]
    everything: bool
    """Whether `entries` are all there are."""
    refresh: bool = False
    """Whether the source has taken all of them before, and none of them was lost since."""


class Registrations:
    """The entries that are announced, and those that are to be withdrawn.

    `update` is the seconds between two writes of everything.
    """

    def __init__(
        self, update: float, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._update = update
        self._jitter = jitter
        self._entries: dict[Entry, None] = {}
        self._unwritten: dict[Entry, None] = {}
        self._leaving: dict[Entry, None] = {}
        self._refresh_at = _NEVER
        self._retry_at = 0.0
        self._lost = False
        self._turn = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def due(self) -> float:
        """When something is to be written."""
        changes = self._retry_at if self._unwritten or self._leaving else _NEVER
        return min(self._refresh_at, changes)

    @property
    def unwritten(self) -> int:
        """How many entries the source has not taken yet."""
        return len(self._unwritten)

    @property
    def changes(self) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
        """What was announced, and what withdrawn, that the source does not know yet."""
        return tuple(self._unwritten), tuple(self._leaving)

    def announce(self, entries: Iterable[Entry], now: float) -> None:
        """Keep the entries known, from now on."""
        for entry in entries:
            self._entries[entry] = None
            self._unwritten[entry] = None
            self._leaving.pop(entry, None)
        self._retry_at = now

    def withdraw(self, entries: Iterable[Entry], now: float) -> None:
        """Let the entries be forgotten."""
        for entry in entries:
            if entry in self._entries:
                del self._entries[entry]
                self._unwritten.pop(entry, None)
                self._leaving[entry] = None
        self._retry_at = now
        if not self._entries:
            self._refresh_at = _NEVER

    def batch(self, now: float) -> Batch | None:
        """What is to be written, if it is time."""
        if self.due > now:
            return None
        everything = self._refresh_at <= now
        entries = self._entries if everything else self._unwritten
        refresh = everything and not self._lost and not self._unwritten
        return Batch(tuple(self._leaving), tuple(entries), everything, refresh)

    def written(self, batch: Batch, now: float) -> None:
        """The source took it."""
        for entry in batch.leaving:
            self._leaving.pop(entry, None)
        for entry in batch.entries:
            self._unwritten.pop(entry, None)
        if batch.everything:
            self._lost = False
        if not self._entries:
            self._refresh_at = _NEVER
        elif batch.everything or self._refresh_at == _NEVER:
            self._refresh_at = now + self._update * self._jitter(0.9, 1.0)

    def failed(self, now: float, pause: float) -> None:
        """Writing failed; try again after `pause` seconds."""
        self._retry_at = now + pause
        if self._entries:
            # Everything, since by then what had been written may have expired.
            self._lost = True
            self._refresh_at = now + pause

    def lost(self, now: float) -> None:
        """The source has forgotten us: tell it again, but not all processes at once."""
        if self._entries and not self._lost:
            self._lost = True
            self._refresh_at = min(self._refresh_at, now + self._jitter(0.0, 1.0))

    def doubt(self, now: float) -> None:
        """The source may have forgotten us: see soon, but not all processes at once."""
        if self._entries:
            self._refresh_at = min(self._refresh_at, now + self._jitter(0.0, 3.0))

    def farewell(self) -> tuple[Entry, ...]:
        """All that the source may know of us, now that we leave; nothing is announced any more."""
        known = (*self._leaving, *self._entries)
        self._entries.clear()
        self._unwritten.clear()
        self._leaving.clear()
        self._refresh_at = _NEVER
        return known

    def sample(self) -> Entry | None:
        """An entry by which to see whether the source still knows us; another each time."""
        written = [entry for entry in self._entries if entry not in self._unwritten]
        if not written:
            return None
        self._turn = (self._turn + 1) % len(written)
        return written[self._turn]
