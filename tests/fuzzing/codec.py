# SPDX-License-Identifier: Apache-2.0
"""The codec: whatever bytes come, they are a message or refused, as the protocol says."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from fuzzing import protocol
from fuzzing.frames import unpack
from fuzzing.watch import compare
from zmq_core import MalformedMessage, TargetKey, decode, encode

__all__ = ["Codec"]


class Codec:
    """`decode`, `encode` and `TargetKey.decode`."""

    structured = True
    longest = 4096

    def run(self, data: bytes) -> None:
        """Decode a message, and each of its frames as a key."""
        frames = unpack(data)
        refusal = None
        try:
            envelope = decode(frames)
        except MalformedMessage as error:
            refusal = error
        else:
            compare("encoded", encode(envelope), frames)
        compare("refused as", refusal and refusal.code, protocol.problem(frames))
        if refusal is not None:
            compare("with id", refusal.message_id or bytes(16), protocol.id_of(frames))
        for frame in frames:
            self._read_as_key(frame)

    def _read_as_key(self, frame: bytes) -> None:
        try:
            key = TargetKey.decode(frame)
        except MalformedMessage:
            compare("a key", False, protocol.is_key(frame))
        else:
            compare("a key", True, protocol.is_key(frame))
            compare("encoded", key.encoded, frame)
            assert str(key), "no text for a log"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None
