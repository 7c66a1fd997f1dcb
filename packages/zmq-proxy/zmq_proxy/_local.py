# SPDX-License-Identifier: Apache-2.0
"""The local publisher: subscribes at the publishers for a whole node of services.

What its own subscribers want it subscribes to, once, at every publisher; what comes
it publishes to them.  A loop in Python will do: a node gets a small part of what
publishers send, and nothing here must be as fast as they are.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import zmq

from zmq_core import ConfigurationError, Endpoint, RateLimitedLog
from zmq_proxy._observer import MESSAGES
from zmq_proxy._publisher import send_to_those_who_read
from zmq_proxy._sockets import Socket, SocketFactory
from zmq_proxy._traffic import PUBLISHED, Traffic, describe

__all__ = ["LocalPublisher", "LocalStatistics"]

LOG = logging.getLogger(__name__)

_BATCH: Final = 100
_QUIET_MS: Final = 100
_PATIENCE_MS: Final = 200
"""How long a command waits at the most, while no message comes."""


@dataclass(slots=True)
class LocalStatistics:
    """Counters since the start."""

    published: int = 0
    """Messages that came from publishers and were sent to subscribers."""
    bytes: int = 0
    """The size of these, without ZMTP's own."""
    stalls: int = 0
    """Times that a subscriber's queue was full: it misses what comes until half is free."""


class LocalPublisher:
    """A thread that publishes again what publishers send, from `start` to `stop`.

    `start`, `use`, `stop` and `join` are for one other thread.  A publisher that ends is
    listened to for `linger` seconds more: it passes on what it has.

    :raises InvalidConfiguration: the port or address cannot be bound; names the option.
    """

    def __init__(self, sockets: SocketFactory, port: int, linger: float) -> None:
        self._upstream = sockets.subscriber()
        self._downstream = sockets.publisher(zmq.XPUB)
        self.endpoint = sockets.bind(self._downstream, port, "publisher_port")
        self._wanted: queue.SimpleQueue[frozenset[str]] = queue.SimpleQueue()
        self._connected: set[str] = set()
        self._leaving: dict[str, float] = {}
        """Connected to, but no longer registered, and until when."""
        self._linger = linger
        self._stopping = False
        self._deadline = 0.0
        self._log = RateLimitedLog(LOG)
        self._statistics = LocalStatistics()
        self._logs = MESSAGES.isEnabledFor(logging.DEBUG)
        self.traffic = Traffic(PUBLISHED)
        """What was published."""
        self._turned_at = 0.0
        self.failure: BaseException | None = None
        """Why the thread ended without having been told to."""
        self._thread = threading.Thread(target=self._run, name="zmq-proxy-local", daemon=True)

    @property
    def statistics(self) -> LocalStatistics:
        """A copy of the counters."""
        return replace(self._statistics)

    @property
    def listening(self) -> tuple[Socket, ...]:
        """The socket that peers connect to."""
        return (self._downstream,)

    @property
    def publishers(self) -> int:
        """How many publishers it is, or tries to be, connected to."""
        return len(self._connected)

    @property
    def silence(self) -> float:
        """Seconds since the thread last did anything, if that is longer than it should be."""
        turned_at = self._turned_at
        if not turned_at:
            return 0.0
        return max(0.0, time.monotonic() - turned_at - _PATIENCE_MS / 1000)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def use(self, publishers: Iterable[str]) -> None:
        """Subscribe at these endpoints, and at no others any more."""
        self._wanted.put(frozenset(publishers))

    def stop(self, deadline: float) -> None:
        """Begin to end: publish what has come in, close the sockets, by `deadline` (monotonic)."""
        self._deadline = deadline
        self._stopping = True

    def join(self) -> None:
        """Wait until it has ended, after `stop`."""
        if self._thread.ident is not None:
            self._thread.join()

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._upstream, zmq.POLLIN)
        poller.register(self._downstream, zmq.POLLIN)
        try:
            while not self._stopping:
                self._turn(poller, _PATIENCE_MS)
            while time.monotonic() < self._deadline and self._turn(poller, _QUIET_MS):
                continue
        except Exception as error:
            # The process ends of it: see Proxy.look.
            LOG.exception("publishing failed")
            self.failure = error
        finally:
            self._downstream.disable_monitor()  # lest libzmq wait for a reader that has gone
            self._upstream.close(0)
            self._downstream.close(int(max(0.0, self._deadline - time.monotonic()) * 1000))

    def _turn(self, poller: zmq.Poller, patience: int) -> bool:
        """Wait and do what there is to do; false if there was nothing."""
        self._turned_at = time.monotonic()
        ready = dict(poller.poll(patience))
        while not self._wanted.empty():
            self._follow(self._wanted.get())
        self._disconnect_old()
        if self._downstream in ready:
            self._subscribe()
        if self._upstream in ready:
            self._publish()
        return bool(ready)

    def _follow(self, wanted: frozenset[str]) -> None:
        for endpoint in wanted - self._connected:
            if self._leaving.pop(endpoint, None) is not None or self._connect(endpoint):
                self._connected.add(endpoint)
        for endpoint in self._connected - wanted:
            LOG.info("the publisher %s is not registered any more", endpoint)
            self._leaving[endpoint] = time.monotonic() + self._linger
        self._connected &= wanted

    def _connect(self, endpoint: str) -> bool:
        """Whether it can be one: whoever registers may write anything into a record."""
        try:
            self._upstream.connect(str(Endpoint.parse(endpoint)))
        except (ConfigurationError, zmq.ZMQError) as error:
            self._log.warning(
                ("endpoint", endpoint),
                "left out a publisher: its record in the matchmaker has no usable endpoint, %r: %s",
                endpoint,
                error,
            )
            return False
        LOG.info("subscribing at the publisher %s", endpoint)
        return True

    def _disconnect_old(self) -> None:
        now = time.monotonic()
        for endpoint in [one for one, until in self._leaving.items() if until <= now]:
            del self._leaving[endpoint]
            self._upstream.disconnect(str(Endpoint.parse(endpoint)))

    def _subscribe(self) -> None:
        """Pass on what our own subscribers want and nobody wanted before, or nobody wants now."""
        for _ in range(_BATCH):
            try:
                self._upstream.send(self._downstream.recv(zmq.NOBLOCK))
            except zmq.Again:
                return

    def _publish(self) -> None:
        for _ in range(_BATCH):
            try:
                frames = self._upstream.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._statistics.published += 1
            self._statistics.bytes += sum(map(len, frames))
            kind = self.traffic.count(frames)
            if self._logs:
                MESSAGES.debug("local published %s", describe(PUBLISHED, kind, frames))
            try:
                self._downstream.send_multipart(frames, zmq.NOBLOCK)
            except zmq.Again:
                self._statistics.stalls += 1
                self._log.warning("stalled", "a subscriber does not read, and misses messages")
                send_to_those_who_read(self._downstream, frames)
