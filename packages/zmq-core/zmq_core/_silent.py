# SPDX-License-Identifier: Apache-2.0
"""Peers behind proxies that gave no sign of life when they should have.

A direct connection to such a peer has ended, and whether it is back is found out by
connecting again.  The proxies may be connected to it all the same (it was stopped, or
a cable was pulled), so it is asked before it is trusted with anything.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from zmq_core._latch import Latch

__all__ = ["SilentPeers"]

_REMEMBERED: Final = 4096


class SilentPeers:
    """By routing id.  Thread-safe.  Asks nobody: `suspect` tells whom to ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._peers: OrderedDict[bytes, Latch] = OrderedDict()

    def add(self, peer: bytes) -> None:
        """`peer` does not answer.  Of too many, the one that was added first is forgotten."""
        with self._lock:
            self._peers.setdefault(peer, Latch())
            forgotten = self._peers.popitem(last=False)[1] if self._full else None
        if forgotten is not None:
            forgotten.set()

    @property
    def _full(self) -> bool:
        return len(self._peers) > _REMEMBERED

    def heard(self, peer: bytes) -> None:
        """Something has come from `peer`."""
        if self._peers:
            with self._lock:
                heard = self._peers.pop(peer, None)
            if heard is not None:
                heard.set()

    def suspect(self, peer: bytes) -> Latch | None:
        """If `peer` is silent, what is set when it has been heard."""
        return self._peers.get(peer)

    def clear(self) -> None:
        """Forget all, and let go of those who wait for one."""
        with self._lock:
            all_heard = list(self._peers.values())
            self._peers.clear()
        for heard in all_heard:
            heard.set()
