# SPDX-License-Identifier: Apache-2.0
"""The codec: whatever bytes come, they are a message or refused, as the protocol says."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from fuzzing import protocol
from fuzzing.frames import unpack
from zmq_core import MalformedMessage, TargetKey, decode, encode

__all__ = ["Codec"]


class Codec:
    """`decode`, `encode` and `TargetKey.decode`."""

    structured = True
    longest = 4096

    def run(self, data: bytes) -> None:
        """Decode a message, and each of its frames as a key."""
        frames = unpack(data)
        try:
            envelope = decode(frames)
        except MalformedMessage as error:
            assert error.code is protocol.problem(frames), f"refused as {error.code!r}: {error}"
            told = error.message_id or bytes(16)
            assert told == protocol.id_of(frames), f"refused with id {told.hex()}: {error}"
        else:
            assert protocol.problem(frames) is None, f"taken for {envelope}"
            assert encode(envelope) == frames, f"{envelope} is encoded otherwise: {encode(envelope)}"
        for frame in frames:
            self._read_as_key(frame)

    def _read_as_key(self, frame: bytes) -> None:
        try:
            key = TargetKey.decode(frame)
        except MalformedMessage:
            assert not protocol.is_key(frame), f"{frame!r} is a key"
        else:
            assert key.encoded == frame, f"{key} is encoded otherwise: {key.encoded!r}"
            assert str(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None
