# SPDX-License-Identifier: Apache-2.0
"""What the demo runs on: a registry and two server processes, gone afterwards whatever happens."""

from __future__ import annotations

import contextlib
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from demo_support.interrupts import Interrupts
from zmq_matchmaker.testing import RedisServer

OPTIONS: Final = "rpc_zmq_bind_address=127.0.0.1&use_pub_sub=false"
"""This machine alone, and no publisher."""
START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 15.0


class DemoError(Exception):
    """A step did not do what it claims."""


@contextlib.contextmanager
def registry(interrupts: Interrupts, *, redis: bool) -> Iterator[str]:
    """The transport URL of a registry of the demo's own."""
    with interrupts.hold(), contextlib.ExitStack() as stack:
        if redis:
            server = _redis()
            stack.push(server)
            url = f"zmq+{server.url}/demo?{OPTIONS}"
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="zmq-demo-"))
            url = f"zmq+file://{folder}/registry/?{OPTIONS}"
        started = stack.pop_all()
    try:
        yield url
    finally:
        with interrupts.hold():
            started.close()


def _redis() -> RedisServer:
    """One that has started; to be ended by its `__exit__`."""
    server = RedisServer()
    # A child inherits which signals are blocked: Ctrl-C, which a terminal sends to all processes
    # in its foreground, must not end Redis before the servers have said goodbye to it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return server.__enter__()
    except (OSError, RuntimeError) as error:
        raise DemoError(f"--redis: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ServerProcess:
    """A server process of the demo, out of reach of the terminal's Ctrl-C.

    It ends when it is told to, and by itself when this process has ended.
    """

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "demo_support.server", url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Return once it listens and is registered.

        :raises DemoError: it did not start.
        """
        output = self._process.stdout
        readable = output and select.select([output], [], [], START_TIMEOUT)[0]
        if not output or not readable or output.readline().strip() != b"ready":
            raise DemoError(f"server {self.name} did not start; see its error above")

    def terminate(self) -> None:
        """Ask it to end, as an operator would."""
        self._process.terminate()

    def wait(self, timeout: float) -> int:
        """Its exit code; it is killed if it has not ended after `timeout` seconds."""
        with self._process:  # closes the pipes
            try:
                return self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                return self._process.wait()


@contextlib.contextmanager
def servers(interrupts: Interrupts, url: str, *names: str) -> Iterator[list[ServerProcess]]:
    """Server processes that are ready; all have ended when the block has.

    :raises DemoError: one of them did not start, or did not end well.
    """
    started: list[ServerProcess] = []
    try:
        with interrupts.hold():
            started.extend(ServerProcess(url, name) for name in names)
        for server in started:
            server.wait_until_ready()
        yield started
    finally:
        with interrupts.hold():
            codes = _end(started)
    if any(codes.values()):
        said = ", ".join(f"{name}: {code}" for name, code in codes.items())
        raise DemoError(f"servers did not end well; their exit codes are {said}")


def _end(started: list[ServerProcess]) -> dict[str, int]:
    """End them together; their exit codes by name."""
    for server in started:
        server.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT
    return {server.name: server.wait(max(0.1, deadline - time.monotonic())) for server in started}
