# SPDX-License-Identifier: Apache-2.0
"""One socket with one TCP connection, from the first try to connect until it has ended.

A connection does not come back: whoever wants another makes another.  So its end
is known, not guessed, and no reconnect can bring the peer's place to another
process behind our back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from zmq_core._address import Endpoint
from zmq_core._errors import ConfigurationError, PeerUnreachable, SocketLimitReached
from zmq_core._linkcontext import LinkContext
from zmq_core._reactor import Timer
from zmq_core._sockets import Socket, events_of, next_event, send_whole
from zmq_core._waiting import EndOfStream, met_itself

__all__ = ["Connection"]


class Connection:
    """The socket that `make` makes, connected to `endpoint`.

    Whoever uses `socket` holds `lock`; it is None before and after.  The three
    callbacks run on the reactor's thread, without the lock: `on_readable` when the
    socket's events may have changed, `on_ready` when the peer has shown that it
    speaks ZMTP, `on_end` with the reason when the connection failed or ended, maybe
    more than once.  The owner then calls `dispose`, there.
    """

    def __init__(
        self,
        endpoint: str,
        context: LinkContext,
        lock: contextlib.AbstractContextManager[Any],
        make: Callable[[], Socket],
        *,
        on_readable: Callable[[], None],
        on_ready: Callable[[], None],
        on_end: Callable[[str], None],
    ) -> None:
        self.endpoint = endpoint
        self.socket: Socket | None = None
        self.fd = -1
        self._context = context
        self._lock = lock
        self._make = make
        self._on_readable = on_readable
        self._on_ready = on_ready
        self._on_end = on_end
        self._addresses: list[Endpoint] = []
        self._tried = ""
        self._monitor: Socket | None = None
        self._end: EndOfStream | None = None
        self._limit: Timer | None = None
        self._ready = False
        self._disposed = False
        self.over = False
        """Whether it could not be made, or has ended."""

    def open(self) -> None:
        """Begin to connect.

        Resolves the host name, which may take its time, on the caller's thread.  The
        sockets are made on the reactor's: a signal handler that raises, as Ctrl-C
        does, could otherwise leave behind one that nobody will close, and for which
        the end of the context would wait for ever.

        :raises PeerUnreachable: the endpoint is none, or its name does not resolve.
        """
        try:
            self._addresses = Endpoint.parse(self.endpoint).resolve()
        except ConfigurationError as error:
            # Whoever wrote that endpoint into a record, another record may do.
            raise PeerUnreachable(self.endpoint, str(error)) from error
        self._context.reactor.call_soon(self._connect)

    def end_arrived(self) -> bool:
        """Whether the kernel knows of the connection's end already.  Under the lock."""
        return self._end is not None and self._end.reached()

    def send(self, frames: Sequence[bytes]) -> bool:
        """Hand over a message without blocking; false if it is not taken.  Takes the lock."""
        with self._lock:
            if self.socket is None or self.end_arrived():
                return False
            try:
                return send_whole(self.socket, frames)
            except zmq.ZMQError:
                return False  # the socket is being closed

    def rearm(self) -> None:
        """Have the descriptor tell of the next change, too.  Takes the lock."""
        with self._lock:
            if self.socket is not None:
                events_of(self.socket)

    def dispose(self) -> None:
        """Close the sockets.  On the reactor's thread; idempotent."""
        self._disposed = True
        with self._lock:
            socket, self.socket = self.socket, None
            monitor, self._monitor = self._monitor, None
        if self._limit is not None:
            self._limit.cancel()
        if socket is not None:
            self._context.reactor.unwatch(self.fd)
            # Before the other end is closed: libzmq's I/O thread would wait for ever to tell
            # that of an event, holding the lock that this needs.
            socket.disable_monitor()
        if monitor is not None:
            self._context.reactor.unwatch(int(monitor.get(zmq.FD)))
            monitor.close()
        if socket is not None:
            socket.close(0 if self.over else None)  # nothing can be sent any more

    # -- on the reactor's thread -----------------------------------------------------

    def _connect(self) -> None:
        """Make the sockets and try the first address."""
        if self._disposed:
            return
        try:
            with self._lock:
                self.socket = self._make()
                self._monitor = self._context.sockets.monitor(self.socket)
                self.fd = int(self.socket.get(zmq.FD))
                self._connect_next(self.socket)
                self._context.reactor.watch(int(self._monitor.get(zmq.FD)), self._on_monitor)
                self._context.reactor.watch(self.fd, self._on_readable)
        except (SocketLimitReached, zmq.ZMQError) as error:
            self._on_end(str(error))
            return
        # Both descriptors are edge-triggered: look once.
        self._on_monitor()
        self._on_readable()

    def _connect_next(self, socket: Socket) -> None:
        """Try the next address, for a limited time.  Under the lock.

        libzmq's own limits do not suffice.  To it a peer that begins with anything
        but a ZMTP greeting, such as a web server, is one of ZMTP 1.0, which had no
        handshake to wait for; and it says nothing when it has no descriptor left.
        """
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self._context.reactor.call_later(self._context.patience, self._give_up)
        if self._tried:
            socket.disconnect(self._tried)  # or messages would be queued for it, too
        self._tried = str(self._addresses.pop(0))
        socket.connect(self._tried)

    def _on_monitor(self) -> None:
        while self._monitor is not None and (told := next_event(self._monitor)):
            event, value = told
            if event == zmq.EVENT_CONNECTED:
                self._end = EndOfStream(value)
                if met_itself(value):
                    self._lost("nobody listens there")
                    return
            elif event == zmq.EVENT_CLOSED:
                self._connect_failed()
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._ready = True
                self._on_ready()
            elif self._ready:
                self._lost("the peer closed the connection, died or fell silent")
            else:
                self._lost("the peer ended the handshake; it may not be a node of this protocol")

    def _lost(self, reason: str) -> None:
        self.over = True
        self._on_end(reason)

    def _connect_failed(self) -> None:
        with self._lock:
            if self._addresses and self.socket is not None:
                self._connect_next(self.socket)
                return
        self._lost("connection refused, or not established in time")

    def _give_up(self) -> None:
        if not self._ready:
            self._lost("no ZMTP handshake in time; it may not be a node of this protocol")
