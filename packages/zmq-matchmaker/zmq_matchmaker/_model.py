# SPDX-License-Identifier: Apache-2.0
"""The vocabulary: what is looked up, and what is found."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

__all__ = ["Entry", "Key", "Record", "Role"]


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


Entry = tuple[Key, Record]
