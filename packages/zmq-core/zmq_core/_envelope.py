# SPDX-License-Identifier: Apache-2.0
"""The wire format of docs/protocol.md: frames in, envelopes out, no I/O.

A message is three frames, `[header] [target key] [body]`; the hop in front of
it adds a fourth, the peer.  Whatever bytes a peer sends, `decode` returns an
`Envelope` or raises `MalformedMessage`, never anything else.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from zmq_core._errors import MalformedMessage, NackCode, UnsupportedVersion
from zmq_core._key import NO_KEY, check_key

__all__ = [
    "HEADER_SIZE",
    "ID_SIZE",
    "PROTOCOL_VERSION",
    "Envelope",
    "Flag",
    "MessageType",
    "Serializer",
    "decode",
    "encode",
]

MAGIC: Final = b"Zo"
PROTOCOL_VERSION: Final = 1
ID_SIZE: Final = 16
MAX_TTL_MS: Final = 2**32 - 1

# magic, version, type, flags, serializer, NACK code, NACK subject, ttl in ms, id
_HEADER: Final = struct.Struct("!2sBBBBBBI16s")
HEADER_SIZE: Final = _HEADER.size


class MessageType(enum.IntEnum):
    """What a message is, and so who answers it with what."""

    CALL = 1
    CAST = 2
    FANOUT = 3
    NOTIFY = 4
    REPLY = 5
    ACK = 6
    NACK = 7
    HEARTBEAT = 8
    PROBE = 9


class Serializer(enum.IntEnum):
    """How the body is encoded; RAW is opaque bytes that the application knows."""

    RAW = 0
    JSON = 1
    MSGPACK = 2


class Flag(enum.IntFlag):
    """Bits of the header's flags byte; a receiver ignores those it does not know."""

    ACK_WANTED = 1
    FAILED = 2
    """On a REPLY: the body describes a failure, not a result."""
    REPEATABLE = 4
    """On a CALL: it may be sent again under its id; the reply is to be kept for that."""


# Tables, because calling an enum class costs more than the rest of decode().
_TYPES: Final = {int(member): member for member in MessageType}
_SERIALIZERS: Final = {int(member): member for member in Serializer}
_RETURNED: Final = (MessageType.CAST, MessageType.NOTIFY)
_NEED_KEY: Final = frozenset(
    {MessageType.CALL, MessageType.CAST, MessageType.FANOUT, MessageType.NOTIFY}
)


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message, apart from who it comes from or goes to.

    `key` is an encoded `TargetKey`, empty on answers (REPLY, ACK, HEARTBEAT).
    `ttl` is the time in seconds for which the message is worth delivering; 0
    means for ever.  `code` and `subject` are 0 on everything but NACK, where they
    tell a `NackCode` and the type of the refused message.
    """

    type: MessageType
    id: bytes
    key: bytes = NO_KEY
    body: bytes = b""
    serializer: Serializer = Serializer.RAW
    flags: int = 0
    code: int = 0
    subject: int = 0
    ttl: float = 0.0

    @property
    def nack_code(self) -> NackCode:
        """The reason of a NACK; codes of newer peers count as MALFORMED."""
        try:
            return NackCode(self.code)
        except ValueError:
            return NackCode.MALFORMED

    def refused(self, code: NackCode) -> Envelope:
        """The NACK that answers this message.

        A message that nobody waits for an answer to goes back whole, so that
        its sender can try another server without having kept a copy.
        """
        return Envelope(
            type=MessageType.NACK,
            id=self.id,
            key=self.key,
            body=self.body if self.type in _RETURNED and not self.flags & Flag.ACK_WANTED else b"",
            serializer=self.serializer,
            flags=self.flags,
            code=code,
            subject=self.type,
            ttl=self.ttl,
        )

    def returned(self) -> Envelope | None:
        """The message that this NACK brings back, or None if it brings none."""
        subject = _TYPES.get(self.subject)
        if subject not in _RETURNED or self.flags & Flag.ACK_WANTED or not self.key:
            return None
        return Envelope(
            type=subject,
            id=self.id,
            key=self.key,
            body=self.body,
            serializer=self.serializer,
            flags=self.flags,
            ttl=self.ttl,
        )


def encode(envelope: Envelope) -> list[bytes]:
    """The three frames of `envelope`.

    :raises ValueError: its id has not `ID_SIZE` bytes.
    """
    if len(envelope.id) != ID_SIZE:
        raise ValueError(f"a message id has {ID_SIZE} bytes, not {len(envelope.id)}")
    ttl = 0
    if envelope.ttl > 0:
        ttl = max(1, round(min(envelope.ttl * 1000, MAX_TTL_MS)))
    header = _HEADER.pack(
        MAGIC,
        PROTOCOL_VERSION,
        envelope.type,
        envelope.flags,
        envelope.serializer,
        envelope.code,
        envelope.subject,
        ttl,
        envelope.id,
    )
    return [header, envelope.key, envelope.body]


def decode(frames: Sequence[bytes]) -> Envelope:
    """The envelope in `frames`, which are all frames of the message but the peer's.

    :raises UnsupportedVersion: the header is ours, but of another version.
    :raises MalformedMessage: anything else that is not a message.
    """
    if not frames:
        raise MalformedMessage("a message without frames")
    header = frames[0]
    if len(header) != HEADER_SIZE or header[:2] != MAGIC:
        raise _not_our_header(header)
    _, version, type_, flags, serializer, code, subject, ttl, id_ = _HEADER.unpack(header)
    if version != PROTOCOL_VERSION:
        raise UnsupportedVersion(version, id_)
    try:
        if len(frames) != 3:
            raise MalformedMessage(f"{len(frames)} frames instead of 3 (header, key, body)")
        known_type = _TYPES.get(type_)
        if known_type is None:
            raise MalformedMessage(f"unknown message type {type_}")
        known_serializer = _SERIALIZERS.get(serializer)
        if known_serializer is None:
            raise MalformedMessage(f"unknown serializer {serializer}")
        if not frames[1] and known_type in _NEED_KEY:
            raise MalformedMessage(f"a {known_type.name} without a target key")
        check_key(frames[1])
    except MalformedMessage as error:
        error.message_id = id_
        raise
    return Envelope(
        type=known_type,
        id=id_,
        key=frames[1],
        body=frames[2],
        serializer=known_serializer,
        flags=flags,
        code=code,
        subject=subject,
        ttl=ttl / 1000,
    )


def _not_our_header(header: bytes) -> MalformedMessage:
    """The error for a first frame that is not a header of this version."""
    # A newer version may have a longer header; its id stays at the same place.
    ours = header[:2] == MAGIC
    message_id = header[HEADER_SIZE - ID_SIZE : HEADER_SIZE]
    if not ours or len(message_id) < ID_SIZE:
        message_id = b""
    if ours and len(header) > 2 and header[2] != PROTOCOL_VERSION:
        return UnsupportedVersion(header[2], message_id)
    error = MalformedMessage(f"a first frame of {len(header)} bytes that is no header")
    error.message_id = message_id
    return error
