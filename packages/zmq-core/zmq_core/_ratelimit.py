# SPDX-License-Identifier: Apache-2.0
"""Logging that a peer cannot flood."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

__all__ = ["RateLimitedLog"]

_KEYS_LIMIT: Final = 100


class RateLimitedLog:
    """Writes at most one record per `interval` seconds and key, with a count of those left out.

    Keys may be what peers invent: no more than 100 of them are logged per interval.
    Thread-safe.
    """

    def __init__(
        self,
        logger: logging.Logger,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[Hashable, tuple[float, int]] = {}
        self._full_until = 0.0
        self._left_out = 0

    def log(
        self,
        level: int,
        key: Hashable,
        message: str,
        *args: object,
        error: BaseException | None = None,
    ) -> None:
        """Log `message % args`, unless something was logged under `key` a moment ago.

        With `error`, its traceback too.
        """
        now = self._clock()
        with self._lock:
            last, suppressed = self._seen.get(key, (None, 0))
            if last is not None and now - last < self._interval:
                self._seen[key] = (last, suppressed + 1)
                return
            if last is None and not self._has_room(now):
                self._left_out += 1
                return
            self._seen[key] = (now, 0)
            suppressed += self._left_out
            self._left_out = 0
        if suppressed:
            message = f"{message} (and %d more like it since the last report)"
            args = (*args, suppressed)
        self._logger.log(level, message, *args, exc_info=error)

    def _has_room(self, now: float) -> bool:
        """Whether another key may be logged; forgets those of past intervals if need be."""
        if len(self._seen) < _KEYS_LIMIT:
            return True
        if now < self._full_until:
            return False
        past = [key for key, (last, _) in self._seen.items() if now - last >= self._interval]
        for key in past:
            self._left_out += self._seen.pop(key)[1]
        if not past:
            self._full_until = self._interval + min(last for last, _ in self._seen.values())
        return bool(past)

    def warning(self, key: Hashable, message: str, *args: object) -> None:
        """`log` at level WARNING."""
        self.log(logging.WARNING, key, message, *args)
