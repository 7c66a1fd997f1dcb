# SPDX-License-Identifier: Apache-2.0
"""A few seconds of load: calls per second and how long they take."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from demo_support.stage import DemoError

BODY: Final = "x" * 200


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement; times in seconds."""

    threads: int
    calls: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds


def measure(client: Any, threads: int, seconds: float, progress: Callable[[float], None]) -> Result:
    """Call `echo` from `threads` threads for `seconds`; `progress` is told the time gone by.

    :raises DemoError: a call failed, or so few were made that nothing can be said.
    """
    latencies: list[float] = []
    errors: list[Exception] = []
    started = time.perf_counter()
    enough = threading.Event()

    def work() -> None:
        try:
            while not enough.is_set():
                before = time.perf_counter()
                if client.call({}, "echo", value=BODY) != BODY:
                    raise DemoError("an echo came back changed")
                latencies.append(time.perf_counter() - before)
        except Exception as error:  # noqa: BLE001 - raised in the main thread, below
            errors.append(error)
            enough.set()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        while (elapsed := time.perf_counter() - started) < seconds:
            progress(elapsed)
            if enough.wait(min(0.05, seconds - elapsed)):
                break
        progress(seconds)
    finally:
        # Also when interrupted: whoever is called gets rid of the reply before it is ended.
        enough.set()
        for worker in workers:
            if worker.ident is not None:
                worker.join()
    elapsed = time.perf_counter() - started
    if errors:
        raise DemoError(f"a call failed under load: {errors[0]}") from errors[0]
    if len(latencies) < 2:
        raise DemoError(f"only {len(latencies)} calls in {elapsed:.1f} s")
    cuts = statistics.quantiles(latencies, n=100)
    return Result(threads, len(latencies), elapsed, cuts[49], cuts[98])
