# SPDX-License-Identifier: Apache-2.0
"""What callers wait for, and the directory's thread is to do.  No clock and no I/O."""

from __future__ import annotations

import threading

from zmq_matchmaker._errors import MatchmakerError
from zmq_matchmaker._model import Key

__all__ = ["Request", "Requests"]


class Request:
    """What callers wait for.  Under the lock of its user, but for `finished` and `error`.

    Each waits at a lock of its own, not all at one `threading.Event`: that is entered by
    Python code, and stays locked for ever if the handler of a signal raises there.
    """

    __slots__ = ("_gates", "error", "finished")

    def __init__(self) -> None:
        self.finished = False
        self.error: MatchmakerError | None = None
        self._gates: list[threading.Lock] = []

    def gate(self) -> threading.Lock:
        """For one caller: it can be acquired as soon as this is finished."""
        gate = threading.Lock()
        if not self.finished:
            gate.acquire()
            self._gates.append(gate)
        return gate

    def finish(self, error: MatchmakerError | None = None) -> None:
        """Let the callers go on."""
        self.error = error
        self.finished = True
        while self._gates:
            self._gates.pop().release()


class Requests:
    """Lookups that are wanted, those that are on their way, and one that writes.

    Not thread-safe: its user has a lock.
    """

    def __init__(self) -> None:
        self._wanted: dict[Key, Request] = {}
        self._asked: dict[Key, Request] = {}
        self._write: Request | None = None

    @property
    def lookup_wanted(self) -> bool:
        """Whether somebody waits for a lookup that has not begun."""
        return bool(self._wanted)

    @property
    def write_wanted(self) -> bool:
        """Whether somebody waits for what is to be written."""
        return self._write is not None

    def is_asked(self, key: Key) -> bool:
        """Whether the source is being asked for `key`."""
        return key in self._asked

    def pending(self, key: Key, *, anew: bool) -> Request | None:
        """The lookup of `key` that others wait for; one that has begun does not count `anew`."""
        return self._wanted.get(key) or (None if anew else self._asked.get(key))

    def want(self, key: Key) -> Request:
        """A new lookup of `key`."""
        request = self._wanted[key] = Request()
        return request

    def want_write(self) -> Request:
        """A write, shared by all who want one."""
        if self._write is None:
            self._write = Request()
        return self._write

    def ask(self) -> tuple[Key, ...]:
        """The lookups that are wanted, which begin now."""
        self._asked, self._wanted = self._wanted, {}
        return tuple(self._asked)

    def answered(self, error: MatchmakerError | None) -> None:
        """The lookups that had begun have ended."""
        asked, self._asked = self._asked, {}
        for request in asked.values():
            request.finish(error)

    def take_write(self) -> Request | None:
        """The write that is wanted, which begins now."""
        request, self._write = self._write, None
        return request

    def refuse(self, error: MatchmakerError) -> None:
        """Nothing that has not begun will be done."""
        for request in self._wanted.values():
            request.finish(error)
        self._wanted.clear()
        if self._write is not None:
            self._write.finish(error)
            self._write = None
