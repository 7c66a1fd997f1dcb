# SPDX-License-Identifier: Apache-2.0
"""The listening side of a node: one ROUTER for all its topics.

Messages are read by the I/O thread in bounded batches; answers are sent by
whichever thread has them or holds the socket's lock (`Outbox`).  When a listener's queue is
full the message that did not fit is kept and nothing more is read until there
is room: the high-water marks and TCP carry that back to the senders.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from zmq_core._address import BindAddress
from zmq_core._binding import bind_in_range
from zmq_core._envelope import ID_SIZE, Envelope, MessageType, decode, encode
from zmq_core._errors import MalformedMessage, NackCode
from zmq_core._inbox import Directory
from zmq_core._incoming import Incoming
from zmq_core._options import NodeOptions, check_size
from zmq_core._outbox import GONE, Outbox
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._reactor import Reactor
from zmq_core._sockets import (
    NOTHING,
    POLLIN,
    SocketFactory,
    events_of,
    receive_whole,
)
from zmq_core._statistics import Statistics

__all__ = ["Frontend"]

LOG = logging.getLogger(__name__)

_READ_BATCH: Final = 100
_HELD_MOST: Final = 1000
_ACCEPTED: Final = frozenset(
    {MessageType.CALL, MessageType.CAST, MessageType.FANOUT, MessageType.NOTIFY}
)


class Frontend:
    """A bound ROUTER and the listeners behind it.  `answer` is thread-safe."""

    def __init__(
        self,
        sockets: SocketFactory,
        options: NodeOptions,
        address: BindAddress,
        reactor: Reactor,
        directory: Directory,
        statistics: Statistics,
    ) -> None:
        self._options = options
        self._reactor = reactor
        self._directory = directory
        self._statistics = statistics
        self._log = RateLimitedLog(LOG)
        self._held: deque[Callable[[], bool]] = deque()
        self._scheduled = False
        self._paused = False
        self._closed = False
        self._pid = os.getpid()
        self._socket = sockets.router()
        try:
            self.port = bind_in_range(self._socket, address, options)
        except BaseException:
            self._socket.close(0)
            raise
        # Peers that wait for a sign of life; what is read only to learn of more is bounded.
        self._heard: dict[bytes, None] = {}
        self._ticking = False
        self._outbox = Outbox(self._socket, reactor, statistics, self._log, self._input_waits)
        self._fd = int(self._socket.get(zmq.FD))
        reactor.watch(self._fd, self._on_readable)
        self.resume()

    # -- receiving, on the reactor's thread ------------------------------------------

    def resume(self) -> None:
        """Look at the socket and at the messages that wait for room.  Any thread."""
        if not self._scheduled and self._pid == os.getpid():
            self._scheduled = True
            self._reactor.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        self._scheduled = False
        if self._closed or not self._deliver_held():
            return
        if self._paused:
            self._paused = False
            self._reactor.unmute(self._fd)
        if self._read_batch():
            self.resume()

    def _read_batch(self) -> bool:
        """Take a bounded number of messages; true if there may be more."""
        batch: list[list[bytes]] = []
        with self._outbox.lock:
            more = events_of(self._socket) & POLLIN
            while more and len(batch) < _READ_BATCH:
                batch.append(receive_whole(self._socket))
                more = events_of(self._socket) & POLLIN
        for frames in batch:
            self._take(frames)
        if not self._held:
            return bool(more)
        self._paused = True
        self._reactor.mute(self._fd)
        return False

    def _give_signs(self) -> None:
        """Tell the peers that were heard of lately that this node lives.

        A peer whose connection is not read, or that has megabytes on their way,
        gets no answer to its ZMTP heartbeats; any message stands for one.
        """
        if self._closed:
            return
        if self._held:
            self._learn_of_others()
        sign = encode(Envelope(type=MessageType.HEARTBEAT, id=bytes(ID_SIZE)))
        with self._outbox.lock:
            gone = [peer for peer in self._heard if self._outbox.send_now(peer, sign) == GONE]
            self._outbox.look()
        if self._held:
            for peer in gone:
                del self._heard[peer]
        else:
            self._heard.clear()
        self._ticking = bool(self._heard or self._held)
        if self._ticking:
            self._reactor.call_later(self._options.heartbeat_interval, self._give_signs)

    def _learn_of_others(self) -> None:
        """Read on although there is no room, one message of each peer that has sent some.

        libzmq takes them from the connections in turn, so the second of one
        peer ends the round.
        """
        seen: set[bytes] = set()
        while len(self._held) < _HELD_MOST:
            with self._outbox.lock:
                if not events_of(self._socket) & POLLIN:
                    return
                frames = receive_whole(self._socket)
            self._take(frames)
            if frames[0] in seen:
                return
            seen.add(frames[0])

    def _take(self, frames: list[bytes]) -> None:
        self._statistics.received += 1
        peer = frames[0]
        self._heard[peer] = None
        if not self._ticking:
            self._ticking = True
            self._reactor.call_later(self._options.heartbeat_interval, self._give_signs)
        if frames[1:] == NOTHING:
            self._statistics.malformed += 1
            return
        try:
            envelope = decode(frames[1:])
        except MalformedMessage as error:
            self._refuse_malformed(peer, error)
            return
        if envelope.type not in _ACCEPTED:
            self._statistics.misdirected += 1
            self._log.warning(
                ("misdirected", peer),
                "dropped a %s from %r: nothing was asked of it",
                envelope.type.name,
                peer,
            )
            return
        if envelope.type is MessageType.FANOUT:
            self._take_fanout(peer, envelope)
        else:
            incoming = Incoming(peer, envelope, self)
            self._deliver(lambda: self._dispatch(incoming))

    def _take_fanout(self, peer: bytes, envelope: Envelope) -> None:
        inboxes = self._directory.find(envelope.type, envelope.key)
        if not inboxes:
            self._refuse_unknown(Incoming(peer, envelope, self))
        for inbox in inboxes:
            copy = Incoming(peer, envelope, self)
            self._deliver(functools.partial(inbox.settle, copy))

    def _dispatch(self, incoming: Incoming) -> bool:
        """Hand over or refuse; false if it must wait for room in a queue."""
        inboxes = self._directory.find(incoming.envelope.type, incoming.envelope.key)
        if not inboxes:
            self._refuse_unknown(incoming)
            return True
        return any(inbox.offer(incoming) for inbox in inboxes)

    def _deliver(self, attempt: Callable[[], bool]) -> None:
        """Deliver now, or, behind what already waits, as soon as there is room."""
        if self._held or not attempt():
            self._held.append(attempt)

    def _deliver_held(self) -> bool:
        """Deliver what did not fit before; false if there is still no room."""
        while self._held:
            if not self._held[0]():
                return False
            self._held.popleft()
        return True

    def _refuse_unknown(self, incoming: Incoming) -> None:
        self._statistics.unknown_key += 1
        self._log.warning(
            ("unknown", incoming.envelope.key),
            "refused a %s from %r for %s: nobody listens on that here; the sender's route is stale",
            incoming.envelope.type.name,
            incoming.peer,
            incoming.key,
        )
        self.answer(incoming.peer, incoming.envelope.refused(NackCode.UNKNOWN_KEY))

    def _refuse_malformed(self, peer: bytes, error: MalformedMessage) -> None:
        self._statistics.malformed += 1
        self._log.warning(("malformed", peer), "refused a message from %r: %s", peer, error)
        message_id = error.message_id or bytes(ID_SIZE)
        nack = Envelope(type=MessageType.NACK, id=message_id, code=error.code)
        self.answer(peer, nack)

    # -- answering, on any thread ----------------------------------------------------

    def answer(self, peer: bytes, envelope: Envelope, *, patience: float = 0.0) -> bool:
        """Send `envelope` to `peer`, trying again for `patience` s while its queue is full.

        Does not block.  Returns false if it is known by now that the peer does not
        get it; what cannot be sent is counted and logged.

        :raises MessageTooLarge: the peer would cut the connection for it.
        """
        check_size(envelope.body, self._options)
        if self._pid != os.getpid():
            return False  # a fork's copy: the peer is the parent's
        return self._outbox.put(peer, envelope, patience)

    def _input_waits(self) -> None:
        if not self._paused:
            self.resume()

    def close(self) -> None:
        """Refuse what has come in but belongs to nobody any more, then close.

        On the reactor's thread, after all listeners were removed.  What peers go on
        sending is read for no longer than `linger`.
        """
        deadline = time.monotonic() + self._options.linger
        try:
            while self._deliver_held() and self._read_batch() and time.monotonic() < deadline:
                continue
        finally:
            with self._outbox.lock:
                self._closed = self._outbox.closed = True
                self._reactor.unwatch(self._fd)
                self._socket.close(int(max(0.0, deadline - time.monotonic()) * 1000))
