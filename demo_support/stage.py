# SPDX-License-Identifier: Apache-2.0
"""What the demo runs on: a registry and two server processes, gone afterwards whatever happens."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from zmq_matchmaker.testing import RedisServer

LOOPBACK = "rpc_zmq_bind_address=127.0.0.1"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0


class DemoError(Exception):
    """A step did not do what it claims."""


@contextlib.contextmanager
def registry(*, redis: bool) -> Iterator[str]:
    """The transport URL of a registry of the demo's own."""
    if redis:
        with RedisServer() as server:
            yield f"zmq+{server.url}/demo?{LOOPBACK}"
    else:
        with tempfile.TemporaryDirectory(prefix="zmq-demo-") as folder:
            yield f"zmq+file://{folder}/registry/?{LOOPBACK}"


class ServerProcess:
    """A server process of the demo."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "demo_support.server", url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Return once it listens and is registered."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_TIMEOUT)
        if not readable or self._process.stdout.readline().strip() != b"ready":
            raise DemoError(f"server {self.name} did not start; see its error above")

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        self._process.terminate()
        try:
            code = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            code = -1
        self._end()
        return code

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def servers(url: str, *names: str) -> Iterator[list[ServerProcess]]:
    """Server processes that are ready; all have ended when the block has."""
    started: list[ServerProcess] = []
    try:
        started.extend(ServerProcess(url, name) for name in names)
        for server in started:
            server.wait_until_ready()
        yield started
    finally:
        codes = {server.name: server.stop() for server in started}
    if any(codes.values()):
        raise DemoError(f"servers did not end well: exit codes {codes}")
