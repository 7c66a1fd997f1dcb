# SPDX-License-Identifier: Apache-2.0
"""The connection by which messages go to one publisher: a PUSH to its frontend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from zmq_core._connection import Connection
from zmq_core._linkcontext import LinkContext
from zmq_core._roster import ProxyEnd

__all__ = ["Outlet"]


class Outlet:
    """The way to one publisher, for as long as the connection lives.

    `changed` is told, on the reactor's thread, that it is ready, has room again, or is
    closed.  Thread-safe.
    """

    def __init__(
        self, proxy: ProxyEnd, context: LinkContext, changed: Callable[[Outlet], None]
    ) -> None:
        self.proxy = proxy
        self.reason = ""
        self.ready = False
        self.closed = False
        self._context = context
        self._changed = changed
        self._lock = threading.Lock()
        self._out = Connection(
            proxy.endpoint,
            context,
            self._lock,
            context.sockets.push,
            on_readable=self._on_room,
            on_ready=self._on_ready,
            on_end=self.close,
        )

    def open(self) -> None:
        """Begin to connect.  Resolves host names, on the caller's thread.

        :raises PeerUnreachable: the endpoint is none, or its name does not resolve.
        """
        try:
            self._out.open()
        except BaseException as error:
            self.close(getattr(error, "reason", str(error)))
            raise

    def send(self, frames: Sequence[bytes]) -> bool:
        """Hand over `[filter] [header] [key] [body]`; false if it is not taken."""
        return self.ready and self._out.send(frames)

    def close(self, reason: str) -> None:
        """End it, after what it has taken was sent.  Idempotent."""
        with self._lock:
            if self.closed:
                return
            self.ready, self.closed, self.reason = False, True, reason
        self._context.reactor.call_soon(self._finish)

    # -- on the reactor's thread -----------------------------------------------------

    def _on_ready(self) -> None:
        with self._lock:
            self.ready = not self.closed
        self._changed(self)

    def _on_room(self) -> None:
        self._out.rearm()
        self._changed(self)

    def _finish(self) -> None:
        self._changed(self)
        self._out.dispose()
