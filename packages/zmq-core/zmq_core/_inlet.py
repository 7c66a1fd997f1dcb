# SPDX-License-Identifier: Apache-2.0
"""The connection by which messages come from one publisher: a SUB to its backend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Final

from zmq_core._connection import Connection
from zmq_core._linkcontext import LinkContext
from zmq_core._roster import ProxyEnd
from zmq_core._sockets import POLLIN, Socket, events_of, receive_whole

__all__ = ["Inlet"]

_READ_BATCH: Final = 100


class Inlet:
    """The way from one publisher, for as long as the connection lives.

    Everything but the constructor, `open`, `close` and `look` is for the reactor's
    thread.  It reads nothing while the node's reception is full: the publisher then
    keeps what its queue holds, and counts what that does not.

    `filters` tells what to subscribe to, `take` gets what comes; `changed` is told that
    this is ready or closed.
    """

    def __init__(
        self,
        proxy: ProxyEnd,
        context: LinkContext,
        filters: Callable[[], Collection[bytes]],
        take: Callable[[Inlet, list[bytes]], None],
        changed: Callable[[Inlet], None],
    ) -> None:
        self.proxy = proxy
        self.reason = ""
        self.ready = False
        self.closed = False
        self._context = context
        self._filters = filters
        self._take = take
        self._changed = changed
        self._subscribed: set[bytes] = set()
        self._lock = threading.Lock()
        self._in = Connection(
            proxy.endpoint,
            context,
            threading.Lock(),  # nobody but the reactor's thread uses this socket
            self._make,
            on_readable=self.look,
            on_ready=self._on_ready,
            on_end=self.close,
        )
        context.reception.sources.append(self.look)

    def open(self) -> None:
        """Begin to connect.  Resolves host names, on the caller's thread.

        :raises PeerUnreachable: the endpoint is none, or its name does not resolve.
        """
        try:
            self._in.open()
        except BaseException as error:
            self.close(getattr(error, "reason", str(error)))
            raise

    def close(self, reason: str) -> None:
        """End it.  Idempotent, any thread."""
        with self._lock:
            if self.closed:
                return
            self.ready, self.closed, self.reason = False, True, reason
        self._context.reactor.call_soon(self._finish)

    def subscribe(self) -> None:
        """Subscribe to what `filters` tells, and to nothing else any more."""
        socket = self._in.socket
        if socket is not None:
            self._subscribe(socket)

    def _subscribe(self, socket: Socket) -> None:
        wanted = set(self._filters())
        for one in wanted - self._subscribed:
            socket.subscribe(one)
        for one in self._subscribed - wanted:
            socket.unsubscribe(one)
        self._subscribed = wanted

    def _make(self) -> Socket:
        socket = self._context.sockets.subscriber()
        self._subscribe(socket)
        return socket

    def _on_ready(self) -> None:
        with self._lock:
            self.ready = not self.closed
        self._changed(self)

    def look(self) -> None:
        """Take in a bounded part of what has come, if there is room for it."""
        socket = self._in.socket
        if socket is None:
            return
        for _ in range(_READ_BATCH):
            if not events_of(socket) & POLLIN or self._context.reception.full:
                return
            self._take(self, receive_whole(socket))
        self._context.reactor.call_soon(self.look)

    def _finish(self) -> None:
        socket = self._in.socket
        while socket is not None and events_of(socket) & POLLIN:
            self._take(self, receive_whole(socket))
        self._context.reception.sources.remove(self.look)
        self._changed(self)
        self._in.dispose()
