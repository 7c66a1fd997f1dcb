# SPDX-License-Identifier: Apache-2.0
"""Logging that a peer cannot flood."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

__all__ = ["RateLimitedLog"]

_KEYS_LIMIT: Final = 1024


class RateLimitedLog:
    """Writes at most one record per `interval` seconds and key, with a count of those left out.

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
            last, suppressed = self._seen.get(key, (-self._interval, 0))
            if now - last < self._interval:
                self._seen[key] = (last, suppressed + 1)
                return
            if len(self._seen) >= _KEYS_LIMIT:
                self._seen.clear()
            self._seen[key] = (now, 0)
        if suppressed:
            message = f"{message} (and %d more like it since the last report)"
            args = (*args, suppressed)
        self._logger.log(level, message, *args, exc_info=error)

    def warning(self, key: Hashable, message: str, *args: object) -> None:
        """`log` at level WARNING."""
        self.log(logging.WARNING, key, message, *args)
