# SPDX-License-Identifier: Apache-2.0
"""How the demo looks; coloured where a terminal is and NO_COLOR is not set."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from demo_support.load import BODY, Result

WIDEST = 110


class Screen:
    """Standard output, or what stands in for it."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            # A terminal that cannot show a check mark shows a question mark.
            sys.stdout.reconfigure(errors="replace")
        self._console = _console()

    def title(self) -> None:
        """What this is about."""
        self._console.print("[bold]oslo.messaging over ZeroMQ[/], process to process, no broker\n")

    def facts(self, facts: dict[str, str]) -> None:
        """What there is: names and values."""
        width = max(map(len, facts))
        for name, value in facts.items():
            line = Text.assemble("  ", (f"{name:{width}}", "bold"), "  ", value)
            # Not broken into lines, so that a URL can be copied.
            self._console.print(line, soft_wrap=True)
        self._console.print()

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Within the block a terminal shows that something goes on."""
        if not self._console.is_terminal:
            return contextlib.nullcontext()
        return self._console.status(Text(what))

    def step(self, name: str, code: str, said: str, seconds: float) -> None:
        """One that went right: what was done, what came of it, and how long it took."""
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(width=18)
        table.add_column(ratio=1)
        table.add_column(width=7, justify="right")
        table.add_row(
            Text("✓", "green"),
            Text(name, "bold"),
            Group(Text(code, "cyan"), _indented("→ ", said)),
            Text(f"{seconds * 1000:.0f} ms", "dim"),
        )
        self._console.print(table)

    @contextlib.contextmanager
    def progress(self, what: str, seconds: float) -> Iterator[Callable[[float], None]]:
        """A bar on a terminal; to be told how many of the seconds are over."""
        columns = (TextColumn("  {task.description}"), BarColumn())
        with Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as progress:
            task = progress.add_task(what, total=seconds)
            yield lambda done: progress.update(task, completed=done)

    def load(self, results: Sequence[Result]) -> None:
        """A table of what was measured."""
        table = Table()
        for column in ("threads", "calls", "calls/s", "p50 (ms)", "p99 (ms)"):
            table.add_column(column, justify="right")
        for result in results:
            table.add_row(
                str(result.threads),
                f"{result.calls:,}",
                f"{result.rate:,.0f}",
                f"{result.p50 * 1000:.2f}",
                f"{result.p99 * 1000:.2f}",
            )
        self._console.print(
            f"\n[bold]Load[/]: calls with {len(BODY)} bytes; client and servers share "
            f"{os.cpu_count()} CPUs"
        )
        self._console.print(table)

    def succeeded(self) -> None:
        """The last words of a demo that did what it claims."""
        self._console.print(
            "\n[bold green]All went right.[/] The processes and files of the demo are gone. "
            "README.md and docs/ tell more."
        )

    def interrupted(self) -> None:
        """The last words after Ctrl-C."""
        # A console whose `print` was cut short may keep for itself whatever it is given afterwards.
        self._console = _console()
        self._console.print("\n[yellow]Interrupted.[/] All that was started has been ended.")

    def failed(self, reason: str) -> None:
        """The last words of any other."""
        self._console.print(Text.assemble("\n", ("Failed: ", "bold red"), reason))


def _console() -> Console:
    """Standard output as it is now, no wider than is good to read."""
    console = Console(highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        console.width = min(console.width, WIDEST)
    else:
        console.width = WIDEST
    return console


def _indented(mark: str, text: str) -> Table:
    """`text` behind `mark`, also where it is longer than a line."""
    table = Table.grid()
    table.add_row(mark, Text(text))
    return table
