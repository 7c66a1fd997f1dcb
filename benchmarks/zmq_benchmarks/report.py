# SPDX-License-Identifier: Apache-2.0
"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.table import Table

from zmq_benchmarks.plan import GOALS
from zmq_benchmarks.results import Results, Row, Sample, verdicts

__all__ = ["print_report"]

_MILLI: Final = 1000.0

_COLUMNS: Final[tuple[tuple[str, Callable[[Sample], str]], ...]] = (
    ("per second", lambda sample: _number(sample.rate)),
    ("p50 ms", lambda sample: _milliseconds(sample.p50_us)),
    ("p95 ms", lambda sample: _milliseconds(sample.p95_us)),
    ("p99 ms", lambda sample: _milliseconds(sample.p99_us)),
    ("CPU µs client", lambda sample: _number(sample.client_cpu_us)),
    ("CPU µs server", lambda sample: _number(sample.server_cpu_us)),
)


def print_report(results: Results, console: Console) -> None:
    """Print the medians, the ratios and whether the goals were reached."""
    names = list(dict.fromkeys(name for row in results.rows for name in row.medians))
    pairs = list(dict.fromkeys(pair for row in results.rows for pair in row.ratios))
    console.print(_details(results.rows))
    if len(names) > 1:
        console.print(_comparison(results.rows, names, pairs))
    for name, reason in results.skipped.items():
        console.print(f"{name} was skipped: {reason}", markup=False)
    for verdict in verdicts(results.rows, GOALS):
        goal = verdict.goal
        word = "reached" if verdict.reached else "MISSED"
        console.print(
            f"goal {goal.measurement}: {goal.subject} is {verdict.ratio:.2g} times {goal.other}, "
            f"{goal.factor:g} wanted: {word}",
            markup=False,
        )


def _details(rows: list[Row]) -> Table:
    table = Table(title="medians of the rounds", title_justify="left")
    table.add_column("measurement")
    table.add_column("transport")
    for title, _ in _COLUMNS:
        table.add_column(title, justify="right")
    for row in rows:
        title = row.measurement.title
        for name, sample in row.medians.items():
            table.add_row(title, name, *(show(sample) for _, show in _COLUMNS))
            title = ""
        table.add_section()
    return table


def _comparison(rows: list[Row], names: list[str], pairs: list[str]) -> Table:
    table = Table(title="per second, side by side", title_justify="left")
    table.add_column("measurement")
    for column in (*names, *pairs):
        table.add_column(column, justify="right")
    for row in rows:
        rates = [_number(row.medians[name].rate) if name in row.medians else "" for name in names]
        ratios = [f"{row.ratios[pair]:.2f}" if pair in row.ratios else "" for pair in pairs]
        table.add_row(row.measurement.title, *rates, *ratios)
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / _MILLI:.3g}"
