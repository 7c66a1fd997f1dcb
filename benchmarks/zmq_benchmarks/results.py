# SPDX-License-Identifier: Apache-2.0
"""What was measured, and what follows from it.  No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from zmq_benchmarks.plan import Goal, Measurement

__all__ = ["Results", "Row", "Sample", "Verdict", "summarise", "verdicts"]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one subject in one round, or the median of several.

    Latencies and processor times are in microseconds, the latter per operation
    (all is the client's where both ends are one process).  For casts, `rate` is
    what the server processed, and latencies are the sender's.
    """

    rate: float
    count: int
    seconds: float
    p50_us: float
    p95_us: float
    p99_us: float
    client_cpu_us: float
    server_cpu_us: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement of all subjects, side by side."""

    measurement: Measurement
    samples: dict[str, list[Sample]]
    """By subject; one for each round, taken in turns."""
    medians: dict[str, Sample]
    ratios: dict[str, float]
    """Such as `zmq/rabbit`: the median of the rounds' quotients of their rates."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    format: int
    date: str
    """Of the start, in UTC."""
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    settings: dict[str, str | int | float]
    skipped: dict[str, str]
    """Subjects that were asked for and could not be measured, and why."""
    rows: list[Row]


class Verdict(msgspec.Struct, frozen=True):
    """Whether a goal was reached."""

    goal: Goal
    ratio: float

    @property
    def reached(self) -> bool:
        """Whether the ratio is as high as wanted."""
        return self.ratio >= self.goal.factor


def summarise(measurement: Measurement, samples: Mapping[str, Sequence[Sample]]) -> Row:
    """Medians and ratios of one measurement."""
    return Row(
        measurement=measurement,
        samples={name: list(taken) for name, taken in samples.items()},
        medians={name: _median(taken) for name, taken in samples.items()},
        ratios={
            f"zmq/{name}": _ratio(samples["zmq"], taken)
            for name, taken in samples.items()
            if name != "zmq" and "zmq" in samples
        },
    )


def _ratio(mine: Sequence[Sample], others: Sequence[Sample]) -> float:
    return statistics.median(one.rate / other.rate for one, other in zip(mine, others, strict=True))


def _median(samples: Sequence[Sample]) -> Sample:
    fields = Sample.__struct_fields__
    middle = {
        field: statistics.median(getattr(sample, field) for sample in samples) for field in fields
    }
    return Sample(**{**middle, "count": int(middle["count"])})


def verdicts(rows: Iterable[Row], goals: Iterable[Goal]) -> list[Verdict]:
    """Which of `goals` were reached, as far as they were measured."""
    taken = {row.measurement.name: row.samples for row in rows}
    found = []
    for goal in goals:
        samples = taken.get(goal.measurement, {})
        if goal.subject in samples and goal.other in samples:
            ratio = _ratio(samples[goal.subject], samples[goal.other])
            found.append(Verdict(goal, ratio))
    return found
