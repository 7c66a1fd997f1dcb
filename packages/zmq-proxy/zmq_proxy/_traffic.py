# SPDX-License-Identifier: Apache-2.0
"""What went through: messages and bytes, by type and direction.  No I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from zmq_core import Envelope, MalformedMessage, MessageType, TargetKey, encode

__all__ = ["KINDS", "PUBLISHED", "ROUTED", "Count", "Direction", "Layout", "Traffic", "describe"]

MALFORMED: Final = 0
KINDS: Final = ("malformed", *(kind.name.lower() for kind in MessageType))
"""Names of what messages are, by the number on the wire; the first one of those that are none."""
_EXAMPLE: Final = encode(Envelope(type=MessageType.HEARTBEAT, id=bytes(16)))[0]
_HEADER_SIZE: Final = len(_EXAMPLE)
_START: Final = _EXAMPLE[:3]
"""Magic and version, behind which the type stands."""
_ID: Final = slice(12, _HEADER_SIZE)
_LONGEST_IN_LOG: Final = 100

Frame = Any
"""`bytes`, or a frame of pyzmq's, which is not copied."""


class Direction(enum.StrEnum):
    """Seen from the proxy."""

    IN = "in"
    """Taken from senders."""
    OUT = "out"
    """Handed to the queues of receivers or subscribers."""


class Layout(NamedTuple):
    """Where things are in the messages of one part."""

    header: int
    """Index of the frame."""
    taken_off: int
    """How many frames do not reach the receiver."""

    @property
    def frames(self) -> int:
        """How many frames a message has."""
        return self.header + 3


ROUTED: Final = Layout(header=2, taken_off=1)
"""`[destination] [sender] [header] [key] [body]`"""
PUBLISHED: Final = Layout(header=1, taken_off=0)
"""`[filter] [header] [key] [body]`"""


class Count(NamedTuple):
    """Messages of one kind in one direction, since the start."""

    direction: Direction
    kind: str
    messages: int
    bytes: int
    """The size of their frames, without ZMTP's own octets."""


class Traffic:
    """Counters of one part.  One thread counts; others may read meanwhile."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._messages = {direction: [0] * len(KINDS) for direction in Direction}
        self._bytes = {direction: [0] * len(KINDS) for direction in Direction}

    def count(self, frames: Sequence[Frame], *, taken: bool = True, passed: bool = True) -> int:
        """Count a message that was taken in, or passed on, or both; returns its kind."""
        kind = self.kind(frames)
        size = sum(map(len, frames))
        if taken:
            self._messages[Direction.IN][kind] += 1
            self._bytes[Direction.IN][kind] += size
        if passed:
            if self.layout.taken_off:
                size -= len(frames[0])
            self._messages[Direction.OUT][kind] += 1
            self._bytes[Direction.OUT][kind] += size
        return kind

    def kind(self, frames: Sequence[Frame]) -> int:
        """The type by number, if it has as many frames as it should and a header of ours."""
        if len(frames) != self.layout.frames:
            return MALFORMED
        header = frames[self.layout.header]
        if len(header) != _HEADER_SIZE:
            return MALFORMED
        head = bytes(header)
        kind = head[len(_START)]
        return kind if head.startswith(_START) and kind < len(KINDS) else MALFORMED

    def __iter__(self) -> Iterator[Count]:
        for direction in Direction:
            messages, sizes = self._messages[direction], self._bytes[direction]
            for kind, name in enumerate(KINDS):
                yield Count(direction, name, messages[kind], sizes[kind])


def describe(layout: Layout, kind: int, frames: Sequence[Frame]) -> str:
    """A message in a line of the log: all but its body."""
    size = sum(map(len, frames))
    first = _name(frames[0])
    if kind == MALFORMED:
        return f"malformed to {first}: {len(frames)} frames, {size} bytes"
    header, key = bytes(frames[layout.header]), bytes(frames[layout.header + 1])
    who = f"from {_name(frames[1])} to {first}" if layout is ROUTED else f"as {first}"
    return f"{KINDS[kind]} {header[_ID].hex()} {who}, key {_key(key)}, {size} bytes"


def _name(frame: Frame) -> str:
    text = bytes(frame)
    try:
        return str(TargetKey.decode(text))
    except MalformedMessage:
        return repr(text[:_LONGEST_IN_LOG])


def _key(frame: bytes) -> str:
    return _name(frame) if frame else "-"
