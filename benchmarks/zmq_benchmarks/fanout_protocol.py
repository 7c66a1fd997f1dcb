# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of fanouts and its processes say to each other, and how copies are told."""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = [
    "Arrivals",
    "ClientConfig",
    "Fanouts",
    "FanoutsSent",
    "ListenersConfig",
    "Look",
    "marked",
    "numbers_in",
]

_MARK: Final = re.compile(rb"#(\d{8})#")
_LENGTH: Final = 10


class ListenersConfig(msgspec.Struct, frozen=True):
    """So many listeners on each topic, which other processes may share."""

    url: str
    """Of the matchmaker."""
    publisher: str
    """Where a publisher gives out messages; empty: they are sent to each listener."""
    topics: dict[str, int]


class ClientConfig(msgspec.Struct, frozen=True):
    """A client of the transport."""

    url: str


class Fanouts(msgspec.Struct, frozen=True):
    """Send the fanouts from number `first` on, one each `interval` seconds."""

    topic: str
    first: int
    count: int
    interval: float


class FanoutsSent(msgspec.Struct, frozen=True):
    """When each began (`time.monotonic`), and the seconds until the client could go on."""

    begun: list[float]
    taken: list[float]


class Look(msgspec.Struct, frozen=True):
    """Say what has arrived of the fanouts from number `first` on."""

    first: int
    count: int


class Arrivals(msgspec.Struct, frozen=True):
    """Of each fanout: how many copies have arrived, and when the last did (`time.monotonic`)."""

    copies: list[int]
    last: list[float]


def marked(number: int) -> str:
    """A text by which a fanout is known on the wire."""
    return f"#{number:08d}#"


def numbers_in(data: bytes) -> tuple[list[int], bytes]:
    """The fanouts that end in a piece of a stream, and what goes before the next piece."""
    found, end = [], 0
    for match in _MARK.finditer(data):
        found.append(int(match[1]))
        end = match.end()
    return found, data[max(end, len(data) - _LENGTH + 1) :]
