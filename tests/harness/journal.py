# SPDX-License-Identifier: Apache-2.0
"""What processes of a test write down of each message, so that it survives their death.

One line for each event, in one `write` to a file that is only appended to: a
process that is killed leaves whole lines, and all that it had written.  Times are of
the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

__all__ = ["BEGUN", "FAILED", "RUN", "SUCCEEDED", "Event", "Journal", "read"]

BEGUN: Final = "begun"
"""Somebody begins to send the message."""
SUCCEEDED: Final = "succeeded"
"""The sender was told that it went well; of a call, `by` is who answered."""
FAILED: Final = "failed"
"""The sender was told that it failed; `by` is the name of the exception."""
RUN: Final = "run"
"""`by` has it and works on it."""


class Event(NamedTuple):
    """One line."""

    time: float
    what: str
    pattern: str
    message: str
    by: str


class Journal:
    """Thread-safe."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def note(self, what: str, pattern: str, message: str, by: str = "") -> None:
        """Write one line."""
        line = "\t".join((f"{time.monotonic():.6f}", what, pattern, message, by))
        os.write(self._fd, line.encode() + b"\n")

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(files: Iterable[Path]) -> Iterator[Event]:
    """All events of these files, file by file.

    Without a line of which only the first part is there yet: it crosses the end of a page.
    """
    for file in files:
        lines, _, _ = file.read_text().rpartition("\n")
        for line in lines.splitlines():
            moment, what, pattern, message, by = line.split("\t")
            yield Event(float(moment), what, pattern, message, by)
