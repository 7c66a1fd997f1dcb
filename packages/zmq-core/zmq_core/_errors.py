# SPDX-License-Identifier: Apache-2.0
"""Every error that this package raises.

The tree follows the question that a caller asks next.  *May I send this
again?*  `NotDelivered` and what derives from it: yes, the peer has provably
not seen the message.  `PeerLost` and `RequestTimeout`: unknown, it may have
been executed.  *Whose fault is it?*  `MalformedMessage` is the only error that
a remote peer's bytes can cause; `ConfigurationError` is the only one that an
operator's settings can cause.
"""

from __future__ import annotations

import enum

__all__ = [
    "ConfigurationError",
    "CoreError",
    "MalformedMessage",
    "MessageTooLarge",
    "NackCode",
    "NoProxy",
    "NodeClosed",
    "NotDelivered",
    "PeerLost",
    "PeerUnreachable",
    "PortsRangeExceeded",
    "ProxyLost",
    "QueueFull",
    "Refused",
    "RequestTimeout",
    "SocketLimitReached",
    "UnknownAdapter",
    "UnsupportedVersion",
]


class NackCode(enum.IntEnum):
    """Why a receiver refused a message (protocol.md, "NACK")."""

    UNKNOWN_KEY = 1
    """Nobody listens here on that key: the sender's route is stale."""
    UNSUPPORTED_VERSION = 2
    """The receiver does not speak the protocol version of the message."""
    MALFORMED = 3
    """The receiver could not parse the message."""
    UNROUTABLE = 4
    """A proxy has no connection to the receiver."""
    QUEUE_FULL = 5
    """On a road through a proxy: the queue of the receiver, or of the proxy for it, is full."""
    UNKNOWN_ID = 6
    """To a PROBE: the request is not here, or it was answered."""


class CoreError(Exception):
    """Root of all errors of zmq_core."""


class ConfigurationError(CoreError, ValueError):
    """A setting has a value that cannot work.

    `option` is the name of the `NodeOptions` field, so that a caller whose
    users know the setting by another name can translate it.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class UnknownAdapter(ConfigurationError):
    """The bind address is neither `*`, nor an IP address, nor an adapter of this machine."""


class PortsRangeExceeded(ConfigurationError):
    """No port of the configured range could be bound."""


class MalformedMessage(CoreError):
    """A peer sent frames that are not a message of this protocol.

    `message_id` is the refused message's id where the header could tell it, else empty.
    """

    code = NackCode.MALFORMED
    message_id: bytes = b""


class UnsupportedVersion(MalformedMessage):
    """A peer sent a message of another protocol version."""

    code = NackCode.UNSUPPORTED_VERSION

    def __init__(self, version: int, message_id: bytes) -> None:
        super().__init__(f"protocol version {version} is not spoken here")
        self.version = version
        self.message_id = message_id


class NodeClosed(CoreError):
    """The node was closed, or belongs to the parent of this forked process."""


class SocketLimitReached(CoreError):
    """This process may open no more descriptors; nothing was sent or bound."""


class MessageTooLarge(CoreError, ValueError):
    """The message exceeds `max_message_size`; the peer would cut the connection for it."""


class NotDelivered(CoreError):
    """The message has provably not reached a listener: it may be sent elsewhere."""

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(f"{endpoint}: {reason}")
        self.endpoint = endpoint
        self.reason = reason


class PeerUnreachable(NotDelivered):
    """No connection to the peer: refused, timed out, or it does not speak our protocol."""


class NoProxy(PeerUnreachable):
    """No proxy takes the message: that says nothing about the peer."""


class QueueFull(NotDelivered):
    """The peer did not read fast enough; its queues stayed full until the deadline."""


class Refused(NotDelivered):
    """The peer answered with NACK; `code` says why."""

    def __init__(self, endpoint: str, code: NackCode) -> None:
        name = code.name.lower().replace("_", " ")
        why = ": no proxy has a connection to it" if code is NackCode.UNROUTABLE else ""
        super().__init__(endpoint, f"refused ({name}){why}")
        self.code = code


class PeerLost(CoreError):
    """The connection ended while a request was out: it may or may not have been executed."""

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(f"{endpoint}: connection lost while waiting for the reply ({reason})")
        self.endpoint = endpoint


class ProxyLost(PeerLost):
    """The request or its reply was lost with a proxy: the peer itself may well live."""


class RequestTimeout(CoreError, TimeoutError):
    """The reply did not come in time.

    `silent` is true when the peer's heartbeats for this request stopped before
    the request's own deadline was reached.
    """

    def __init__(self, endpoint: str, waited: float, *, silent: bool = False) -> None:
        what = "no heartbeat" if silent else "no reply"
        super().__init__(f"{endpoint}: {what} within {waited:g} s")
        self.endpoint = endpoint
        self.silent = silent
