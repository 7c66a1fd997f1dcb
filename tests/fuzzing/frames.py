# SPDX-License-Identifier: Apache-2.0
"""A message as a fuzzer's input: one string of bytes for all its frames.

Each frame has its length in front, in two octets, big-endian; one that is said to be
longer than what is left is what is left.  So any bytes are some frames.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["from_text", "mutated", "pack", "to_text", "unpack"]

_LENGTH: Final = struct.Struct("!H")
_NO_OCTETS: Final = "-"
_MOST: Final = 0xFFFF
_FIELDS: Final = 12
"""Octets of a header before the id, each with a meaning."""
_OCTETS: Final = (0x00, 0x7F, 0x80, 0xFF)
_HEADER_WAYS: Final = 8


def pack(frames: Sequence[bytes]) -> bytes:
    """The input that stands for `frames`."""
    return b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames)


def unpack(data: bytes) -> list[bytes]:
    """The frames that `data` stands for."""
    frames = []
    while len(data) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(data)
        frames.append(data[_LENGTH.size : _LENGTH.size + length])
        data = data[_LENGTH.size + length :]
    return frames


def to_text(data: bytes) -> str:
    """The frames as the examples of docs/protocol.md show them: hexadecimal, `-` if empty."""
    return " ".join(frame.hex() or _NO_OCTETS for frame in unpack(data))


def from_text(text: str) -> bytes:
    """What `to_text` has made, or one with `00*4000` for 4000 octets."""
    return pack([_frame(word) for word in text.split()])


def _frame(word: str) -> bytes:
    octets, _, times = word.partition("*")
    return bytes.fromhex(octets.replace(_NO_OCTETS, "")) * int(times or 1)


def mutated(data: bytes, most: int, seed: int, mutate: Callable[[bytes, int], bytes]) -> bytes:
    """`data` with one frame changed by `mutate`, or a field of the header; or a frame elsewhere.

    Now and then `mutate` has the whole of it, lengths and all.  `most` is the longest result.
    """
    rng = random.Random(seed)
    frames = unpack(data)
    way = rng.randrange(12)
    if not frames or way == 0:
        return mutate(data, most)
    which = rng.randrange(len(frames))
    if way == 1:
        del frames[which]
    elif way == 2:
        frames.insert(which, frames[rng.randrange(len(frames))])
    elif way == 3:
        frames[which], frames[0] = frames[0], frames[which]
    elif way < _HEADER_WAYS and frames[0]:
        header = bytearray(frames[0])
        header[rng.randrange(min(len(header), _FIELDS))] = rng.choice((rng.randrange(10), *_OCTETS))
        frames[0] = bytes(header)
    else:
        room = most - len(data) + len(frames[which])
        frames[which] = mutate(frames[which], max(1, min(room, _MOST)))[:_MOST]
    return pack(frames)[:most]
