# SPDX-License-Identifier: Apache-2.0
"""What a node and its messages are called: names that nobody else uses."""

from __future__ import annotations

import itertools
import os
import struct
from typing import Final

__all__ = ["MessageIds", "default_identity"]

_COUNTER: Final = struct.Struct("!Q")


class MessageIds:
    """Ids of messages: a part that is random per node, and a count.  Thread-safe."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8)
        self._counter = itertools.count()

    def next(self) -> bytes:
        """An id that no other message of any node has."""
        return self._prefix + _COUNTER.pack(next(self._counter))


def default_identity(role: str) -> str:
    """A routing id that tells a reader of logs whose it is: host, process, role."""
    host = os.uname().nodename
    return f"{host}/{os.getpid()}/{role}/{os.urandom(3).hex()}"
