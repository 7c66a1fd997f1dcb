# SPDX-License-Identifier: Apache-2.0
"""One connection with one publisher: what both directions have in common."""

from __future__ import annotations

import abc
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from zmq_core._connection import Connection
from zmq_core._linkcontext import LinkContext
from zmq_core._roster import ProxyEnd
from zmq_core._sockets import Socket

__all__ = ["Lane"]


class Lane(abc.ABC):
    """A way to or from one publisher, for as long as the connection lives.

    `changed` is told, on the reactor's thread, that it is ready, has room again, or is
    closed.  `open` and `close` are thread-safe; what begins with an underscore is for
    the reactor's thread.  Whoever uses the socket holds `lock`.
    """

    def __init__(
        self,
        proxy: ProxyEnd,
        context: LinkContext,
        lock: contextlib.AbstractContextManager[Any],
        changed: Callable[[Any], None],
    ) -> None:
        self.proxy = proxy
        self.reason = ""
        """Why it was closed."""
        self.ready = False
        self.closed = False
        self._context = context
        self._changed = changed
        self._state_lock = threading.Lock()
        self._connection = Connection(
            proxy.endpoint,
            context,
            lock,
            self._make,
            on_readable=self._look,
            on_ready=self._connected,
            on_end=self.close,
        )

    @abc.abstractmethod
    def _make(self) -> Socket:
        """The socket, not connected yet."""

    @abc.abstractmethod
    def _look(self) -> None:
        """Something may have come, or there may be room again."""

    def open(self) -> None:
        """Begin to connect.  Resolves host names, on the caller's thread.

        :raises PeerUnreachable: the endpoint is none, or its name does not resolve.
        """
        try:
            self._connection.open()
        except BaseException as error:
            self.close(getattr(error, "reason", str(error)))
            raise

    def close(self, reason: str) -> None:
        """End it, after what it has taken was passed on.  Idempotent."""
        with self._state_lock:
            if self.closed:
                return
            self.ready, self.closed, self.reason = False, True, reason
        self._context.reactor.call_soon(self._finish)

    def _connected(self) -> None:
        with self._state_lock:
            self.ready = not self.closed
        self._changed(self)

    def _finish(self) -> None:
        try:
            self._changed(self)
        finally:
            self._connection.dispose()
