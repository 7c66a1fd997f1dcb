# SPDX-License-Identifier: Apache-2.0
"""Keys and records as text, for backends that keep text."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec

from zmq_matchmaker._model import Key, Record

__all__ = ["decode_record", "encode_key", "encode_record", "escape"]

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder(Record).decode


def escape(part: str) -> str:
    """`part` without any separator: fit for a piece of a Redis key or a file name.

    Injective, and never empty, `.` or `..`.
    """
    return quote(part, safe="", errors="surrogatepass").replace(".", "%2E") or "%"


def encode_key(key: Key, separator: str = ":") -> str:
    """The key as one string; different keys give different strings."""
    return separator.join(escape(part) for part in key)


def encode_record(record: Record) -> bytes:
    """The record as JSON, always the same bytes for equal records."""
    return _encode(record)


def decode_record(data: bytes) -> Record | None:
    """The record in `data`, or None if there is none."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
