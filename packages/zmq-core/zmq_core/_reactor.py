# SPDX-License-Identifier: Apache-2.0
"""One thread per node that waits for descriptors, runs timers and disposes of sockets."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from zmq_core._latch import Latch
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._waiting import Poller

__all__ = ["Reactor", "Timer"]

LOG = logging.getLogger(__name__)

_DRAIN_SLICE: Final = 1.0


class Timer:
    """A call that is due later; `cancel` makes it not happen."""

    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not run; harmless after it ran.  Any thread may call this."""
        self.cancelled = True


class Reactor:
    """Runs callbacks on a thread of its own.

    Callbacks must not block.  One that raises is logged and counted in
    `failures`, and never ends the loop.  All methods are thread-safe.
    """

    def __init__(self, name: str) -> None:
        self._poller = Poller()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._soon: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timers_lock = threading.Lock()
        self._order = itertools.count()
        self._stopping = False
        self.failures = 0
        self._log = RateLimitedLog(LOG)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, if that was not done."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Run what `call_soon` was given, end the thread and free the descriptors."""
        self._stopping = True
        self._poller.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._poller.close()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the reactor's thread."""
        return threading.current_thread() is self._thread

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever `fd` is readable, until `unwatch`."""
        self._handlers[fd] = on_readable
        self._poller.watch(fd)

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`; must come before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.unwatch(fd)

    def mute(self, fd: int) -> None:
        """Pause reports for `fd`, because another thread reads it for a while."""
        self._poller.mute(fd)

    def unmute(self, fd: int) -> None:
        """Resume reports for `fd`."""
        self._poller.unmute(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the reactor's thread; after `stop` it is forgotten."""
        self._soon.append(callback)
        self._poller.wake()

    def drain(self) -> None:
        """Wait until every callback that has begun by now is done."""
        if not self.is_current and self._thread.is_alive():
            done = Latch()
            self.call_soon(done.set)
            while not done.wait(_DRAIN_SLICE) and self._thread.is_alive():
                continue

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the reactor's thread after `seconds`."""
        timer = Timer(callback)
        with self._timers_lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        self._poller.wake()
        return timer

    def _run(self) -> None:
        while not self._stopping or self._soon:
            for fd in self._poller.wait(self._patience()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    self._guard(handler)
            for _ in range(len(self._soon)):
                self._guard(self._soon.popleft())
            for timer in self._due():
                self._guard(timer.callback)

    def _patience(self) -> float | None:
        """Seconds until there is something to do without any descriptor being ready."""
        if self._soon or self._stopping:
            return 0.0
        with self._timers_lock:
            if not self._timers:
                return None
            return max(0.0, self._timers[0][0] - time.monotonic())

    def _due(self) -> list[Timer]:
        if not self._timers:
            return []
        due = []
        now = time.monotonic()
        with self._timers_lock:
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
        return [timer for timer in due if not timer.cancelled]

    def _guard(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - logged and counted
            self.failures += 1
            self._log.log(
                logging.ERROR,
                type(error).__name__,
                "a callback of the I/O thread failed; the thread goes on",
                error=error,
            )
