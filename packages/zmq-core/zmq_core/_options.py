# SPDX-License-Identifier: Apache-2.0
"""The settings of a node, checked when they are made."""

from __future__ import annotations

from typing import Final

import msgspec

from zmq_core._errors import ConfigurationError

__all__ = ["NodeOptions"]

_MIB: Final = 2**20
_PORT_LIMIT: Final = 65536


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a node binds, connects and gives up.  Times are in seconds, sizes in bytes.

    :raises ConfigurationError: a value that cannot work; names the field.
    """

    bind_address: str = "*"
    """`*`, an IPv4 or IPv6 address, or the name of an Ethernet adapter."""
    advertise_host: str = ""
    """Host that peers connect to; empty: the bound address, or this host's name for `*`."""
    min_port: int = 49153
    max_port: int = 65536
    """End of the port range, exclusive."""
    bind_retries: int = 100
    """How many different ports of the range are tried."""
    linger: float = 5.0
    """How long unsent messages are kept when the node closes."""
    immediate: bool = True
    """Queue messages for established connections only (ZMQ_IMMEDIATE)."""
    send_hwm: int = 1000
    recv_hwm: int = 1000
    """High-water marks, in messages per connection."""
    max_message_size: int = 256 * _MIB
    """Largest frame; a peer that sends a larger one is disconnected."""
    connect_timeout: float = 5.0
    """For the TCP connection, and again for the ZMTP handshake."""
    heartbeat_interval: float = 1.0
    heartbeat_timeout: float = 3.0
    """ZMTP heartbeats: a silent peer is lost after at most interval + timeout."""
    tcp_keepalive: bool = True
    tcp_keepalive_idle: int = -1
    tcp_keepalive_count: int = -1
    tcp_keepalive_interval: int = -1
    """-1 leaves the system's value."""
    io_threads: int = 1
    """libzmq's own threads; one is enough for a gigabyte per second."""

    def __post_init__(self) -> None:
        self._check_ports()
        for name in ("linger", "connect_timeout", "heartbeat_interval", "heartbeat_timeout"):
            if not 0 <= getattr(self, name) < 86400:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not between 0 and 86400 seconds"
                )
        for name in ("send_hwm", "recv_hwm", "max_message_size", "bind_retries", "io_threads"):
            if getattr(self, name) < 1:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not a positive number; nothing is unbounded"
                )
        for name in ("tcp_keepalive_idle", "tcp_keepalive_count", "tcp_keepalive_interval"):
            if getattr(self, name) < -1 or getattr(self, name) == 0:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is neither positive nor -1 (system's value)"
                )
        if self.heartbeat_interval == 0 or self.heartbeat_timeout == 0:
            raise ConfigurationError(
                "heartbeat_interval", "heartbeats find dead peers and cannot be turned off"
            )

    def _check_ports(self) -> None:
        for name, low, high in (("min_port", 1, _PORT_LIMIT - 1), ("max_port", 2, _PORT_LIMIT)):
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not between {low} and {high}"
                )
        if self.min_port >= self.max_port:
            raise ConfigurationError(
                "min_port",
                f"the range from {self.min_port} up to, not including, "
                f"max_port {self.max_port} is empty",
            )
