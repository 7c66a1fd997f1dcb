# SPDX-License-Identifier: Apache-2.0
"""Callers, and what they and others are connected to."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import oslo_messaging
import psutil
from oslo_messaging import Target

from harness.leaks import wait_until

T = TypeVar("T")


def at_once(makers: Iterable[Callable[[], T]]) -> list[T]:
    """What all of them return, called at the same time: processes take their time to start."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(lambda make: make(), makers))


def client(transport: Any, timeout: float | None = 10, **target: Any) -> Any:
    return oslo_messaging.get_rpc_client(transport, Target(topic="work", **target), timeout=timeout)


def established(pid: int) -> list[Any]:
    """The TCP connections of a process, to others and not to itself."""
    return [
        connection
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    ]


class Callers:
    """Threads that call without pause, and what they met."""

    def __init__(self, call: Callable[[], object], number: int = 8) -> None:
        self.failures: list[tuple[float, Exception]] = []
        self.answers: list[float] = []
        self.longest = 0.0
        """Seconds that a call took, at the most, whatever came of it."""
        self._call = call
        self._stopping = False
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]

    def _run(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            try:
                self._call()
            except Exception as error:  # noqa: BLE001 - what is under test
                self.failures.append((time.monotonic(), error))
            else:
                self.answers.append(time.monotonic())
            self.longest = max(self.longest, time.monotonic() - began)

    def more(self, number: int) -> None:
        """Wait until so many more calls have been answered."""
        wanted = len(self.answers) + number
        wait_until(lambda: len(self.answers) >= wanted, f"{number} more answers", timeout=20)

    @property
    def longest_gap(self) -> float:
        """Seconds, at the most, between two answers."""
        answers = sorted(self.answers)
        return max(b - a for a, b in itertools.pairwise(answers))

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()
