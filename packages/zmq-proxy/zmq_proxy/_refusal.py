# SPDX-License-Identifier: Apache-2.0
"""What to tell the sender of a message that cannot be passed on.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from zmq_core import (
    Envelope,
    MalformedMessage,
    MessageType,
    NackCode,
    UnsupportedVersion,
    decode,
    encode,
)

__all__ = ["Refusal", "refuse"]

_ANSWERS: Final = frozenset(
    {MessageType.REPLY, MessageType.ACK, MessageType.NACK, MessageType.HEARTBEAT}
)
_NO_ID: Final = bytes(16)


class Refusal(msgspec.Struct, frozen=True):
    """A message that was not passed on."""

    sender: bytes
    what: str
    """What it was, for a log."""
    answer: list[bytes]
    """The NACK to send, frames for the backend; empty if none is due."""


def refuse(frames: Sequence[bytes], proxy: bytes, code: NackCode) -> Refusal:
    """The refusal, for the reason `code`, of a message without its destination.

    libzmq has taken that off `frames`, so that it cannot be told; the NACK comes
    from `proxy`, this proxy's own name.  Answers are not answered.  A message of
    another version is refused for that, whatever it is: its sender can repeat it.

    :raises MalformedMessage: it is no message of this protocol.
    """
    if not frames or not frames[0]:
        raise MalformedMessage("a message without the name of its sender")
    sender, *rest = frames
    try:
        envelope = decode(rest)
    except UnsupportedVersion as error:
        what = f"message of protocol version {error.version}"
        nack = Envelope(type=MessageType.NACK, id=error.message_id or _NO_ID, code=error.code)
        return Refusal(sender, what, [sender, proxy, *encode(nack)])
    answer = []
    if envelope.type not in _ANSWERS:
        answer = [sender, proxy, *encode(envelope.refused(code))]
    return Refusal(sender, envelope.type.name, answer)
