# SPDX-License-Identifier: Apache-2.0
"""The connection by which messages come from one publisher: a SUB to its backend."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Final

from zmq_core._lane import Lane
from zmq_core._linkcontext import LinkContext
from zmq_core._roster import Changed, ProxyEnd
from zmq_core._sockets import POLLIN, Socket, events_of, receive_whole

__all__ = ["Inlet"]

_READ_BATCH: Final = 100


class Inlet(Lane):
    """The way from one publisher.

    `filters` tells what to subscribe to, `take` gets what comes.  Nothing is read while
    the node's reception is full: the publisher then keeps what its queue holds, and
    counts that there was more.
    """

    def __init__(
        self,
        proxy: ProxyEnd,
        context: LinkContext,
        filters: Callable[[], Collection[bytes]],
        take: Callable[[Inlet, list[bytes]], None],
        changed: Changed[Inlet],
    ) -> None:
        self._filters = filters
        self._take = take
        self._subscribed: set[bytes] = set()
        # Nobody but the reactor's thread uses this socket.
        super().__init__(proxy, context, threading.Lock(), changed)
        context.reception.sources.append(self._resume)

    def subscribe(self) -> None:
        """Subscribe to what `filters` tells, and to nothing else.  On the reactor's thread."""
        socket = self._connection.socket
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

    def _resume(self) -> None:
        self._context.reactor.call_soon(self._look)

    def _look(self) -> None:
        """Take in a bounded part of what has come, if there is room for it."""
        socket = self._connection.socket
        if socket is None:
            return
        for _ in range(_READ_BATCH):
            if not events_of(socket) & POLLIN or self._context.reception.full:
                return
            self._take(self, receive_whole(socket))
        self._resume()

    def _finish(self) -> None:
        self._context.reception.sources.remove(self._resume)
        try:
            if self._connection.over:
                self._take_rest()
        finally:
            super()._finish()

    def _take_rest(self) -> None:
        """Take what came before the end, also beyond the bound: it is in memory already."""
        socket = self._connection.socket
        while socket is not None and events_of(socket) & POLLIN:
            self._take(self, receive_whole(socket))
