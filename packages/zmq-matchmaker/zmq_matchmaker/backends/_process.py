# SPDX-License-Identifier: Apache-2.0
"""Whether the process that wrote something still runs, as far as Linux lets us know."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec

__all__ = ["ProcessId", "Processes"]


class ProcessId(msgspec.Struct, frozen=True, kw_only=True):
    """A process that no other is taken for, also after a restart of the host."""

    host: str
    boot: str
    """Changes whenever the host is started."""
    namespace: str
    """In which its number counts: containers have one each."""
    pid: int
    started: int
    """In clock ticks since the host was started."""

    @classmethod
    def current(cls) -> ProcessId:
        """This process."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            boot=_boot(),
            namespace=_namespace(),
            pid=pid,
            started=_start_time(pid) or 0,
        )


class Processes:
    """The processes that can be seen at one moment; looks at each only once."""

    def __init__(self) -> None:
        self._host = socket.gethostname()
        self._boot = _boot()
        self._namespace = _namespace()
        self._started: dict[int, int | None] = {}

    def same_boot(self, process: ProcessId) -> bool:
        """Whether `process` was started on this host since the host itself was."""
        return process.boot == self._boot

    def may_run(self, process: ProcessId) -> bool:
        """False if `process` has ended for certain."""
        if process.boot != self._boot:
            return process.host != self._host
        if process.namespace != self._namespace:
            return True
        if process.pid not in self._started:
            self._started[process.pid] = _start_time(process.pid)
        return self._started[process.pid] == process.started


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _start_time(pid: int) -> int | None:
    """When process `pid` started; None if there is none, or only its exit code."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; the fields after it are numbers.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
