# SPDX-License-Identifier: Apache-2.0
"""A request that waits for its answer, and the rule of how long it waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from zmq_core._envelope import Envelope
from zmq_core._errors import CoreError, Refused, RequestTimeout
from zmq_core._waiting import Waker

__all__ = ["FOREVER", "Inquiry", "Patience", "PendingRequest"]

FOREVER: Final = float("inf")


class Patience:
    """How long to wait: to the deadline, and no longer than `monitor` s without a sign of life.

    Told the time, never asks for it.
    """

    __slots__ = ("_monitor", "_started", "deadline", "last_sign")

    def __init__(self, now: float, deadline: float, monitor: float | None) -> None:
        self._started = now
        self.deadline = deadline
        self._monitor = monitor
        self.last_sign = now

    def left(self, now: float) -> float:
        """Seconds left at `now`; 0 or less when the wait is over."""
        until = self.deadline
        if self._monitor is not None:
            until = min(until, self.last_sign + self._monitor)
        return until - now

    def error(self, now: float, endpoint: str) -> RequestTimeout:
        """The error that says which of the two limits was reached."""
        silent = now < self.deadline
        return RequestTimeout(
            endpoint, now - (self.last_sign if silent else self._started), silent=silent
        )


class PendingRequest:
    """One request between its sending and its answer.

    The connection completes it exactly once.  The thread that sent it waits:
    on a lock, or, if it reads the connection itself, on `waker`.
    """

    __slots__ = ("_lock", "outcome", "patience", "reader", "waker")

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.outcome: Envelope | CoreError | None = None
        self.waker: Waker | None = None
        self.reader = 0
        """The thread that reads the connection itself."""
        self._lock = threading.Lock()
        self._lock.acquire()

    def complete(self, outcome: Envelope | CoreError) -> None:
        """Set the outcome and wake the waiting thread, unless it is the one that does this."""
        waker, foreign = self.waker, self.reader != threading.get_ident()
        self.outcome = outcome  # from here on the waiting thread may go, and take its waker along
        if waker is None:
            self._lock.release()
        elif foreign:
            waker.wake()

    def sign_of_life(self) -> None:
        """The peer says that it still works on the request."""
        self.patience.last_sign = time.monotonic()

    def wait(self) -> None:
        """Wait until completed or out of patience."""
        while self.outcome is None:
            left = self.patience.left(time.monotonic())
            if left <= 0:
                return
            timeout = -1 if left == FOREVER else min(left, threading.TIMEOUT_MAX)
            if self._lock.acquire(timeout=timeout):
                return


class Inquiry(PendingRequest):
    """A request that nobody waits for: `answered` is called if any answer comes."""

    __slots__ = ("_answered",)

    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__(Patience(0.0, FOREVER, None))
        self._answered = answered

    def complete(self, outcome: Envelope | CoreError) -> None:
        """Set the outcome, and tell of it if the peer has sent it."""
        super().complete(outcome)
        if isinstance(outcome, Envelope | Refused):
            self._answered()
