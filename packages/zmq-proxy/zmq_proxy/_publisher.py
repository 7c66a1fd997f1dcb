# SPDX-License-Identifier: Apache-2.0
"""The publisher: each message goes to all who have subscribed to it.

`[filter] [header] [key] [body]` comes in, and the backend, a PUB, sends it as it is to
each peer with a subscription that the filter begins with.  When one of them does not
read and its queue is full, the backend refuses the message, so that this can be
counted and told; then it is sent to the others.  From then on libzmq leaves that peer
out, silently, until it has read half of its queue.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

import zmq

from zmq_core import MalformedMessage, TargetKey
from zmq_proxy._forwarder import Forwarder
from zmq_proxy._observer import Observer
from zmq_proxy._sockets import Socket, SocketFactory
from zmq_proxy._traffic import PUBLISHED

__all__ = ["Publisher", "PublisherStatistics", "send_to_those_who_read"]


@dataclass(slots=True)
class PublisherStatistics:
    """Counters since the start, of what not everybody gets."""

    stalls: int = 0
    """Times that a subscriber's queue was full: it misses what comes until half is free."""
    malformed: int = 0
    """Of these, those that were no messages of the protocol, and that nobody got."""


class Publisher(Forwarder):
    """Forwards from a PULL to a PUB.  Ports are 0 for random ones.

    What it passes on is counted if it is `observed`.

    :raises InvalidConfiguration: a port or address cannot be bound; names the option.
    """

    def __init__(
        self,
        sockets: SocketFactory,
        frontend_port: int,
        backend_port: int,
        *,
        observed: bool = False,
    ) -> None:
        secret = b"\xff" + uuid.uuid4().bytes + uuid.uuid4().bytes  # no subscription begins so
        frontend, backend = sockets.pull(), sockets.publisher()
        self._stuffed_peer = sockets.stuffed_peer(backend, secret)
        self.frontend_endpoint = sockets.bind(frontend, frontend_port, "publisher_frontend_port")
        self.backend_endpoint = sockets.bind(backend, backend_port, "publisher_port")
        control = sockets.control(frontend)
        observer = Observer("publisher", sockets, secret, PUBLISHED) if observed else None
        super().__init__("zmq-proxy-publisher", frontend, backend, control, secret, observer)
        self._statistics = PublisherStatistics()

    @property
    def statistics(self) -> PublisherStatistics:
        """A copy of the counters."""
        return replace(self._statistics)

    def _refused(self, why: int, rest: list[bytes]) -> None:
        self._statistics.stalls += 1
        try:
            # The filter, which is gone, was the encoded key.
            key = TargetKey.decode(rest[1]) if len(rest) == 3 else None
        except MalformedMessage:
            key = None
        self._tap.rest(rest, passed=key is not None)
        if key is None:
            # Or a node's message to itself, which is repeated until it comes back.
            self._statistics.malformed += 1
            return
        self._log.warning("stalled", "a subscriber of %s does not read, and misses messages", key)
        send_to_those_who_read(self.backend, [key.encoded, *rest])

    def _tidy(self) -> None:
        """Nothing: what subscribers send, libzmq takes in."""

    def _close_data(self, linger: float) -> None:
        super()._close_data(linger)
        self._stuffed_peer.close(0)


def send_to_those_who_read(backend: Socket, frames: list[bytes]) -> None:
    """Send a message to those subscribers of `backend` that have room for it."""
    backend.set(zmq.XPUB_NODROP, 0)
    try:
        backend.send_multipart(frames, zmq.NOBLOCK)
    finally:
        backend.set(zmq.XPUB_NODROP, 1)
