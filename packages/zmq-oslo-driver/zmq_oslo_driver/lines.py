# SPDX-License-Identifier: Apache-2.0
"""Messages that came back: which is tried next, and when.  No clock, no I/O, no lock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from zmq_core import Envelope, MessageType

__all__ = ["Lines", "Returned"]

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_NEVER: Final = float("inf")


@dataclass(slots=True)
class Returned:
    """A message that a process returned; worth a try until `deadline`."""

    refuser: str
    """That process's endpoint or routing id; empty if none has refused it."""
    envelope: Envelope
    deadline: float


@dataclass(slots=True)
class _Line:
    due: float
    pause: float = _FIRST_PAUSE
    messages: deque[Returned] = field(default_factory=deque)


class Lines:
    """One line of messages for each address, so that no address waits for another.

    When the first of a line finds nobody, the whole line is left alone for a
    while, twice as long each time.  `limit` is for all lines together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._lines: dict[tuple[MessageType, bytes], _Line] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def due(self) -> float:
        """When the next message is to be tried; never, if there is none."""
        return min((line.due for line in self._lines.values()), default=_NEVER)

    def add(self, message: Returned, due: float) -> bool:
        """Put a message at the end of its line, which if new is `due` then.

        Returns false if there are too many.
        """
        if self._count >= self._limit:
            return False
        self._count += 1
        self._lines.setdefault(_address(message), _Line(due)).messages.append(message)
        return True

    def holds(self, kind: MessageType, key: bytes) -> bool:
        """Whether messages of that address wait."""
        return (kind, key) in self._lines

    def first(self) -> Returned:
        """The message that is due next.  It keeps its place until `done` or `postpone`."""
        return min(self._lines.values(), key=lambda line: line.due).messages[0]

    def done(self, message: Returned) -> None:
        """`message`, the first of its line, is delivered or lost."""
        self._count -= 1
        line = self._lines[_address(message)]
        line.messages.popleft()
        if not line.messages:
            del self._lines[_address(message)]

    def postpone(self, message: Returned, now: float) -> bool:
        """`message`, the first of its line, found nobody; false if its time is over."""
        if now >= message.deadline:
            return False
        line = self._lines[_address(message)]
        line.due = min(now + line.pause, message.deadline)
        line.pause = min(line.pause * 2, _LONGEST_PAUSE)
        return True


def _address(message: Returned) -> tuple[MessageType, bytes]:
    return message.envelope.type, message.envelope.key
