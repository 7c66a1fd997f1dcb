# SPDX-License-Identifier: Apache-2.0
"""Load from threads, and its latencies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from zmq_benchmarks.protocol import CastReport, LoadReport

__all__ = ["CastCounter", "percentile", "run_load"]

_MICRO: Final = 1e-3  # from nanoseconds to microseconds

Operation = Callable[[], object]


def run_load(
    make_operation: Callable[[], Operation], threads: int, seconds: float, limit: int = 0
) -> LoadReport:
    """Repeat an operation from so many threads for so many seconds.

    Each thread has an operation of its own, made beforehand, and performs it
    once before the clock starts.  With `limit`, none performs more than that.

    :raises Exception: whatever an operation raised first.
    """
    latencies: list[list[float]] = [[] for _ in range(threads)]
    failures: list[BaseException] = []
    barrier = threading.Barrier(threads + 1)

    def work(mine: list[float]) -> None:
        try:
            operation = make_operation()
            operation()
            barrier.wait()
            _repeat(operation, mine, seconds, limit)
        except threading.BrokenBarrierError:
            return
        except BaseException as error:
            failures.append(error)
            barrier.abort()
            raise

    workers = [threading.Thread(target=work, args=(mine,)) for mine in latencies]
    for worker in workers:
        worker.start()
    try:
        barrier.wait()
    except threading.BrokenBarrierError:
        started = time.perf_counter()  # the failure is raised below
    else:
        started = time.perf_counter()
    for worker in workers:
        worker.join()
    elapsed = time.perf_counter() - started
    if failures:
        raise failures[0]
    every = [latency for mine in latencies for latency in mine]
    return LoadReport(count=len(every), seconds=elapsed, latencies=every)


def _repeat(operation: Operation, latencies: list[float], seconds: float, limit: int) -> None:
    clock = time.perf_counter_ns
    begin = clock()
    end = begin + int(seconds * 1e9)
    while begin < end and not 0 < limit <= len(latencies):
        operation()
        now = clock()
        latencies.append((now - begin) * _MICRO)
        begin = now


def percentile(values: list[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class CastCounter:
    """Counts casts as they are processed.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._count = 0
            self._first = self._last = 0.0

    def note(self) -> None:
        """One more was processed, now."""
        now = time.perf_counter()
        with self._lock:
            if not self._count:
                self._first = now
            self._count += 1
            self._last = now

    def report(self) -> CastReport:
        """What was counted so far."""
        with self._lock:
            return CastReport(count=self._count, seconds=self._last - self._first)
