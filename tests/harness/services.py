# SPDX-License-Identifier: Apache-2.0
"""Starting and ending service processes from a test."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from harness.caller import CallerConfig
from harness.nursery import Nursery, Process
from harness.service import ServiceConfig

_START_TIMEOUT = 30.0
_MODULE = ("-W", "ignore", "-m")
# oslo.service imports eventlet, whose resolver takes half of the time to start.
_QUICK = {"EVENTLET_NO_GREENDNS": "yes"}


def child_environment(**extra: str) -> dict[str, str]:
    """An environment in which a child finds the same modules as this process."""
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **extra}


def python(
    *arguments: str, prefix: Sequence[str] = (), **environment: str
) -> subprocess.Popen[str]:
    """A new process of this Python.

    `prefix` is a command that runs the one after it in its own place, such as
    `Network.on(host)`.
    """
    return subprocess.Popen(
        [*prefix, sys.executable, *arguments],
        env=child_environment(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Child:
    """A process that says JSON lines on its standard output; ended with the block."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self._said.put(json.loads(line))
        self._said.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    @property
    def errors(self) -> str:
        """What it has written to its standard error."""
        return "".join(self._errors)

    def hear(self, timeout: float = _START_TIMEOUT) -> dict[str, Any]:
        """The next thing that it says; fails if it ends or keeps silent."""
        try:
            said = self._said.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"silent for {timeout} s; errors:\n{self.errors}") from None
        if said is None:
            raise AssertionError(f"ended with {self.process.wait()}; errors:\n{self.errors}")
        return said

    def kill(self) -> None:
        """End it without warning, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def make_nursery() -> Nursery:
    """Where services and callers are forked."""
    return Nursery(child_environment(**_QUICK))


def _started(module: str, argument: str, prefix: Sequence[str], nursery: Nursery | None) -> Process:
    if nursery is not None and not prefix:
        return nursery.fork(module, argument)
    return python(*_MODULE, module, argument, prefix=prefix, **_QUICK)


class Service(Child):
    """A `harness.service` process, ready to be called."""

    def __init__(
        self,
        url: str,
        *servers: tuple[str, str, str],
        prefix: Sequence[str] = (),
        nursery: Nursery | None = None,
        **config: Any,
    ) -> None:
        settings = ServiceConfig(url=url, servers=list(servers), **config)
        text = json.dumps(msgspec.to_builtins(settings))
        if settings.eventlet:  # which has to come before everything else
            super().__init__(python(*_MODULE, "harness.service", text, prefix=prefix))
        else:
            super().__init__(_started("harness.service", text, prefix, nursery))
        try:
            self.pid = int(self.hear()["pid"])
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def stop(self) -> dict[str, Any]:
        """End it as an operator would; what it said at its end."""
        os.kill(self.pid, signal.SIGTERM)
        said = self.hear()
        self.process.wait(timeout=10)
        return said


class CallerProcess(Child):
    """A `harness.caller` process, sending."""

    def __init__(
        self,
        url: str,
        *,
        prefix: Sequence[str] = (),
        nursery: Nursery | None = None,
        **config: Any,
    ) -> None:
        text = json.dumps(msgspec.to_builtins(CallerConfig(url=url, **config)))
        super().__init__(_started("harness.caller", text, prefix, nursery))

    def until(
        self, condition: Callable[[dict[str, Any]], object], what: str, timeout: float = 20.0
    ) -> dict[str, Any]:
        """Wait for a report for which `condition` holds; the report."""
        began = time.monotonic()
        while True:
            report = self.hear()
            if report["time"] > began and condition(report):
                return report
            if time.monotonic() > began + timeout:
                raise AssertionError(f"not within {timeout:g} s: {what}; the last was {report}")

    def stop(self) -> dict[str, Any]:
        """End it; its last report."""
        self.process.send_signal(signal.SIGTERM)
        while not (report := self.hear(timeout=60)).get("stopped"):
            continue
        self.process.wait(timeout=10)
        return report
