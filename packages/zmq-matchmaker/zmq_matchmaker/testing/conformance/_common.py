# SPDX-License-Identifier: Apache-2.0
"""What the tests of the contract share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._model import Key, Record, Role

__all__ = ["KEY", "NOBODY", "ODD_NAMES", "Connect", "records_of", "some_record", "until"]

Connect = Callable[[], Matchmaker]

ODD_NAMES: Final = (
    "",
    ".",
    "..",
    "a",
    "A",
    "a.b",
    "a:b",
    "a/b",
    "a%2Fb",
    "a%b",
    "a b",
    "host@lvm",
    "cinder-volume.host@lvm",
    "é",
    "e\u0301",
    "漢字",
    "\x00\n\\*?[]{}",
    "x" * 300,
)
"""Names that a careless backend confuses with each other, or with its separators."""

_DEADLINE: Final = 10.0
KEY: Final = Key(Role.LISTENER, "openstack", "conductor")
NOBODY: Final = Key(Role.LISTENER, "conformance", "nobody listens here")


def some_record(number: int = 1, **fields: Any) -> Record:
    return Record(endpoint=f"tcp://127.0.0.1:{50000 + number}", **fields)


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {_DEADLINE:g} s: {what}"
        time.sleep(0.01)


def records_of(matchmaker: Matchmaker, key: Key) -> tuple[Record, ...]:
    [records] = matchmaker.lookup([key])
    return records
