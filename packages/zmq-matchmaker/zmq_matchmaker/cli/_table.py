# SPDX-License-Identifier: Apache-2.0
"""Tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prettytable import PrettyTable, TableStyle

__all__ = ["table"]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their columns, of which those are left out that are empty in all rows."""
    rows = list(rows)
    kept = [number for number, _ in enumerate(columns) if any(row[number] for row in rows)]
    made = PrettyTable([columns[number] for number in kept])
    made.set_style(TableStyle.PLAIN_COLUMNS)
    made.align = "l"
    made.left_padding_width, made.right_padding_width = 0, 2
    made.add_rows([[row[number] for number in kept] for row in rows])
    return "\n".join(line.rstrip() for line in str(made.get_string()).splitlines())
