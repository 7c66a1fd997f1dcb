# SPDX-License-Identifier: Apache-2.0
"""Something that happens once, and threads that wait for it."""

from __future__ import annotations

import threading

__all__ = ["Latch"]


class Latch:
    """What `threading.Event` is for, where the handler of a signal may raise.

    An Event is entered by Python code.  A handler that raises there (as Ctrl-C does) leaves
    its lock locked, and whoever sets it waits for ever.  Here each waiting thread has a lock
    of its own, and is all that it can take with it.  Thread-safe.
    """

    __slots__ = ("_gates", "_is_set", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: list[threading.Lock] = []
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """Let go of all who wait, and of all who will.  Idempotent."""
        with self._lock:
            self._is_set = True
            while self._gates:
                self._gates.pop().release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has happened, for `timeout` seconds at most; whether it has."""
        with self._lock:
            if self._is_set:
                return True
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
        try:
            seconds = -1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)
            gate.acquire(timeout=seconds)
        finally:
            with self._lock:
                if gate in self._gates:
                    self._gates.remove(gate)
        return self._is_set
