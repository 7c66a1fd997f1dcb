# SPDX-License-Identifier: Apache-2.0
"""Mistral's processes on this machine: an API, an engine, executors, whatever is asked for."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import psutil

from harness.leaks import is_alive, wait_until
from real_service.api import API
from real_service.environment import Environment, clean
from zmq_matchmaker import Listing, MatchmakerURL, load
from zmq_matchmaker.testing import RedisServer

__all__ = ["Mistral", "Process"]

_START: Final = 60.0
_STOP: Final = 30.0

_CONFIG: Final = """
[DEFAULT]
transport_url = {url}
rpc_response_timeout = 30

[oslo_messaging_zmq]
rpc_zmq_bind_address = 127.0.0.1

[database]
# Several processes write: each waits for the others.
connection = sqlite:///{folder}/mistral.sqlite?timeout=60

[pecan]
auth_enable = false

[api]
host = 127.0.0.1
port = {port}

[cron_trigger]
enabled = false

[action_heartbeat]
# An executor that died is noticed after three seconds.
check_interval = 1
max_missed_heartbeats = 3
first_heartbeat_timeout = 5

[action_std_http]
# The hook that takes the notifier's posts is on this machine.
denied_cidrs =
"""

# Its own command for the database knows nothing of SQLite; its tests make the tables like this.
_PREPARE: Final = """
import sqlite3, sys
import mistral.cmd
from mistral import config
from mistral.db.v2 import api
from mistral.services import action_manager
config.parse_args(["--config-file", sys.argv[1]])
sqlite3.connect(sys.argv[2]).execute("pragma journal_mode=wal")
api.setup_db()
action_manager.sync_db()
"""

_SAID_AT_START: Final = {
    "engine": "Engine server started",
    "executor": "Executor server started",
    "event-engine": "Event engine server started",
    "notifier": "Notification server started",
}


class Process:
    """`mistral-server` in one role: a parent and the child that it forks to do the work."""

    def __init__(self, command: list[str], name: str, role: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._role = role
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                env=clean(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        """What it has printed until now."""
        return self.log.read_text(errors="replace")

    def await_ready(self, api: API) -> None:
        """Wait until it serves."""

        def ready() -> bool:
            if self._process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self._process.returncode}")
            return api.answers() if self._role == "api" else _SAID_AT_START[self._role] in self.said

        wait_until(ready, f"{self.name} has started", _START)

    def await_said(self, text: str) -> None:
        """Wait until it has printed this."""
        wait_until(lambda: text in self.said, f"{self.name} says {text!r}", _START)

    def stop(self) -> float:
        """End it as an operator would; how many seconds that took."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(_STOP)
        if code:
            raise AssertionError(f"{self.name} ended with {code}")
        return time.monotonic() - began

    def kill(self) -> None:
        """End parent and child without warning.  Harmless if they have ended."""
        family: list[psutil.Process] = []
        if self._process.poll() is None:
            parent = psutil.Process(self._process.pid)
            parent.suspend()  # so that it starts no other child
            family = [*parent.children(recursive=True), parent]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        wait_until(lambda: not any(map(is_alive, family)), f"{self.name} is gone")


class Mistral:
    """All of it, with a database and a Redis of its own; everything has ended with the block."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._redis = RedisServer()
        self._processes: dict[str, Process] = {}
        self._ended: list[Process] = []

    def __enter__(self) -> Self:
        self._redis.__enter__()
        try:
            self.url = f"zmq+{self._redis.url}/mistral"
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            self.api = API(f"http://127.0.0.1:{port}")
            self._config = _CONFIG.format(url=self.url, folder=self._folder, port=port)
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        self._redis.__exit__(None, None, None)
        # One may just have been started when a signal came, and not be known yet.
        for stray in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                stray.kill()

    def _prepare(self) -> None:
        """Make the database, with the actions that the service comes with."""
        file = self._write("prepare", self._config)
        database = str(self._folder / "mistral.sqlite")
        self._environment.run("python", "-c", _PREPARE, str(file), database)

    def _write(self, name: str, config: str) -> Path:
        file = self._folder / f"{name}.conf"
        file.write_text(config)
        return file

    def start(self, *names: str) -> None:
        """Start processes side by side and wait until all serve; `executor-2` is an executor."""
        started = [self._start(name) for name in names]
        for process in started:
            process.await_ready(self.api)

    def _start(self, name: str) -> Process:
        role = name.rstrip("0123456789").rstrip("-")
        group = role.replace("-", "_")
        host = "" if role == "api" else f"\n[{group}]\nhost = {name}\n"
        file = self._write(name, self._config + host)
        command = [
            self._environment.program("mistral-server"),
            f"--config-file={file}",
            "--server",
            role,
        ]
        number = sum(ended.name == name for ended in self._ended)
        log = self._folder / (f"{name}.log" if not number else f"{name}.{number + 1}.log")
        self._processes[name] = Process(command, name, role, log)
        return self._processes[name]

    def stop(self, *names: str) -> float:
        """End processes in order, one after another; seconds that the slowest took."""
        return max(self._take(name).stop() for name in names or list(self._processes))

    def kill(self, name: str) -> None:
        """End one without warning."""
        self._take(name).kill()

    def _take(self, name: str) -> Process:
        self._ended.append(self._processes.pop(name))
        return self._ended[-1]

    def process(self, name: str) -> Process:
        """One that runs."""
        return self._processes[name]

    @property
    def names(self) -> list[str]:
        """Those that run."""
        return list(self._processes)

    def registered(self) -> list[Listing]:
        """Who listens, as the matchmaker knows it."""
        matchmaker = load(MatchmakerURL.parse(self.url))
        try:
            return matchmaker.survey()
        finally:
            matchmaker.close()

    def logs(self) -> Iterator[tuple[str, str]]:
        """What each process has printed, those that have ended included."""
        for process in (*self._ended, *self._processes.values()):
            yield process.log.stem, process.said
