# SPDX-License-Identifier: Apache-2.0
"""The router: each message goes to the peer that it names.

`[destination] [sender] [header] [key] [body]` comes in; the backend, a ROUTER,
takes the destination off and sends the rest to the peer of that name.  Being
mandatory and told not to wait, it refuses a message for a peer that is not there or
whose queue is full.
"""

from __future__ import annotations

import errno
import logging
import time
import uuid
from dataclasses import dataclass, replace
from typing import Final

import zmq

from zmq_core import MalformedMessage, NackCode
from zmq_proxy._forwarder import Forwarder
from zmq_proxy._observer import Observer
from zmq_proxy._refusal import Refusal, refuse
from zmq_proxy._sockets import SocketFactory
from zmq_proxy._traffic import ROUTED

__all__ = ["Router", "RouterStatistics"]

LOG = logging.getLogger(__name__)

_REFUSED: Final = {
    errno.EHOSTUNREACH: "its receiver is not connected here",
    errno.EAGAIN: "its receiver does not read",
}
_CODES: Final = {errno.EHOSTUNREACH: NackCode.UNROUTABLE, errno.EAGAIN: NackCode.QUEUE_FULL}
_DISCARD_SHARE: Final = 0.01
"""Seconds at a time for throwing away; others wait as long."""
_LONGEST_IN_LOG: Final = 100


@dataclass(slots=True)
class RouterStatistics:
    """Counters since the start, of what is not passed on."""

    unroutable: int = 0
    """Messages for a receiver that was not connected."""
    overflowed: int = 0
    """Messages for a receiver whose queue was full."""
    malformed: int = 0
    """Of these two kinds, those that were no messages of the protocol."""
    nacks: int = 0
    """Senders that were told."""
    nacks_lost: int = 0
    """Senders that could not be told: they are not connected to the backend."""
    discarded: int = 0
    """Messages that peers sent to the backend, where nothing is to be sent to."""


class Router(Forwarder):
    """Forwards from a PULL to a ROUTER, and tells senders of what it cannot pass on.

    `identity` is the name by which it tells them; its ports are 0 for random ones.  What it
    passes on is counted if it is `observed`.

    :raises InvalidConfiguration: a port or address cannot be bound; names the option.
    """

    def __init__(
        self,
        sockets: SocketFactory,
        identity: bytes,
        frontend_port: int,
        backend_port: int,
        *,
        observed: bool = False,
    ) -> None:
        secret = uuid.uuid4().bytes + uuid.uuid4().bytes  # the name of no peer
        frontend, backend = sockets.pull(), sockets.router()
        self.frontend_endpoint = sockets.bind(frontend, frontend_port, "frontend_port")
        self.backend_endpoint = sockets.bind(backend, backend_port, "backend_port")
        self._silent_peer = sockets.silent_peer(backend)
        observer = Observer("router", sockets, secret, ROUTED) if observed else None
        control = sockets.control(frontend)
        super().__init__("zmq-proxy-router", frontend, backend, control, secret, observer)
        self._identity = identity
        self._statistics = RouterStatistics()

    @property
    def statistics(self) -> RouterStatistics:
        """A copy of the counters."""
        return replace(self._statistics)

    def _refused(self, why: int, rest: list[bytes]) -> None:
        self._tap.rest(rest, passed=False)
        if why == errno.EAGAIN:
            self._statistics.overflowed += 1
        else:
            self._statistics.unroutable += 1
        refusal = self._parse(why, rest)
        if refusal is None:
            return
        self._log.warning(
            ("refused", why),
            "refused a %s from %r: %s",
            refusal.what,
            refusal.sender[:_LONGEST_IN_LOG],
            _REFUSED[why],
        )
        if not refusal.answer:
            return
        if self._send(refusal.answer):
            self._statistics.nacks_lost += 1
        else:
            self._statistics.nacks += 1
            self._tap.own(refusal.answer)

    def _parse(self, why: int, rest: list[bytes]) -> Refusal | None:
        """What to tell the sender; None if there is no telling who that is."""
        try:
            return refuse(rest, self._identity, _CODES[why])
        except MalformedMessage as error:
            problem = str(error)
        # Not within the except block, where oslo.log would append the error a second time.
        self._statistics.malformed += 1
        self._log.warning("malformed", "dropped a message: %s, and %s", _REFUSED[why], problem)
        return None

    def _tidy(self) -> None:
        """Throw away what peers sent to the backend, or a bounded part of it.

        `zmq_proxy` cannot move it anywhere, and does not sleep while it is there.
        """
        end = time.monotonic() + _DISCARD_SHARE
        # A moment's patience, since more of what lies in TCP's buffers comes as there is room.
        while self.backend.poll(1):
            if time.monotonic() > end:
                self.untidy = True
                return
            peer = self.backend.recv_multipart(zmq.NOBLOCK)[0]
            self._statistics.discarded += 1
            self._log.warning(
                "backend",
                "dropped a message that %r sent to the backend port; send to the frontend port",
                peer,
            )
        self.untidy = False

    def _close_data(self, linger: float) -> None:
        super()._close_data(linger)
        self._silent_peer.close(0)
