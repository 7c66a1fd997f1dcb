# SPDX-License-Identifier: Apache-2.0
"""What must not happen beside what an input is meant to do: errors in the log, leaks."""

from __future__ import annotations

import logging
import os
import threading
from types import TracebackType
from typing import Final, Self

from harness.leaks import wait_until
from zmq_core import Statistics

__all__ = ["Watch", "compare", "counted"]

_EACH: Final = 200
"""Inputs between two looks at what the process holds."""


class Watch:
    """While the block lasts, notes errors of `loggers` and of threads.

    `spare` is how many threads and descriptors may come and go.
    """

    def __init__(self, *loggers: str, spare: int = 0) -> None:
        self._loggers = [logging.getLogger(name) for name in loggers]
        self._spare = spare
        self._handler = _Errors(self)
        self._held: tuple[int, int] = (0, 0)
        self._hook = threading.excepthook
        self.errors: list[str] = []
        self.inputs = 0

    def begin(self) -> None:
        """From now on nothing more may be held than is now."""
        self._held = _held()

    def check(self) -> None:
        """To be called after each input.

        :raises AssertionError: an error was logged, a thread ended with one, or more is held.
        """
        self.inputs += 1
        errors, self.errors = self.errors, []
        assert not errors, "\n".join(errors)
        if self.inputs % _EACH == 0:
            self.check_holdings()

    def check_holdings(self) -> None:
        """Fail if threads or descriptors are left."""
        most = [count + self._spare for count in self._held]
        wait_until(
            lambda: all(now <= then for now, then in zip(_held(), most, strict=True)),
            f"no more than {most} threads and descriptors; there are {_held()}",
        )

    def note(self, what: str) -> None:
        """An error that nobody else sees."""
        self.errors.append(what)

    def __enter__(self) -> Self:
        for logger in self._loggers:
            logger.addHandler(self._handler)
            logger.propagate = False
        threading.excepthook = self._thread_failed
        return self

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        name = failure.thread.name if failure.thread else "a thread"
        self.note(f"{name} ended with {failure.exc_type.__name__}: {failure.exc_value}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        threading.excepthook = self._hook
        for logger in self._loggers:
            logger.removeHandler(self._handler)
            logger.propagate = True


class _Errors(logging.Handler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self._watch.note(self.format(record))


def counted(statistics: Statistics) -> dict[str, int]:
    """All counters of a node, by name."""
    return {name: getattr(statistics, name) for name in Statistics.__slots__}


def compare(what: str, found: object, rightly: object) -> None:
    """Fail, and show both, unless they are equal."""
    assert found == rightly, f"{what} {found}\nrightly {rightly}"


def _held() -> tuple[int, int]:
    """Threads and descriptors of this process."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))
