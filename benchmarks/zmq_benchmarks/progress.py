# SPDX-License-Identifier: Apache-2.0
"""Progress on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Reporter", "progress"]


class Reporter(Protocol):
    """Is told what is being done."""

    def say(self, text: str) -> None:
        """Something that stays to be read."""

    def step(self, text: str) -> None:
        """The next of the steps begins."""


class _Lines:
    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        self._done += 1
        elapsed = time.monotonic() - self._started
        self.say(f"[{self._done}/{self._total}, {elapsed:.0f} s] {text}")


class _Bar:
    def __init__(self, bar: Progress, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=total)
        self._begun = False

    def say(self, text: str) -> None:
        self._bar.console.print(text, markup=False)

    def step(self, text: str) -> None:
        self._bar.update(self._task, description=text, advance=int(self._begun))
        self._begun = True


@contextlib.contextmanager
def progress(total: int) -> Iterator[Reporter]:
    """Shows how far a run of `total` steps is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(total)
        return
    columns = (
        TextColumn("{task.description:<36}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, total)
