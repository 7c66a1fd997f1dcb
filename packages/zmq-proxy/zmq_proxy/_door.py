# SPDX-License-Identifier: Apache-2.0
"""Hanging up on newcomers before the process runs out of descriptors.

libzmq does not: where `accept` fails for want of one, the connection stays in the
listening socket's queue, and the I/O thread tries again at once and for ever.
Nothing can be opened any more either, such as a registry's file or a connection
to Redis, so that the proxy's records would expire.

The system always gives out the lowest free descriptor, so the number of a new
connection's tells how many are in use.  One that is too near to the limit is
ended here at once; the rest of the way back to a free descriptor is libzmq's own.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import threading
from contextlib import suppress
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from zmq_core import RateLimitedLog
from zmq_proxy._errors import ProxyError
from zmq_proxy._sockets import Socket

__all__ = ["Door", "raise_descriptor_limit"]

LOG = logging.getLogger(__name__)

_RESERVE: Final = 32
"""Descriptors that connections leave for all else that the process opens."""
_FEWEST: Final = 128
"""Below which a proxy is of no use, and libzmq ends the process for want of its own."""
_ADVICE: Final = "raise it (LimitNOFILE of systemd, ulimit -n), or run more proxies"


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as it may give itself.

    :raises ProxyError: that is too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems' "unlimited" is more than they allow; then the soft limit has to do.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft != resource.RLIM_INFINITY and soft < _FEWEST:
        raise ProxyError(
            f"the limit of {soft} open descriptors is too low for a proxy, which has two for each "
            f"process that uses it; {_ADVICE}"
        )


class Door:
    """A thread that watches whom the listening `sockets` let in, from now until `close`.

    To be closed after `sockets`: libzmq waits for somebody to take its reports.
    """

    def __init__(self, *sockets: Socket) -> None:
        self.turned_away = 0
        """Connections that were ended here."""
        self.failure: Exception | None = None
        """Why the thread ended without having been told to."""
        self._log = RateLimitedLog(LOG)
        events = zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED
        self._monitors = [socket.get_monitor_socket(events) for socket in sockets]
        self._ending = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="zmq-proxy-door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and the watching."""
        os.eventfd_write(self._ending, 1)
        self._thread.join()
        os.close(self._ending)
        for monitor in self._monitors:
            monitor.close(0)

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:
            # The process ends of it: see Proxy.look.
            LOG.exception("watching the connections failed")
            self.failure = error

    def _watch(self) -> None:
        poller = zmq.Poller()
        for readable in (*self._monitors, self._ending):
            poller.register(readable, zmq.POLLIN)
        while self._ending not in (ready := dict(poller.poll())):
            for monitor in self._monitors:
                if monitor in ready:
                    self._take(monitor)

    def _take(self, monitor: Socket) -> None:
        told = parse_monitor_message(monitor.recv_multipart())
        if told["event"] == zmq.EVENT_ACCEPT_FAILED:
            self._log.warning(
                "failed",
                "cannot accept a connection: %s; trying again",
                os.strerror(told["value"]),
            )
            return
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY and told["value"] >= limit - _RESERVE:
            self._turn_away(told["value"], limit)

    def _turn_away(self, descriptor: int, limit: int) -> None:
        """End a connection whose `descriptor` is libzmq's own: it sees the end and closes it."""
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError:
            return  # it has ended by itself
        try:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()
        self.turned_away += 1
        self._log.warning(
            "full",
            "hung up on a new connection: the process may have %d open descriptors and has nearly "
            "as many; %s",
            limit,
            _ADVICE,
        )
