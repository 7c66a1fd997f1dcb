# SPDX-License-Identifier: Apache-2.0
"""What others are to be told of records that do not answer, and when.  No clock and no I/O."""

from __future__ import annotations

from typing import Final

from zmq_matchmaker._health import Health
from zmq_matchmaker._model import Entry

__all__ = ["Sharing"]

_NEVER: Final = float("inf")


class Sharing:
    """Pauses that this process has found to be right, and the source does not know yet.

    Not thread-safe: its user has a lock.
    """

    def __init__(self, longest_wait: float) -> None:
        self._health = Health(longest_wait)
        self._pauses: dict[Entry, float] = {}

    @property
    def due(self) -> float:
        """When the source is to be told."""
        return self._health.retry_at if self._pauses else _NEVER

    def add(self, entry: Entry, pause: float) -> None:
        """`entry` is to be set aside for `pause` seconds; 0: no longer."""
        self._pauses[entry] = pause

    def take(self, now: float) -> dict[Entry, float]:
        """What to tell now.  It is of the moment only, and not told again if that fails."""
        if now < self.due:
            return {}
        pauses, self._pauses = self._pauses, {}
        return pauses

    def failed(self, now: float) -> None:
        """The source could not be told."""
        self._health.failed(now)

    def succeeded(self) -> None:
        """It was told."""
        self._health.succeeded()
