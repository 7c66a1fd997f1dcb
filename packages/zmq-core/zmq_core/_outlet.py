# SPDX-License-Identifier: Apache-2.0
"""The connection by which messages go to one publisher: a PUSH to its frontend."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from zmq_core._lane import Lane
from zmq_core._linkcontext import LinkContext
from zmq_core._roster import Changed, ProxyEnd
from zmq_core._sockets import Socket

__all__ = ["Outlet"]


class Outlet(Lane):
    """The way to one publisher.  Thread-safe."""

    def __init__(self, proxy: ProxyEnd, context: LinkContext, changed: Changed[Outlet]) -> None:
        super().__init__(proxy, context, threading.Lock(), changed)

    def send(self, frames: Sequence[bytes]) -> bool:
        """Hand over `[filter] [header] [key] [body]`; false if it is not taken."""
        return self.ready and self._connection.send(frames)

    def _make(self) -> Socket:
        return self._context.sockets.push()

    def _look(self) -> None:
        self._connection.rearm()
        self._changed(self)
