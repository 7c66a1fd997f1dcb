# SPDX-License-Identifier: Apache-2.0
"""What changes in a directory, told by the kernel.

By hand, since the libraries for it use `select.poll`, which eventlet takes away,
or threads that eventlet does not know.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from zmq_matchmaker._backend import Watch
from zmq_matchmaker._model import Key

__all__ = ["DirectoryWatch", "cannot_be_watched"]

_CLOSE_WRITE: Final = 0x8
_MOVED_TO: Final = 0x80
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR: Final = 0x1000000
_INTERESTING: Final = _CLOSE_WRITE | _MOVED_TO | _DELETE_SELF | _MOVE_SELF
_MISSED: Final = _DELETE_SELF | _MOVE_SELF | _OVERFLOW | _IGNORED
_EVENT: Final = struct.Struct("iIII")
_RETRY: Final = 1.0
"""Seconds until a directory that has vanished is looked for again."""


def cannot_be_watched(place: Path, error: OSError) -> str:
    """What to tell an operator whose system refuses to watch `place`."""
    advice = ""
    if error.errno in (errno.ENOSPC, errno.EMFILE):
        advice = "; raise fs.inotify.max_user_watches or max_user_instances (sysctl)"
    return (
        f"{place} cannot be watched ({error.strerror}{advice}); changes are found by looking every "
        "few seconds"
    )


class DirectoryWatch(Watch):
    """Calls `changed` with the names of files that were written or moved into `directory`.

    With None when reports were lost.  Has a thread.

    :raises OSError: the directory, or a limit of the system on such watches.
    """

    def __init__(self, directory: Path, changed: Callable[[set[str] | None], None]) -> None:
        self._directory = directory
        self._changed = changed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._wake, self._woken = socket.socketpair()
        try:
            self._add()
        except OSError:
            self._release()
            raise
        self._lock = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="zmq-inotify", daemon=True)
        self._thread.start()

    def follow(self, keys: Collection[Key]) -> None:
        """All changes of the directory are told: there are no fewer to be had."""

    def close(self) -> None:
        """End the thread.  Idempotent."""
        with self._lock:
            already, self._closing = self._closing, True
        if not already:
            self._wake.send(b".")
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._release()

    def _release(self) -> None:
        os.close(self._fd)
        self._wake.close()
        self._woken.close()

    def _add(self) -> None:
        path = os.fsencode(self._directory)
        self._checked(self._libc.inotify_add_watch(self._fd, path, _INTERESTING | _ONLYDIR))

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self._directory))
        return result

    def _run(self) -> None:
        lost = False
        while True:
            select.select([self._fd, self._woken.fileno()], (), (), _RETRY if lost else None)
            if self._closing:
                return
            names = self._read()
            if names is None or lost:
                lost = not self._find_again()
                names = None
            if names is None or names:
                self._changed(names)

    def _find_again(self) -> bool:
        try:
            self._add()
        except OSError:
            return False
        return True

    def _read(self) -> set[str] | None:
        """The names that changed, or None if any may have."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return set()
        names: set[str] = set()
        missed = False
        at = 0
        while at < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            missed = missed or bool(mask & _MISSED)
            if name:
                names.add(os.fsdecode(name))
        return None if missed else names
