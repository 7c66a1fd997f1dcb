# SPDX-License-Identifier: Apache-2.0
"""One connection to one peer process, shared by all threads and topics.

A link lives exactly as long as its TCP connection: it is made when something
is to be sent, and closed for good when the connection fails or ends.  A later
message makes a new link.  So a link's end is known, not guessed; whatever was
still unanswered on it fails at that moment; and no reconnect can bring the
peer's place to another process behind our back.

Who reads: normally the node's I/O thread.  A thread whose request is the only
one out reads the answer itself, which saves two thread hand-overs; that costs
more than all other work of a call.  Meanwhile the I/O thread is told to leave
the descriptor alone.

Locking: every call to the DEALER is made under `_lock`; whoever has made one
looks at ZMQ_EVENTS before letting go, since the call may have consumed the
edge that would have woken the reader, and leaves what there is to the reader.
"""

from __future__ import annotations

import enum
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from zmq_core._connection import Connection
from zmq_core._envelope import ID_SIZE, Envelope, MessageType, encode
from zmq_core._errors import PeerLost, PeerUnreachable, QueueFull
from zmq_core._linkcontext import LinkContext
from zmq_core._outstanding import Answered, Outstanding
from zmq_core._pending import FOREVER, Inquiry, Patience, PendingRequest
from zmq_core._sockets import POLLIN, POLLOUT, Socket, events_of, receive_whole, send_whole

__all__ = ["Link", "LinkRetired"]

_READ_BATCH: Final = 50


class _State(enum.Enum):
    CONNECTING = enum.auto()
    READY = enum.auto()
    CLOSED = enum.auto()


class LinkRetired(PeerUnreachable):
    """The link was closed since nobody had used it for long: make another."""


class Link:
    """A connection to the peer at `endpoint`.  All methods are thread-safe."""

    def __init__(self, endpoint: str, context: LinkContext, closed: Callable[[Link], None]) -> None:
        self.endpoint = endpoint
        self._context = context
        self._closed = closed
        self._lock = threading.Lock()
        self._state = _State.CONNECTING
        self._reason = "closed"
        self._retiring = False
        """Whether the peer was asked if it has taken all, and has not answered yet."""
        self._retired = False
        self.used = time.monotonic()
        """When a message was last handed over."""
        self._outstanding = Outstanding(endpoint, context.statistics, context.log, self._take_back)
        self._scheduled = False
        self._blocked: list[threading.Lock] = []
        self._read_by_caller = False
        self._connection = Connection(
            endpoint,
            context,
            self._lock,
            context.sockets.dealer,
            on_readable=self._on_readable,
            on_ready=self._ready,
            on_end=self._ended,
        )

    def open(self) -> None:
        """Begin to connect; threads may be waiting to send already.

        :raises PeerUnreachable: the endpoint is none, or its name does not resolve.
        """
        try:
            self._connection.open()
        except BaseException as error:
            self.close(getattr(error, "reason", str(error)))
            raise

    def send(self, frames: Sequence[bytes], deadline: float) -> None:
        """Hand a message to the connection; block until `deadline` while it takes none.

        :raises PeerUnreachable: there is no connection.
        :raises QueueFull: the peer reads too slowly.
        """
        self._transmit(frames, deadline, None)

    def request(
        self,
        message_id: bytes,
        frames: Sequence[bytes],
        patience: Patience,
        send_deadline: float = FOREVER,
    ) -> Envelope:
        """Send a message, by `send_deadline`, and wait for its answer (a REPLY or an ACK).

        :raises NotDelivered: the peer has not taken it; see the subclasses.
        :raises PeerLost: the connection ended first.
        :raises RequestTimeout: out of patience.
        """
        pending = PendingRequest(patience)
        try:
            deadline = min(send_deadline, patience.deadline)
            if self._transmit(frames, deadline, (message_id, pending)):
                self._read(pending)
            else:
                pending.wait()
        except BaseException:
            self._schedule()  # a signal's handler may have raised where this looked at the socket
            raise
        finally:
            try:
                self._forget(message_id, pending)
            except BaseException:  # the same: or nobody would read any more
                self._forget(message_id, pending)
                raise
        if pending.outcome is None:
            raise patience.error(time.monotonic(), self.endpoint)
        if isinstance(pending.outcome, Envelope):
            return pending.outcome
        raise pending.outcome

    def close(self, reason: str) -> None:
        """End the link: what is unsent or unanswered fails.  Idempotent."""
        with self._lock:
            if self._state is _State.CLOSED:
                return
            was_ready = self._state is _State.READY
            self._state = _State.CLOSED
            self._reason = reason
            for request in self._outstanding.clear():
                request.complete(
                    PeerLost(self.endpoint, reason)
                    if was_ready or not self._context.immediate
                    else PeerUnreachable(self.endpoint, reason)
                )
            self._wake_blocked()
            # Under the lock: whoever finds the link closed knows that this is under
            # way, and may stop the reactor.
            self._context.reactor.call_soon(self._connection.dispose)
        self._closed(self)

    def retire(self, unused_since: float) -> bool:
        """Close the link if nothing was sent since then and nobody waits for an answer.

        What was sent may still lie in queues, since the peer does not read.  So it is
        asked (PROBE), and has taken everything when it answers; the link is closed then,
        unless it was used meanwhile.  Whether that is under way now, or it is closed.
        """
        with self._lock:
            if self._retiring or self._state is _State.CLOSED:
                return True
            if not self._idle() or self.used > unused_since:
                return False
            socket = self._connection.socket
            probe = Envelope(type=MessageType.PROBE, id=os.urandom(ID_SIZE))
            if socket is None or not self._may_send() or not send_whole(socket, encode(probe)):
                return False
            self._retiring = True
            used = self.used
            self._outstanding.add(probe.id, Inquiry(lambda: self._all_taken(used)))
            self._schedule()
            return True

    def _idle(self) -> bool:
        """Whether nothing is under way.  Under the lock."""
        busy = self._outstanding or self._blocked or self._read_by_caller
        return self._state is _State.READY and not busy

    def _all_taken(self, used: float) -> None:
        """The peer has taken all that was sent until `used`."""
        with self._lock:
            self._retiring = False
            if not self._idle() or self.used != used:
                return
            self._state = _State.CLOSED
            self._retired = True
            self._context.reactor.call_soon(self._connection.dispose)
        self._closed(self)

    # -- sending ---------------------------------------------------------------------

    def _transmit(
        self,
        frames: Sequence[bytes],
        deadline: float,
        request: tuple[bytes, PendingRequest] | None,
    ) -> bool:
        """Send; register `request` with it.  True if the caller is to read the answer."""
        while True:
            with self._lock:
                if self._state is _State.CLOSED:
                    kind = LinkRetired if self._retired else PeerUnreachable
                    raise kind(self.endpoint, self._reason)
                socket = self._connection.socket
                if socket is not None and self._may_send() and send_whole(socket, frames):
                    self.used = time.monotonic()
                    reads = request is not None and self._expect(*request)
                    if self._blocked or events_of(socket) & POLLIN:
                        self._schedule()
                    return reads
                gate = threading.Lock()
                gate.acquire()
                self._blocked.append(gate)
                if socket is not None:
                    self._schedule()
            self._wait_at(gate, deadline)

    def _may_send(self) -> bool:
        """Whether to hand libzmq a message now.  Under the lock.

        libzmq takes messages for a peer that died a moment ago until its I/O thread
        gets to read the end of the stream, which takes long on a busy machine.  A
        request lost like that could not be sent to another peer; so the kernel is
        asked, and whoever comes then waits here for the link to be closed.
        """
        if self._state is not _State.READY:
            return not self._context.immediate
        return not self._connection.end_arrived()

    def _wait_at(self, gate: threading.Lock, deadline: float) -> None:
        """Wait until it is worth trying to send again."""
        timeout = deadline - time.monotonic()
        if deadline == FOREVER:
            gate.acquire()
        elif timeout <= 0 or not gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            with self._lock:
                if gate in self._blocked:
                    self._blocked.remove(gate)
                if self._state is _State.CONNECTING:
                    raise PeerUnreachable(self.endpoint, "no connection before the deadline")
            raise QueueFull(self.endpoint, "its queue was still full at the deadline")

    def _expect(self, message_id: bytes, pending: PendingRequest) -> bool:
        alone = not self._outstanding and not self._read_by_caller
        self._outstanding.add(message_id, pending)
        pending.sign_of_life()  # the peer has had nothing to give signs of until now
        if alone:
            pending.waker = self._context.wakers.take()
        if pending.waker is None:
            return False
        pending.reader = threading.get_ident()
        self._read_by_caller = True
        self._context.reactor.mute(self._connection.fd)
        return True

    def _forget(self, message_id: bytes, pending: PendingRequest) -> None:
        """Undo `_expect`, however the wait ended.  Can be done twice."""
        waker = pending.waker
        if waker is None and pending.outcome is not None:
            return
        with self._lock:
            self._outstanding.forget(message_id)
            if waker is not None:
                self._read_by_caller = False
                if self._state is not _State.CLOSED:
                    self._context.reactor.unmute(self._connection.fd)
                pending.waker = None
        if waker is not None:
            self._context.wakers.give_back(waker)

    def _wake_blocked(self) -> None:
        while self._blocked:
            self._blocked.pop(0).release()

    # -- receiving -------------------------------------------------------------------

    def _read(self, pending: PendingRequest) -> None:
        """Read the link on the calling thread until `pending` is answered or out of patience."""
        waker = pending.waker
        if waker is None:
            return
        waker.watch(self._connection.fd)
        try:
            while pending.outcome is None:
                left = pending.patience.left(time.monotonic())
                if left <= 0:
                    return
                waker.wait(None if left == FOREVER else left)
                self._on_readable()
        finally:
            waker.unwatch(self._connection.fd)

    def _schedule(self) -> None:
        """Have the I/O thread look, although the descriptor may say nothing new."""
        if not self._scheduled:
            self._scheduled = True
            self._context.reactor.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        self._scheduled = False
        self._take_input(_READ_BATCH)

    def _take_input(self, most: int) -> None:
        """Take input, and notice whether there is room for output."""
        answered: list[Answered] = []
        try:
            with self._lock:
                if self._connection.socket is not None:
                    self._look(self._connection.socket, most, answered)
        finally:
            # Not under the lock, where the threads that wake would stop at once; and also if
            # the handler of a signal raised, since the answers are others'.
            for pending, outcome in answered:
                pending.complete(outcome)

    def _look(self, socket: Socket, most: int, answered: list[Answered]) -> None:
        """Take up to `most` messages; `answered` gets whom they complete.  Under the lock."""
        events = events_of(socket)
        taken = 0
        while events & POLLIN and taken < most:
            outcome = self._outstanding.take(receive_whole(socket))
            if outcome is not None:
                answered.append(outcome)
            events = events_of(socket)
            taken += 1
        if events & POLLIN:
            # Others' turn: a thousand answers at once must not stop eventlet's hub.
            self._schedule()
        if self._blocked and events & POLLOUT and self._may_send():
            self._wake_blocked()

    def _take_back(self, message: Envelope) -> None:
        # Not here, under the lock: the application may well send it on over this link.
        self._context.reactor.call_soon(
            functools.partial(self._context.returned, self.endpoint, message)
        )

    # -- the connection itself -------------------------------------------------------

    def _ready(self) -> None:
        with self._lock:
            if self._state is _State.CONNECTING:
                self._state = _State.READY
                self._wake_blocked()

    def _ended(self, reason: str) -> None:
        try:
            self._take_input(sys.maxsize)  # what came in before the end still counts
        finally:
            self.close(reason)
