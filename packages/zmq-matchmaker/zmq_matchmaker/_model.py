# SPDX-License-Identifier: Apache-2.0
"""The vocabulary: what is looked up, and what is found."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

__all__ = ["Entry", "Finding", "Found", "Key", "Listing", "Record", "Role", "Severity", "Standing"]


class Role(enum.StrEnum):
    """What a record's process does for those who find it."""

    LISTENER = "listener"
    """Serves RPC on a topic."""
    NOTIFICATION = "notification"
    """Handles notifications on a topic."""
    ROUTER = "router"
    """A proxy that passes messages on."""
    PUBLISHER = "publisher"
    """A proxy that distributes messages."""


class Key(NamedTuple):
    """What is looked up.  The parts are opaque: any character may be in them."""

    role: Role
    exchange: str = ""
    topic: str = ""
    server: str = ""

    def __str__(self) -> str:
        server = f" server {self.server!r}" if self.server else ""
        return f"{self.role} of exchange {self.exchange!r} topic {self.topic!r}{server}"


class Record(msgspec.Struct, frozen=True, kw_only=True, order=True, omit_defaults=True):
    """One listener of a key.  Fields that a newer version adds are ignored when read."""

    endpoint: str
    """Where to connect to: tcp://host:port."""
    node: str = ""
    """The process's routing id, for those who read logs."""
    member: str = ""
    """Tells several listeners of one process apart."""
    pool: str = ""
    """Pool of a notification listener; those without one form a pool of their own."""
    subscriber: bool = False
    """Whether the process gets what publishers send to all listeners."""


Entry = tuple[Key, Record]


class Standing(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A record as its backend has it now.  A backend leaves out what it does not know."""

    record: Record
    ttl: float | None = None
    """Seconds until it expires; None: never."""
    registered: float | None = None
    """When its process registered it, in seconds since the epoch by the backend's clock.

    Refreshing does not change it, registering anew does.
    """
    aside: float = 0.0
    """Seconds for which others are to be preferred, since it did not answer somebody."""


class Found(msgspec.Struct, frozen=True):
    """What a backend knows of one key."""

    standings: tuple[Standing, ...] = ()
    """The live records, sorted."""
    gone: frozenset[Record] = frozenset()
    """Records that were withdrawn lately."""
    complete: bool = True
    """Whether a record that is in neither is known to be gone.

    False for a while when the backend has been emptied, or was away, and processes
    may still be about to register again.
    """

    @classmethod
    def of(cls, records: Iterable[Record]) -> Found:
        """Records of which nothing else is known."""
        return cls(tuple(Standing(record=record) for record in records))

    @property
    def records(self) -> tuple[Record, ...]:
        """The live records."""
        return tuple(standing.record for standing in self.standings)


class Listing(NamedTuple):
    """One line of all that a backend knows."""

    key: Key
    standing: Standing


class Severity(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One thing that an inspection of a backend found out."""

    severity: Severity
    subject: str
    """What was looked at: `clock`, `permissions`."""
    text: str
    """What it is like."""
    advice: str = ""
    """What to do about it; empty if it is as it should be."""
