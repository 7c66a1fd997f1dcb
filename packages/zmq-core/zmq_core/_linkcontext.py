# SPDX-License-Identifier: Apache-2.0
"""What all links of a node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zmq_core._envelope import Envelope
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._reactor import Reactor
from zmq_core._reception import Reception
from zmq_core._sockets import SocketFactory
from zmq_core._statistics import Statistics
from zmq_core._waiting import WakerPool

__all__ = ["LinkContext", "Returned"]

Returned = Callable[[str, Envelope], None]
"""Told of a message that came back with NACK, and which peer refused it."""


@dataclass(frozen=True, slots=True)
class LinkContext:
    """The node, as its links know it."""

    sockets: SocketFactory
    immediate: bool
    patience: float
    """Seconds within which a connection must stand and the peer have shown what it is."""
    reactor: Reactor
    reception: Reception
    wakers: WakerPool
    statistics: Statistics
    log: RateLimitedLog
    returned: Returned
    """Called on the reactor's thread."""
