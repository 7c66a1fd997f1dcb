# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ sockets, envelope and request/reply between processes, with no broker.

`Node` is what one process is on the wire: it listens on target keys and sends
to endpoints.  The other names are its vocabulary.  The wire is specified in
docs/protocol.md.
"""

from zmq_core._address import BindAddress, Endpoint, resolve_bind_address
from zmq_core._envelope import Envelope, Flag, MessageType, Serializer, decode, encode
from zmq_core._errors import (
    ConfigurationError,
    CoreError,
    MalformedMessage,
    MessageTooLarge,
    NackCode,
    NodeClosed,
    NoProxy,
    NotDelivered,
    PeerLost,
    PeerUnreachable,
    PortsRangeExceeded,
    ProxyLost,
    QueueFull,
    Refused,
    RequestTimeout,
    SocketLimitReached,
    UnknownAdapter,
    UnsupportedVersion,
)
from zmq_core._inbox import DEFAULT_BACKLOG, NOTIFICATIONS, REQUESTS, Listening
from zmq_core._incoming import Incoming
from zmq_core._key import TargetKey
from zmq_core._latch import Latch
from zmq_core._newcomers import Newcomers
from zmq_core._node import Node
from zmq_core._options import NodeOptions
from zmq_core._publishers import Publishers, Subscription
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._roster import ProxyAddress, ProxyEnd
from zmq_core._statistics import Statistics
from zmq_core._waiting import may_wait

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_BACKLOG",
    "NOTIFICATIONS",
    "REQUESTS",
    "BindAddress",
    "ConfigurationError",
    "CoreError",
    "Endpoint",
    "Envelope",
    "Flag",
    "Incoming",
    "Latch",
    "Listening",
    "MalformedMessage",
    "MessageTooLarge",
    "MessageType",
    "NackCode",
    "Newcomers",
    "NoProxy",
    "Node",
    "NodeClosed",
    "NodeOptions",
    "NotDelivered",
    "PeerLost",
    "PeerUnreachable",
    "PortsRangeExceeded",
    "ProxyAddress",
    "ProxyEnd",
    "ProxyLost",
    "Publishers",
    "QueueFull",
    "RateLimitedLog",
    "Refused",
    "RequestTimeout",
    "Serializer",
    "SocketLimitReached",
    "Statistics",
    "Subscription",
    "TargetKey",
    "UnknownAdapter",
    "UnsupportedVersion",
    "decode",
    "encode",
    "may_wait",
    "resolve_bind_address",
]
