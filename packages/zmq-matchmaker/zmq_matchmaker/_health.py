# SPDX-License-Identifier: Apache-2.0
"""Whether the source answers, when to try it again, and how often to speak of it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Hashable
from typing import Final

__all__ = ["SETTLED", "BackOff", "Health", "RateLimitedLog"]

SETTLED: Final = 15.0
"""Seconds after which all processes that live have registered again in a source that is back."""

_KEYS_LIMIT: Final = 1000


class BackOff:
    """Growing pauses with jitter, so that many clients do not come back at one moment."""

    FIRST: Final = 0.2
    LONGEST: Final = 5.0

    def __init__(
        self,
        longest: float = LONGEST,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._longest = longest
        self._jitter = jitter
        self._pause = min(self.FIRST, longest)

    def next(self) -> float:
        """Seconds to wait before the next try."""
        pause = self._pause
        self._pause = min(pause * 2, self._longest)
        return self._jitter(pause / 2, pause)

    def reset(self) -> None:
        """It worked."""
        self._pause = min(self.FIRST, self._longest)


class Health:
    """How one kind of work with the source goes: reading, or writing.

    No clock: it is told the time.
    """

    IMPATIENT: Final = 0.1
    """Seconds after a failure in which not even a waiting caller has the source tried again."""

    def __init__(
        self,
        longest: float = BackOff.LONGEST,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._back_off = BackOff(longest, jitter)
        self.works = True
        self.retry_at = 0.0
        """When to try again of one's own accord."""
        self.impatient_at = 0.0
        """When to try again because a caller waits."""

    def failed(self, now: float) -> float:
        """It failed; the seconds to wait before the next try."""
        pause = self._back_off.next()
        self.works = False
        self.retry_at = now + pause
        self.impatient_at = now + min(pause, self.IMPATIENT)
        return pause

    def succeeded(self) -> None:
        """It worked."""
        self._back_off.reset()
        self.works = True
        self.retry_at = self.impatient_at = 0.0


class RateLimitedLog:
    """Writes one warning of a kind per `interval` seconds, for what others can cause at will.

    Thread-safe, but that two threads may both be let pass at one moment: without a
    lock, which a thread could hold while the process forks.
    """

    def __init__(
        self, logger: logging.Logger, clock: Callable[[], float], interval: float = 30.0
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._interval = interval
        self._last: dict[Hashable, float] = {}

    def passes(self, kind: Hashable) -> bool:
        """Whether something of this kind may be logged now."""
        now = self._clock()
        if now - self._last.get(kind, -self._interval) < self._interval:
            return False
        if len(self._last) >= _KEYS_LIMIT:
            self._last.clear()
        self._last[kind] = now
        return True

    def warning(self, kind: Hashable, message: str, *args: object) -> None:
        """Log `message % args`, unless one of the kind was logged a moment ago."""
        if self.passes(kind):
            self._logger.warning(message, *args)
