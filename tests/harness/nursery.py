# SPDX-License-Identifier: Apache-2.0
"""Starts service and caller processes at once: they are forked from one that has all loaded.

Half a second of processor time goes into the imports of each, and the tests start hundreds.
`Nursery` runs `python -m harness.nursery FD` and tells it over a socket what to fork.  What
is forked becomes a child of the process that asked, with pipes of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Any, Final, Protocol

_PR_SET_CHILD_SUBREAPER: Final = 36
_LOOK_AGAIN: Final = 0.005
_REQUEST: Final = 2**16


class Process(Protocol):
    """What `subprocess.Popen` and `Forked` have in common."""

    stdout: IO[str] | None
    stderr: IO[str] | None

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...
    def terminate(self) -> None: ...


class Forked:
    """A child of this process that a nursery has forked."""

    def __init__(self, pid: int, stdout: IO[str], stderr: IO[str]) -> None:
        self.pid = pid
        self.stdout: IO[str] | None = stdout
        self.stderr: IO[str] | None = stderr
        self._lock = threading.Lock()
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or the signal that ended it as a negative number; None if it runs."""
        with self._lock:
            if self._code is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._code = os.waitstatus_to_exitcode(status)
            return self._code

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_LOOK_AGAIN)
        return code

    def send_signal(self, sig: int) -> None:
        """Nothing happens to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Nursery:
    """Forks processes that run `main()` of a module of the harness.  Thread-safe."""

    def __init__(self, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "harness.nursery", str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._lock = threading.Lock()

    def fork(self, module: str, argument: str) -> Forked:
        """A new process of `python -m MODULE ARGUMENT`, so to say."""
        out, theirs_out = os.pipe()
        err, theirs_err = os.pipe()
        with self._lock:
            _adopt_orphans(True)
            try:
                request = json.dumps([module, argument]).encode()
                socket.send_fds(self._socket, [request], [theirs_out, theirs_err])
                answer = self._socket.recv(_REQUEST)
            finally:
                _adopt_orphans(False)
                os.close(theirs_out)
                os.close(theirs_err)
        assert answer, f"the nursery has ended with {self._process.poll()}"
        return Forked(int(answer), os.fdopen(out), os.fdopen(err))

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self._socket.close()
        self._process.wait()


def _adopt_orphans(adopt: bool) -> None:
    """Whether orphans among the descendants of this process become its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _serve(requests: socket.socket) -> tuple[str, str] | None:
    """Fork as often as is asked.  Returns in each child what it is to run, else None at the end."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST, 2)
        if not request:
            return None
        told, tell = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child:
                os.write(tell, str(child).encode())
                os._exit(0)
            os.close(told)
            os.close(tell)
            for descriptor, standard in zip(descriptors, (1, 2), strict=True):
                os.dup2(descriptor, standard)
                os.close(descriptor)
            requests.close()
            module, argument = json.loads(request)
            return module, argument
        os.waitpid(between, 0)  # from now on the new process has another parent
        requests.send(os.read(told, _REQUEST))
        for descriptor in (*descriptors, told, tell):
            os.close(descriptor)


def main() -> None:
    from harness import caller, service

    modules: dict[str, Any] = {"harness.caller": caller, "harness.service": service}
    task = _serve(socket.socket(fileno=int(sys.argv[1])))
    if task is not None:
        module, argument = task
        sys.argv = [module, argument]
        modules[module].main()


if __name__ == "__main__":
    main()
