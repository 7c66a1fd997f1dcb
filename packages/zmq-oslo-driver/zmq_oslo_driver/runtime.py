# SPDX-License-Identifier: Apache-2.0
"""What the transports of one process share: a node, a directory, and who uses them.

Services make several transports with the same settings (RPC and notifications,
a client and a server).  They share one node, so that the process is one peer to
others and holds one connection to each.  It is made at first use, per process:
a service may make its transports, then fork its workers.
"""

from __future__ import annotations

import logging
import os
import threading

from zmq_core import Node, RateLimitedLog
from zmq_matchmaker import Matchmaker, MatchmakerError, load
from zmq_oslo_driver.errors import InvalidConfiguration
from zmq_oslo_driver.handover import Handover
from zmq_oslo_driver.proxies import Proxies
from zmq_oslo_driver.returned import Courier
from zmq_oslo_driver.sender import Sender
from zmq_oslo_driver.settings import Settings, naming_the_option
from zmq_oslo_driver.spreader import Spreader
from zmq_oslo_driver.statistics import Statistics
from zmq_oslo_driver.turns import Turns

__all__ = ["Runtime", "acquire", "check", "close_all", "release"]

LOG = logging.getLogger(__name__)


class Runtime:
    """A node and a directory with what is built on them.  Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users = 0
        self.statistics = Statistics()
        self.log = RateLimitedLog(LOG)
        self._closing = threading.Event()
        matchmaker = _load(settings)
        self.node = Node(
            settings.node,
            role="oslo",
            returned=lambda refuser, envelope: self.courier.post(refuser, envelope),
        )
        self.directory = settings.directory.directory(matchmaker)
        # Where all is in one process, there is no proxy to find.
        shared = matchmaker.characteristics.shared_across_processes
        self.proxies = (
            Proxies(self.node, self.directory, settings, self._closing, self.log)
            if shared and (settings.router_proxy or settings.pub_sub)
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
        with naming_the_option():
            return self.node.bind()

    def close(self) -> None:
        """Withdraw, send what is left, end all threads, close all sockets, let go of callers."""
        self._closing.set()
        self.courier.close()
        self.directory.close()
        if self.proxies is not None:
            self.proxies.close()
        self.node.close()


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


def acquire(settings: Settings) -> Runtime:
    """The runtime for `settings` in this process; `release` it when done."""
    with _lock:
        runtime = _runtimes.get(settings)
        if runtime is None:
            runtime = _runtimes[settings] = Runtime(settings)
        runtime.users += 1
        return runtime


def release(runtime: Runtime) -> None:
    """Give back what `acquire` gave; the last one closes it."""
    with _lock:
        runtime.users -= 1
        last = runtime.users == 0 and _runtimes.pop(runtime.settings, None) is runtime
    if last:
        runtime.close()


def close_all() -> None:
    """A program that ends without `cleanup()` must not lose what it has sent."""
    with _lock:
        left = list(_runtimes.values())
        _runtimes.clear()
    for runtime in left:
        runtime.close()


def _forget_parent() -> None:
    """A forked child begins with no runtime, and with a lock that nobody holds."""
    global _lock
    _lock = threading.Lock()
    _runtimes.clear()


os.register_at_fork(after_in_child=_forget_parent)
