# SPDX-License-Identifier: Apache-2.0
"""The program: its commands, and what is said when it cannot run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

__all__ = ["main"]

DESCRIPTION = "Look at, check and mend who listens where in a brokerless deployment."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0: it went well.  1: the matchmaker cannot be used, or something is wrong with
    what was looked at.  2: the command line is.  3: nobody listens.
    """
    try:
        from zmq_matchmaker.cli.commands import run
    except ImportError as error:
        if error.name is None or error.name.startswith("zmq_matchmaker"):
            raise
        print(
            f"zmq-matchmaker: the Python package {error.name.partition('.')[0]!r} is missing; "
            "install zmq-matchmaker[cli]",
            file=sys.stderr,
        )
        return 2
    signal.signal(signal.SIGTERM, _end)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return run(words or ["--help"], DESCRIPTION)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        sys.stderr.close()  # or Python complains of standard output at its end
        return 0


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
