# SPDX-License-Identifier: Apache-2.0
"""A zmq-proxy of the benchmark's own."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zmq_benchmarks.children import run_process, tail
from zmq_benchmarks.errors import BenchmarkError
from zmq_matchmaker import Key, MatchmakerURL, Role, load

__all__ = ["RunningProxy", "running_proxy"]

_START_TIMEOUT: Final = 30.0
_POLL: Final = 0.05


class RunningProxy(NamedTuple):
    """Its process's number, and where the part that was waited for listens."""

    pid: int
    frontend: str
    backend: str


@contextlib.contextmanager
def running_proxy(url: str, folder: Path, role: str = "both") -> Iterator[RunningProxy]:
    """Start a proxy for the services of `url`, and end it with the block.

    :raises BenchmarkError: it does not start; the message has the end of its log.
    """
    config, log = folder / "proxy.conf", folder / "proxy.log"
    config.write_text(f"[DEFAULT]\ntransport_url = {url}\n")
    matchmaker = load(MatchmakerURL.parse(url.partition("?")[0]))
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [sys.executable, "-m", "zmq_proxy", f"--config-file={config}", "--role", role]
    # A publisher tells senders of itself only when subscribers had the time to find it.
    key = Key(Role.PUBLISHER if role == "publisher" else Role.ROUTER)
    with contextlib.ExitStack() as stack:
        stack.callback(matchmaker.close)
        process = stack.enter_context(run_process(arguments, log, environment))
        deadline = time.monotonic() + _START_TIMEOUT
        while len(records := matchmaker.lookup([key])[0]) < 2:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"zmq-proxy does not start; its log ends with:\n{tail(log)}")
            time.sleep(_POLL)
        ends = {record.member: record.endpoint for record in records}
        yield RunningProxy(process.pid, ends["frontend"], ends["backend"])
