# SPDX-License-Identifier: Apache-2.0
"""Single numbers that were measured, what was wanted of them, and how both are printed."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table

__all__ = ["Number", "Report", "Wanted", "print_numbers", "print_report"]


class Number(msgspec.Struct, frozen=True):
    """One thing that was measured."""

    name: str
    title: str
    value: float
    unit: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A goal: a ratio that is to be no lower, or no higher, than `bound`."""

    name: str
    title: str
    ratio: float
    bound: float
    at_most: bool
    reached: bool

    @classmethod
    def of(
        cls, name: str, title: str, ratio: float, bound: float, *, at_most: bool = False
    ) -> Wanted:
        """See whether `ratio` reaches the goal."""
        reached = ratio <= bound if at_most else ratio >= bound
        return cls(
            name=name, title=title, ratio=ratio, bound=bound, at_most=at_most, reached=reached
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    format: int = 1
    title: str
    date: str
    """Of the start, in UTC."""
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    settings: dict[str, int | float]
    numbers: list[Number]
    samples: dict[str, list[float]]
    """What was taken once in each round, in the order of the rounds."""
    goals: list[Wanted]


def print_report(report: Report, console: Console) -> None:
    """Print all numbers, and whether the goals were reached."""
    print_numbers(report.title, report.numbers, console)
    for goal in report.goals:
        word = "reached" if goal.reached else "MISSED"
        limit = "at most" if goal.at_most else "at least"
        console.print(
            f"goal {goal.name}: {goal.title} is {goal.ratio:.2g}, {limit} {goal.bound:g} wanted: "
            f"{word}",
            markup=False,
        )


def print_numbers(title: str, numbers: list[Number], console: Console) -> None:
    """Print a table with a line for each."""
    table = Table("measured", title=title, title_justify="left")
    table.add_column("", justify="right")
    table.add_column("")
    for number in numbers:
        size = f"{number.value:,.0f}" if abs(number.value) >= 100 else f"{number.value:.3g}"
        table.add_row(number.title, size, number.unit)
    console.print(table)
