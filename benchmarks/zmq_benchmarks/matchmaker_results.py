# SPDX-License-Identifier: Apache-2.0
"""What was measured of the matchmaker, and what Redis says it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import redis
from rich.console import Console

from zmq_benchmarks.load import percentile
from zmq_benchmarks.numbers import Number, print_numbers

__all__ = ["WINDOW", "Results", "counters", "latencies", "peak", "print_report", "rates"]

WINDOW: Final = 1.0
"""Seconds in which commands are counted for `peak`."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    format: int = 1
    date: str
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    settings: dict[str, int | float]
    numbers: list[Number]


def print_report(results: Results, console: Console) -> None:
    """Print all numbers."""
    processes, listeners = results.settings["processes"], results.settings["listeners"]
    title = f"the matchmaker on Redis: {processes} processes with {listeners} listeners each"
    print_numbers(title, results.numbers, console)


def counters(admin: redis.Redis) -> dict[str, int]:
    """What Redis has done since it started."""
    told: Any = admin.info("stats", "commandstats")

    def calls(command: str, field: str = "calls") -> int:
        return int(told.get(f"cmdstat_{command}", {}).get(field, 0))

    return {
        "scripts": calls("evalsha") + calls("eval"),
        # Commands by which one script is told from another.
        "refreshes": calls("zrangebyscore"),
        "lookups": calls("get"),
        "commands": told["total_commands_processed"],
        "in": told["total_net_input_bytes"],
        "out": told["total_net_output_bytes"],
        "busy": calls("evalsha", "usec") + calls("eval", "usec"),
    }


def rates(name: str, title: str, used: Mapping[str, int], seconds: float) -> Iterator[Number]:
    """What Redis did in so many seconds, per second."""
    for key, text, unit in (
        ("scripts", "requests (EVALSHA)", "/s"),
        ("refreshes", "… that refresh", "/s"),
        ("lookups", "… that look whether all is there", "/s"),
        ("commands", "commands, with those within scripts", "/s"),
        ("in", "network in", "B/s"),
        ("out", "network out", "B/s"),
        ("busy", "time within scripts", "µs/s"),
    ):
        yield Number(f"{name}_{key}", f"{title}: {text}", used[key] / seconds, unit)


def latencies(name: str, title: str, taken: list[float], unit: str = "µs") -> Iterator[Number]:
    """The middle, almost the worst, and the worst of what was `taken`."""
    for part, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        yield Number(f"{name}_{part}", f"{title}: {part}", percentile(taken, share), unit)


def peak(samples: Sequence[tuple[float, int]]) -> int:
    """The most by which a counter grew within a second."""
    highest = start = 0
    for when, count in samples:
        while samples[start][0] < when - WINDOW:
            start += 1
        highest = max(highest, count - samples[start][1])
    return highest
