# SPDX-License-Identifier: Apache-2.0
"""The address of a message: exchange, topic and server as separate opaque parts."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from zmq_core._errors import MalformedMessage

__all__ = ["MAX_PART_SIZE", "NO_KEY", "TargetKey", "check_key"]

MAX_PART_SIZE: Final = 1024
"""Longest part of a key in bytes of UTF-8: four times what DNS or AMQP allow for a name."""

NO_KEY: Final = b""

_LENGTH: Final = struct.Struct("!H")
_PARTS: Final = 3
# Keys recur with every message, so those that were found valid are remembered;
# the bound keeps a peer that invents keys from filling our memory.
_KNOWN_LIMIT: Final = 4096
_known: dict[bytes, None] = {}


@dataclass(frozen=True, slots=True)
class TargetKey:
    """What a listener listens on and a message is sent to.

    The parts are opaque: none is parsed or joined, so they may contain any
    character.  An empty `server` addresses any listener of the topic; for
    notifications the third part is the pool.  Two keys are equal exactly when
    their `encoded` forms are, which is what receivers compare.

    :raises ValueError: a part is longer than `MAX_PART_SIZE` bytes, or is not
        encodable as UTF-8.
    """

    exchange: str
    topic: str
    server: str = ""
    encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        chunks: list[bytes] = []
        for name in ("exchange", "topic", "server"):
            try:
                part = getattr(self, name).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{name} cannot be encoded as UTF-8: {error.reason}") from error
            if len(part) > MAX_PART_SIZE:
                raise ValueError(
                    f"{name} has {len(part)} bytes, {MAX_PART_SIZE} are the most: "
                    f"{getattr(self, name)[:40]!r}…"
                )
            chunks += (_LENGTH.pack(len(part)), part)
        object.__setattr__(self, "encoded", b"".join(chunks))

    @classmethod
    def decode(cls, encoded: bytes) -> TargetKey:
        """The key whose encoded form is `encoded`.

        :raises MalformedMessage: `encoded` is no key.
        """
        parts = []
        offset = 0
        for _ in range(_PARTS):
            end = offset + _LENGTH.size
            if end > len(encoded):
                raise MalformedMessage("a target key that ends within a length")
            (length,) = _LENGTH.unpack_from(encoded, offset)
            offset = end + length
            if length > MAX_PART_SIZE or offset > len(encoded):
                raise MalformedMessage(f"a target key with a part of {length} bytes")
            try:
                parts.append(encoded[end:offset].decode())
            except UnicodeDecodeError as error:
                raise MalformedMessage("a target key that is not UTF-8") from error
        if offset != len(encoded):
            raise MalformedMessage("a target key with bytes after its last part")
        return cls(*parts)

    def __str__(self) -> str:
        server = f" server {self.server!r}" if self.server else ""
        return f"exchange {self.exchange!r} topic {self.topic!r}{server}"


def check_key(encoded: bytes) -> None:
    """Raise MalformedMessage unless `encoded` is a key, or empty."""
    if not encoded or encoded in _known:
        return
    TargetKey.decode(encoded)
    if len(_known) >= _KNOWN_LIMIT:
        _known.clear()
    _known[encoded] = None
