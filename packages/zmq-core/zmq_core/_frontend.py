# SPDX-License-Identifier: Apache-2.0
"""The listening side of a node: one ROUTER for all its topics.

Messages are read by the I/O thread in bounded batches and brought to the node's
`Reception`; answers are sent by whichever thread has them or holds the socket's
lock (`Outbox`).
"""

from __future__ import annotations

import logging
import os
import time
from typing import Final

import zmq

from zmq_core._address import BindAddress
from zmq_core._binding import bind_in_range
from zmq_core._envelope import ID_SIZE, Envelope, MessageType, encode
from zmq_core._newcomers import Newcomers
from zmq_core._options import NodeOptions, check_size
from zmq_core._outbox import GONE, Outbox
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._reactor import Reactor
from zmq_core._reception import Reception
from zmq_core._sockets import POLLIN, SocketFactory, events_of, next_event, receive_whole
from zmq_core._statistics import Statistics

__all__ = ["Frontend"]

LOG = logging.getLogger(__name__)

_READ_BATCH: Final = 100


class Frontend:
    """A bound ROUTER that brings messages to `reception`.  `answer` is thread-safe."""

    def __init__(
        self,
        sockets: SocketFactory,
        options: NodeOptions,
        address: BindAddress,
        reactor: Reactor,
        reception: Reception,
        statistics: Statistics,
    ) -> None:
        self._options = options
        self._reactor = reactor
        self._reception = reception
        self._statistics = statistics
        self._log = RateLimitedLog(LOG)
        self._scheduled = False
        self._paused = False
        self._closed = False
        self._pid = os.getpid()
        self._socket = sockets.router()
        try:
            self.port = bind_in_range(self._socket, address, options)
            self._monitor = sockets.monitor(self._socket, Newcomers.EVENTS)
        except BaseException:
            self._socket.close(0)
            raise
        self._newcomers = Newcomers(LOG)
        # Peers that wait for a sign of life; what is read only to learn of more is bounded.
        self._heard: dict[bytes, None] = {}
        self._ticking = False
        self._outbox = Outbox(self._socket, reactor, statistics, self._log, self._input_waits)
        self._fd = int(self._socket.get(zmq.FD))
        reactor.watch(self._fd, self._on_readable)
        reactor.watch(int(self._monitor.get(zmq.FD)), self._on_newcomer)
        reactor.call_soon(self._on_newcomer)
        reception.sources.append(self.resume)
        self.resume()

    # -- receiving, on the reactor's thread ------------------------------------------

    def resume(self) -> None:
        """Look at the socket.  Any thread."""
        if not self._scheduled and self._pid == os.getpid():
            self._scheduled = True
            self._reactor.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        self._scheduled = False
        if self._closed or self._reception.full:
            return
        if self._paused:
            self._paused = False
            self._reactor.unmute(self._fd)
        if self._read_batch():
            self.resume()

    def _read_batch(self) -> bool:
        """Take a bounded number of messages; true if there may be more."""
        batch: list[list[bytes]] = []
        room = self._reception.room
        with self._outbox.lock:
            more = events_of(self._socket) & POLLIN
            while more and len(batch) < _READ_BATCH and room > 0:
                batch.append(frames := receive_whole(self._socket))
                room -= len(frames[-1])
                more = events_of(self._socket) & POLLIN
        for frames in batch:
            self._take(frames)
        if not self._reception.full:
            return bool(more)
        self._paused = True
        self._reactor.mute(self._fd)
        return False

    def _on_newcomer(self) -> None:
        while not self._closed and (told := next_event(self._monitor)):
            self._newcomers.take(*told, self.port)
        self._statistics.turned_away = self._newcomers.turned_away

    def _give_signs(self) -> None:
        """Tell the peers that were heard of lately that this node lives.

        A peer whose connection is not read, or that has megabytes on their way,
        gets no answer to its ZMTP heartbeats; any message stands for one.
        """
        if self._closed:
            return
        if self._reception.full:
            self._learn_of_others()
        sign = encode(Envelope(type=MessageType.HEARTBEAT, id=bytes(ID_SIZE)))
        with self._outbox.lock:
            gone = [peer for peer in self._heard if self._outbox.send_now(peer, sign) == GONE]
            self._outbox.look()
        if self._reception.full:
            for peer in gone:
                del self._heard[peer]
        else:
            self._heard.clear()
        self._ticking = bool(self._heard or self._reception.full)
        if self._ticking:
            self._reactor.call_later(self._options.heartbeat_interval, self._give_signs)

    def _learn_of_others(self) -> None:
        """Read on although there is no room, one message of each peer that has sent some.

        libzmq takes them from the connections in turn, so the second of one
        peer ends the round.
        """
        seen: set[bytes] = set()
        while not self._reception.holds(2):
            with self._outbox.lock:
                if not events_of(self._socket) & POLLIN:
                    return
                frames = receive_whole(self._socket)
            self._take(frames)
            if frames[0] in seen:
                return
            seen.add(frames[0])

    def _take(self, frames: list[bytes]) -> None:
        self._heard[frames[0]] = None
        if not self._ticking:
            self._ticking = True
            self._reactor.call_later(self._options.heartbeat_interval, self._give_signs)
        self._reception.take(frames, self)

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
        if self._reception.requests:
            peer = self._reception.requests.answered(peer, envelope, time.monotonic())
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
            self._reception.deliver_held()
            while self._read_batch() and time.monotonic() < deadline:
                continue
        finally:
            with self._outbox.lock:
                self._closed = self._outbox.closed = True
                self._reactor.unwatch(self._fd)
                self._reactor.unwatch(int(self._monitor.get(zmq.FD)))
                self._socket.disable_monitor()  # before the other end is closed: see Connection
                self._monitor.close()
                self._newcomers.close()
                self._socket.close(int(max(0.0, deadline - time.monotonic()) * 1000))
