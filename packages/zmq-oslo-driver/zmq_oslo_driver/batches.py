# SPDX-License-Identifier: Apache-2.0
"""Batches: so many messages, or as many as come within so long after the first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batcher"]

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Batcher(Generic[T]):
    """Collects items and gives them to `deliver`, on a thread of its own.

    A batch is delivered when it has `size` items, or `timeout` seconds after its
    first (None: only when it is full).  Thread-safe.
    """

    def __init__(
        self, deliver: Callable[[Sequence[T]], object], size: int, timeout: float | None
    ) -> None:
        self._deliver = deliver
        self._size = size
        self._timeout = timeout
        self._items: list[T] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # entered by the lock: see `Courier`
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="zmq-batches", daemon=True)
        self._thread.start()

    def put(self, item: T) -> bool:
        """Add an item; false if this is closed.  Never blocks."""
        with self._lock:
            if self._closing:
                return False
            self._items.append(item)
            self._changed.notify()
            return True

    def close(self) -> None:
        """Deliver what there is, and end the thread."""
        with self._lock:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = self._collect()
            if not batch:
                return
            try:
                self._deliver(batch)
            except Exception:
                LOG.exception("a batch of %d messages could not be handed over", len(batch))

    def _collect(self) -> list[T]:
        """The next batch; empty at the end."""
        with self._lock:
            self._changed.wait_for(lambda: self._items or self._closing)
            deadline = None if self._timeout is None else time.monotonic() + self._timeout
            while len(self._items) < self._size and not self._closing:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            batch, self._items = self._items[: self._size], self._items[self._size :]
            return batch
