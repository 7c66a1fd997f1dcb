# SPDX-License-Identifier: Apache-2.0
"""The two connections to one proxy: a PUSH to its frontend, a DEALER to its backend.

What goes out over the first says whom it is for; what comes in by the second was
for us, requests as well as answers.  So it is always read: were it left unread
for a listener that is full, the answers that its handlers wait for would lie
behind the requests (docs/protocol.md, section 8).
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from zmq_core._connection import Connection
from zmq_core._envelope import ID_SIZE, Envelope, MessageType, encode
from zmq_core._linkcontext import LinkContext
from zmq_core._roster import ProxyAddress
from zmq_core._sockets import POLLIN, events_of, receive_whole

__all__ = ["Uplink"]

_READ_BATCH: Final = 100
_KNOCK_INTERVAL: Final = 0.05
_FAREWELL: Final = 0.5
"""Seconds for which requests that still come are refused by a process that closes."""
_KNOCK: Final = encode(Envelope(type=MessageType.HEARTBEAT, id=bytes(ID_SIZE)))


class _State(enum.Enum):
    CONNECTING = enum.auto()
    READY = enum.auto()
    CLOSED = enum.auto()


class Uplink:
    """The way to and from one proxy, for as long as both connections live.

    It is ready when a message to ourselves has come back: then the proxy forwards,
    and knows us.  `take` gets what comes in, on the reactor's thread; `changed` is
    told, there too, that the uplink is ready, has room again, or is closed.
    `send` and `close` are thread-safe.
    """

    def __init__(
        self,
        proxy: ProxyAddress,
        context: LinkContext,
        name: bytes,
        take: Callable[[Uplink, list[bytes]], None],
        changed: Callable[[Uplink], None],
    ) -> None:
        self.proxy = proxy
        self.reason = ""
        """Why it was closed."""
        self._context = context
        self._name = name
        self._take = take
        self._changed = changed
        self._state = _State.CONNECTING
        self._lock = threading.Lock()
        self._connected = 0
        self._finishing = False
        sockets = context.sockets
        self._out = Connection(
            proxy.frontend,
            context,
            self._lock,
            sockets.push,
            on_readable=self._on_room,
            on_ready=self._half_connected,
            on_end=self.close,
        )
        self._in = Connection(
            proxy.backend,
            context,
            threading.Lock(),  # nobody but the reactor's thread uses this socket
            sockets.inlet,
            on_readable=self._on_readable,
            on_ready=self._half_connected,
            on_end=self.close,
        )

    @property
    def ready(self) -> bool:
        """Whether messages can be sent, and come in."""
        return self._state is _State.READY

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._state is _State.CLOSED

    def open(self) -> None:
        """Begin to connect.  Resolves host names, on the caller's thread.

        :raises PeerUnreachable: an endpoint is none, or its name does not resolve.
        """
        try:
            self._out.open()
            self._in.open()
        except BaseException as error:
            self.close(getattr(error, "reason", str(error)))
            raise
        self._context.reactor.call_later(2 * self._context.patience, self._give_up)

    def send(self, frames: Sequence[bytes]) -> bool:
        """Hand over `[destination] [own name] [header] [key] [body]`; false if it is not taken."""
        return (self.ready or self._finishing) and self._out.send(frames)

    def close(self, reason: str) -> None:
        """End it: nothing more is sent but answers to what has come in.  Idempotent."""
        with self._lock:
            if self._state is _State.CLOSED:
                return
            self._state = _State.CLOSED
            self.reason = reason
        self._context.reactor.call_soon(self._finish)

    # -- on the reactor's thread -----------------------------------------------------

    def _half_connected(self) -> None:
        self._connected += 1
        if self._connected == 2:
            self._knock()

    def _knock(self) -> None:
        """Send a message to ourselves, until one has come back."""
        if self._state is _State.CONNECTING:
            self._out.send([self._name, self._name, *_KNOCK])
            self._context.reactor.call_later(_KNOCK_INTERVAL, self._knock)

    def _give_up(self) -> None:
        if self._state is _State.CONNECTING:
            self.close("it takes connections but does not forward; is it a proxy?")

    def _on_room(self) -> None:
        self._out.rearm()
        self._changed(self)

    def _on_readable(self) -> None:
        socket = self._in.socket
        if socket is None:
            return
        for _ in range(_READ_BATCH):
            if not events_of(socket) & POLLIN:
                return
            frames = receive_whole(socket)
            if frames[0] == self._name and frames[1:] == _KNOCK:
                self._came_back()
            else:
                self._take(self, frames)
        self._context.reactor.call_soon(self._on_readable)

    def _came_back(self) -> None:
        with self._lock:
            if self._state is not _State.CONNECTING:
                return
            self._state = _State.READY
        self._changed(self)

    def _finish(self) -> None:
        try:
            self._take_rest()
            self._changed(self)
        finally:
            self._in.dispose()
            self._out.dispose()

    def _take_rest(self) -> None:
        """Take what has come in, to refuse it if need be; more may come all the time."""
        deadline = time.monotonic() + _FAREWELL
        socket = self._in.socket
        self._finishing = True
        try:
            while socket is not None and events_of(socket) & POLLIN:
                self._take(self, receive_whole(socket))
                if time.monotonic() > deadline and not self._in.over:
                    return
        finally:
            self._finishing = False
