# SPDX-License-Identifier: Apache-2.0
"""What the transports of one process share: a node, a directory, and who uses them.

Services make several transports with the same settings (RPC and notifications,
a client and a server).  They share one node, so that the process is one peer to
others and holds one connection to each.  It is made at first use, per process:
a service may make its transports, then fork its workers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Final

from zmq_core import Latch, Node, NodeClosed, RateLimitedLog
from zmq_matchmaker import Closed, Matchmaker, MatchmakerError, load
from zmq_oslo_driver.ending import Ender
from zmq_oslo_driver.errors import CleanedUp, InvalidConfiguration
from zmq_oslo_driver.handover import Handover
from zmq_oslo_driver.proxies import Proxies
from zmq_oslo_driver.returned import Courier
from zmq_oslo_driver.sender import Sender
from zmq_oslo_driver.settings import Settings, naming_the_option
from zmq_oslo_driver.spreader import Spreader
from zmq_oslo_driver.statistics import Statistics
from zmq_oslo_driver.turns import Turns

__all__ = ["QUIET", "Runtime", "acquire", "check", "close_all", "release"]

LOG = logging.getLogger(__name__)

QUIET: Final = 0.1
"""Seconds within which callers learn that a server has been withdrawn."""


class Runtime:
    """A node and a directory with what is built on them.  Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users: set[object] = set()
        self.ender = Ender()
        self._closed = False
        self.statistics = Statistics()
        self.log = RateLimitedLog(LOG)
        self._closing = Latch()
        self._listeners: set[object] = set()
        matchmaker = _load(settings)
        self.node = Node(
            settings.node,
            role="oslo",
            returned=lambda refuser, envelope: self.courier.post(refuser, envelope),
        )
        self.directory = settings.directory.directory(matchmaker)
        # Where all is in one process, there is no proxy to find.
        self._shared = matchmaker.characteristics.shared_across_processes
        self.proxies = (
            Proxies(self.node, self.directory, settings, self._closing, self.log)
            if self._shared and (settings.router_proxy or settings.pub_sub)
            else None
        )
        handover = Handover(self.node, self.directory, settings.serializer, self.proxies)
        turns = Turns(self.node.identity, settings.servers_per_topic)
        self.sender = Sender(
            handover,
            settings.acks,
            turns,
            self._closing,
            lambda address, timeout: self.courier.await_room(address, timeout),
        )
        self.spreader = Spreader(handover, turns, self.statistics, self.log, self.proxies)
        self.courier = Courier(
            self.sender,
            self.directory,
            settings.send_timeout,
            settings.notify_timeout,
            self.statistics,
            self.log,
        )

    def bind(self) -> str:
        """Open the listening socket, once; the endpoint that others connect to.

        :raises InvalidConfiguration: no port is free, or the address is not of this host.
        """
        with naming_the_option(), telling_of_cleanup():
            return self.node.bind()

    def joined(self, listener: object) -> None:
        """`listener` is there."""
        self._listeners.add(listener)

    def left(self, listener: object) -> None:
        """`listener` takes nothing more, and has answered what it had taken.

        The last stays until nothing has come for a moment.  Those who had looked it up
        before it was withdrawn have sent by then, and know that they were refused; and its
        answers have left.  Services vanish (`os._exit`) when they have waited for this: what
        is on its way then is lost.
        """
        self._listeners.discard(listener)
        received = self.node.statistics.received
        if self._listeners or not received or not self._shared:
            return
        end = time.monotonic() + self.settings.node.linger
        while (seconds := min(QUIET, end - time.monotonic())) > 0:
            if self._closing.wait(seconds) or received == self.node.statistics.received:
                return
            received = self.node.statistics.received

    def close(self) -> None:
        """Withdraw, send what is left, end all threads, close all sockets, let go of callers.

        Idempotent, from any thread, and in handlers of signals; see `Ender.do`.
        """
        self.ender.do(self._close)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._closing.set()
            self.courier.close()
            self.directory.close()
            if self.proxies is not None:
                self.proxies.close()
            self.node.close()
        finally:
            _ending.discard(self)
            self.ender.over()


@contextlib.contextmanager
def telling_of_cleanup() -> Iterator[None]:
    """Raise `CleanedUp` where a service begins with something while its transport is ended."""
    try:
        yield
    except (NodeClosed, Closed) as error:
        raise CleanedUp("this transport was cleaned up; make a new one") from error


def _load(settings: Settings) -> Matchmaker:
    try:
        return load(settings.matchmaker)
    except MatchmakerError as error:
        raise InvalidConfiguration(f"transport_url: {error}") from error


def check(settings: Settings) -> None:
    """Find out whether there is such a matchmaker, without asking it anything.

    :raises InvalidConfiguration: there is none of that name, or its URL is wrong.
    """
    _load(settings).close()


_lock = threading.Lock()
_runtimes: dict[Settings, Runtime] = {}
_ending: set[Runtime] = set()
"""Those that nobody uses any more, and that are not closed yet."""


def acquire(settings: Settings, user: object) -> Runtime:
    """The runtime for `settings` in this process; `release` it when done."""
    with _lock:
        runtime = _runtimes.get(settings)
        if runtime is None:
            runtime = _runtimes[settings] = Runtime(settings)
        # It is known who uses it before anything is started: a handler of a signal may raise.
        runtime.users.add(user)
        runtime.ender.start()
        return runtime


def used_by(user: object) -> Runtime | None:
    """The runtime that `user` has acquired, if any.  Takes no lock."""
    return next((found for found in list(_runtimes.values()) if user in found.users), None)


def release(runtime: Runtime, user: object) -> None:
    """Give back what `acquire` gave; the last one closes it.  Idempotent."""
    with _lock:
        runtime.users.discard(user)
        last = not runtime.users and _runtimes.get(runtime.settings) is runtime
        if last:
            _ending.add(runtime)
            del _runtimes[runtime.settings]
    if last:
        runtime.close()


def close_all() -> None:
    """A program that ends without `cleanup()`, or while it goes on, must not lose what it sent."""
    with _lock:
        left = [*_runtimes.values(), *_ending]
        _runtimes.clear()
    for runtime in left:
        runtime.close()


def _forget_parent() -> None:
    """A forked child begins with no runtime, and with a lock that nobody holds."""
    global _lock
    _lock = threading.Lock()
    _runtimes.clear()
    _ending.clear()


os.register_at_fork(after_in_child=_forget_parent)
