# SPDX-License-Identifier: Apache-2.0
"""A process of the benchmark: obeys commands from its standard input until that ends.

Started as `python -m zmq_benchmarks.worker CONFIG`, where CONFIG is a `WorkerConfig` in JSON.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any, Protocol

import msgspec

from zmq_benchmarks.load import CastCounter
from zmq_benchmarks.protocol import (
    Calls,
    CastReport,
    Casts,
    Command,
    Counted,
    Forget,
    LoadReport,
    Ready,
    UsageReport,
    WorkerConfig,
)

__all__ = ["main"]


class Worker(Protocol):
    """One end of what is measured."""

    casts: CastCounter

    def ready(self) -> Ready: ...
    def calls(self, command: Calls) -> LoadReport: ...
    def cast(self, command: Casts) -> LoadReport: ...
    def counted(self) -> CastReport: ...
    def close(self) -> None: ...


def _make(config: WorkerConfig) -> Worker:
    if config.kind == "raw":
        from zmq_benchmarks.raw import RawWorker

        return RawWorker(config)
    from zmq_benchmarks.oslo import OsloWorker

    return OsloWorker(config)


def _obey(worker: Worker, command: Command) -> msgspec.Struct:
    match command:
        case Calls():
            return worker.calls(command)
        case Casts():
            return worker.cast(command)
        case Forget():
            worker.casts.forget()
            return worker.counted()
        case Counted():
            return worker.counted()
    return UsageReport(time.process_time())


def main(arguments: list[str]) -> None:
    """Run a worker until its standard input ends."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def say(message: Any) -> None:
        answers.write(msgspec.json.encode(message) + b"\n")

    worker = _make(msgspec.json.decode(arguments[0], type=WorkerConfig))
    try:
        say(worker.ready())
        decoder = msgspec.json.Decoder(Command)
        for line in sys.stdin.buffer:
            say(_obey(worker, decoder.decode(line)))
    finally:
        worker.close()


if __name__ == "__main__":
    main(sys.argv[1:])
