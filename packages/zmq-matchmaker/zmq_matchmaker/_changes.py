# SPDX-License-Identifier: Apache-2.0
"""Which changes the source has reported, and when to look at them.  No clock and no I/O.

A thousand servers that start at once are a thousand reports to each of their
clients, and a server that starts is a report to a thousand clients.  So a look
waits a moment, another one for each client, and then serves all that came
meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Final

from zmq_matchmaker._model import Key

__all__ = ["Changes"]

_NEVER: Final = float("inf")


class Changes:
    """Keys to look up again, at `due`; at least `INTERVAL` seconds apart."""

    JITTER: Final = 0.1
    INTERVAL: Final = 0.4

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._jitter = jitter
        self._keys: dict[Key, None] = {}
        self._next = 0.0
        self.due = _NEVER

    def add(self, keys: Iterable[Key], now: float) -> None:
        """The records of `keys` may have changed."""
        self._keys.update(dict.fromkeys(keys))
        if self.due == _NEVER and self._keys:
            self.due = max(now, self._next) + self._jitter(0.0, self.JITTER)
            self._next = self.due + self.INTERVAL

    def take(self, now: float) -> Iterable[Key]:
        """What is to be looked up now; nothing before it is due."""
        if now < self.due:
            return ()
        keys, self._keys = self._keys, {}
        self.due = _NEVER
        return keys
