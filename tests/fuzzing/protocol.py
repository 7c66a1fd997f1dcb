# SPDX-License-Identifier: Apache-2.0
"""What docs/protocol.md says of a message, once more and apart from the code under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zmq_core import NackCode

__all__ = ["HEADER", "ID", "id_of", "problem", "with_id"]

HEADER: Final = 28
ID: Final = slice(12, 28)
_TYPES: Final = range(1, 10)
_WITH_KEY: Final = range(1, 5)
_SERIALIZERS: Final = range(3)
_PART: Final = 1024


def problem(frames: Sequence[bytes]) -> NackCode | None:
    """Why `frames` are no message (section 9); None if they are one."""
    header = frames[0] if frames else b""
    if header[:2] != b"Zo" or len(header) < 3:
        return NackCode.MALFORMED
    if header[2] != 1:
        return NackCode.UNSUPPORTED_VERSION
    if len(header) != HEADER or len(frames) != 3:
        return NackCode.MALFORMED
    known = header[3] in _TYPES and header[5] in _SERIALIZERS
    has_key = is_key(frames[1]) or (not frames[1] and header[3] not in _WITH_KEY)
    return None if known and has_key else NackCode.MALFORMED


def is_key(octets: bytes) -> bool:
    """Whether `octets` are exchange, topic and server, each with its length in front."""
    for _ in range(3):
        length = int.from_bytes(octets[:2], "big")
        part, rest = octets[2 : 2 + length], octets[2 + length :]
        if len(octets) < 2 or len(part) != length or length > _PART or not _is_text(part):
            return False
        octets = rest
    return not octets


def _is_text(part: bytes) -> bool:
    try:
        part.decode()
    except UnicodeDecodeError:
        return False
    return True


def id_of(frames: Sequence[bytes]) -> bytes:
    """The id that a refusal of `frames` must have (section 5)."""
    header = frames[0] if frames else b""
    return header[ID] if header[:2] == b"Zo" and len(header) >= HEADER else bytes(16)


def with_id(frames: Sequence[bytes], message_id: bytes) -> list[bytes]:
    """The same with another id, where there is room for one."""
    if not frames or len(frames[0]) < HEADER:
        return list(frames)
    return [frames[0][: ID.start] + message_id + frames[0][ID.stop :], *frames[1:]]
