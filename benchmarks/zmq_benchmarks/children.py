# SPDX-License-Identifier: Apache-2.0
"""Processes of the benchmark: started, asked, and gone at the end whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from zmq_benchmarks import worker
from zmq_benchmarks.errors import BenchmarkError
from zmq_benchmarks.protocol import Ready

__all__ = ["Worker", "run_process", "stop_process", "tail"]

_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 30.0
_CHUNK: Final = 2**20
_TAIL_LINES: Final = 20

T = TypeVar("T")


def tail(log: Path) -> str:
    """The last lines of `log`, for an error message."""
    if not log.exists():
        return "(nothing was logged)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


def stop_process(process: subprocess.Popen[bytes], timeout: float = _STOP_TIMEOUT) -> bool:
    """Wait for the end of `process` and all of its group; by force after `timeout` seconds.

    Returns whether it ended by itself.
    """
    ended = True
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        ended = False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return ended


@contextlib.contextmanager
def run_process(
    arguments: list[str], log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, of a group of its own, that gets SIGTERM at the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        stop_process(process)


class Worker:
    """A process, running `module`, that is told what to do; ended with the block.

    :raises BenchmarkError: it ended, kept silent, or failed at what it was told;
        the message has the last lines of its log.
    """

    def __init__(
        self, name: str, config: msgspec.Struct, folder: Path, module: str = worker.__name__
    ) -> None:
        self._name = name
        self._log = folder / f"{name}.log"
        self._buffer = b""
        paths = [path for path in sys.path if path]
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    module,
                    msgspec.json.encode(config).decode(),
                ],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()  # it may be in the midst of a long measurement
        self._stdin.close()
        ended = stop_process(self._process)
        self._stdout.close()
        if kind is None and (not ended or self._process.returncode):
            raise self._failure(
                f"ended with {self._process.returncode}"
                if ended
                else f"did not end within {_STOP_TIMEOUT:.0f} s of being told to"
            )

    def ready(self) -> Ready:
        """Wait until it can be used."""
        return self._answer(Ready, _START_TIMEOUT)

    def ask(self, command: msgspec.Struct, expected: type[T], timeout: float) -> T:
        """Tell it to do something and return what it answers within `timeout` seconds."""
        try:
            self._stdin.write(msgspec.json.encode(command) + b"\n")
        except BrokenPipeError:
            raise self._failure("has ended") from None
        return self._answer(expected, timeout)

    def _answer(self, expected: type[T], timeout: float) -> T:
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._stdout], [], [], left)[0]:
                raise self._failure(f"gave no answer within {timeout:.0f} s")
            chunk = os.read(self._stdout.fileno(), _CHUNK)
            if not chunk:
                raise self._failure("has ended")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return msgspec.json.decode(line, type=expected)

    def _failure(self, what: str) -> BenchmarkError:
        return BenchmarkError(
            f"the worker {self._name} {what}; the end of its log:\n{tail(self._log)}"
        )
