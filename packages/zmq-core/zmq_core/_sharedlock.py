# SPDX-License-Identifier: Apache-2.0
"""A lock that nobody needs to wait for just to leave some work with whoever holds it.

pyzmq lets go of the GIL for every frame, with the socket's lock held.  Threads
that have a message to send would all wake, run, and stop at that lock: with 16
of them that cost more than the messages.  So they leave the message in a queue,
and whoever holds the lock sends it before letting go.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["SharedLock"]

T = TypeVar("T")


class SharedLock(Generic[T]):
    """A lock with a queue of work, which `work` does, item by item, under the lock.

    Every release looks at the queue afterwards, so that nothing stays in it: an
    item that comes while the lock is held is seen by its holder, and one that
    comes later finds the lock free.
    """

    __slots__ = ("_lock", "_queue", "_work")

    def __init__(self, work: Callable[[T], None]) -> None:
        self._lock = threading.Lock()
        self._queue: deque[T] = deque()
        self._work = work

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self._queue:
            self._do_what_is_left()

    def leave(self, item: T) -> None:
        """Have `item` worked on: by this thread, or by the one that holds the lock now."""
        self._queue.append(item)
        self._do_what_is_left()

    def _do_what_is_left(self) -> None:
        while self._queue and self._lock.acquire(blocking=False):
            try:
                while self._queue:
                    self._work(self._queue.popleft())
            finally:
                self._lock.release()
