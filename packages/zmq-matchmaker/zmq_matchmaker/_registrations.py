# SPDX-License-Identifier: Apache-2.0
"""What this process has to tell the matchmaker, and when.  No clock and no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

from zmq_matchmaker._model import Entry, Key, Record

__all__ = ["BackOff", "Registrations"]


class BackOff:
    """Growing pauses with jitter, so that many clients do not come back at one moment."""

    FIRST: Final = 0.2
    LONGEST: Final = 5.0

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._jitter = jitter
        self._pause = self.FIRST

    def next(self) -> float:
        """Seconds to wait before the next try."""
        pause = self._pause
        self._pause = min(pause * 2, self.LONGEST)
        return self._jitter(pause / 2, pause)

    def reset(self) -> None:
        """It worked."""
        self._pause = self.FIRST


class Registrations:
    """The entries that are announced, and those that are to be withdrawn."""

    def __init__(
        self, update: float, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._update = update
        self._jitter = jitter
        self._entries: dict[Entry, None] = {}
        self._leaving: dict[Entry, None] = {}
        self._due = float("inf")

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def due(self) -> float:
        """When something is to be written."""
        return self._due

    def entries(self) -> list[Entry]:
        """All that is announced."""
        return list(self._entries)

    def leaving(self) -> list[Entry]:
        """All that is to be withdrawn."""
        return list(self._leaving)

    def announce(self, entries: Iterable[Entry], now: float) -> None:
        """Keep the entries known, from now on."""
        for entry in entries:
            self._entries[entry] = None
            self._leaving.pop(entry, None)
        self._due = now

    def withdraw(self, entries: Iterable[Entry], now: float) -> None:
        """Let the entries be forgotten."""
        for entry in entries:
            if self._entries.pop(entry, self) is not self:
                self._leaving[entry] = None
        self._due = now

    def lost(self, now: float) -> None:
        """The source has forgotten us: tell it again, but not all processes at once."""
        self._due = min(self._due, now + self._jitter(0.0, 1.0))

    def written(self, entries: Iterable[Entry], leaving: Iterable[Entry], now: float) -> None:
        """These were written."""
        for entry in leaving:
            self._leaving.pop(entry, None)
        if set(self._entries) <= set(entries) and not self._leaving:
            self._due = (
                now + self._update * self._jitter(0.9, 1.0) if self._entries else float("inf")
            )

    def failed(self, now: float, pause: float) -> None:
        """Writing failed; try again after `pause` seconds.

        What was to be withdrawn expires by itself meanwhile, and is not kept.
        """
        self._leaving.clear()
        self._due = now + pause if self._entries else float("inf")

    def own(self) -> tuple[Key, Record] | None:
        """One entry by which to see whether the source still knows us."""
        return next(iter(self._entries), None)
