# SPDX-License-Identifier: Apache-2.0
"""A thread that hangs up on newcomers before the proxy runs out of descriptors."""

from __future__ import annotations

import logging
import os
import resource
import threading
from contextlib import suppress
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from zmq_core import Newcomers
from zmq_proxy._errors import ProxyError
from zmq_proxy._sockets import Socket

__all__ = ["Door", "raise_descriptor_limit"]

LOG = logging.getLogger(__name__)

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
        self.failure: Exception | None = None
        """Why the thread ended without having been told to."""
        self._newcomers = Newcomers(LOG, _ADVICE)
        self._monitors = [socket.get_monitor_socket(Newcomers.EVENTS) for socket in sockets]
        self._ending = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="zmq-proxy-door", daemon=True)
        self._thread.start()

    @property
    def turned_away(self) -> int:
        """Connections that were ended here."""
        return self._newcomers.turned_away

    def close(self) -> None:
        """End the thread and the watching."""
        os.eventfd_write(self._ending, 1)
        self._thread.join()
        os.close(self._ending)
        for monitor in self._monitors:
            monitor.close(0)
        self._newcomers.close()

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
        port = int(told["endpoint"].rpartition(b":")[2])
        self._newcomers.take(told["event"], told["value"], port)
