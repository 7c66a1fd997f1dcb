# SPDX-License-Identifier: Apache-2.0
"""The settings of a node, checked when they are made."""

from __future__ import annotations

from typing import Final

import msgspec

from zmq_core._errors import ConfigurationError, MessageTooLarge

__all__ = ["NodeOptions", "check_size"]

_MIB: Final = 2**20
_PORT_LIMIT: Final = 65536
_DAY: Final = 86400.0
_SHORTEST: Final = 0.001  # libzmq counts milliseconds, and takes 0 for "never"
_LONGEST_SILENCE: Final = 6553.0  # a ZMTP PING tells its time to live in 16 bits of 0.1 s
_TIMES: Final = (
    ("linger", 0.0, _DAY),
    ("connect_timeout", _SHORTEST, _DAY),
    ("heartbeat_interval", _SHORTEST, _LONGEST_SILENCE),
    ("heartbeat_timeout", _SHORTEST, _LONGEST_SILENCE),
    ("idle_timeout", 0.0, _DAY),
    ("remember", 0.0, _DAY),
)
_NUMBERS: Final = (
    ("send_hwm", 2**31 - 1),
    ("recv_hwm", 2**31 - 1),
    ("max_message_size", 2**63 - 1),
    ("bind_retries", 2**31 - 1),
    ("io_threads", 64),
)
_MOST_LINKS: Final = 2**20
# What the Linux kernel accepts.
_KEEPALIVES: Final = (
    ("tcp_keepalive_idle", 32767),
    ("tcp_keepalive_count", 127),
    ("tcp_keepalive_interval", 32767),
)


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
    idle_timeout: float = 0.0
    """After which a direct connection that nothing was sent by is closed; 0: never."""
    max_links: int = 0
    """Direct connections above which the least recently used ones are closed, if nothing is
    under way on them; 0: never."""
    remember: float = 300.0
    """For which answers are kept of messages that may come again."""
    tcp_keepalive: int = 1
    """1 on, 0 off, -1 as the system has it."""
    tcp_keepalive_idle: int = -1
    tcp_keepalive_count: int = -1
    tcp_keepalive_interval: int = -1
    """-1 leaves the system's value; the listening socket derives idle and interval from the
    heartbeat's instead."""
    io_threads: int = 1
    """libzmq's own threads; one is enough for a gigabyte per second."""

    def __post_init__(self) -> None:
        self._check_ports()
        for name, low, high in _TIMES:
            if not low <= getattr(self, name) <= high:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not between {low:g} and {high:g} seconds"
                )
        if self.heartbeat_interval + self.heartbeat_timeout > _LONGEST_SILENCE:
            raise ConfigurationError(
                "heartbeat_timeout",
                f"{self.heartbeat_timeout!r} and heartbeat_interval {self.heartbeat_interval!r} "
                f"are more than {_LONGEST_SILENCE:g} seconds together, the most that ZMTP can tell",
            )
        for name, most in _NUMBERS:
            if not 1 <= getattr(self, name) <= most:
                raise ConfigurationError(
                    name,
                    f"{getattr(self, name)!r} is not between 1 and {most}; nothing is unbounded",
                )
        if not 0 <= self.max_links <= _MOST_LINKS:
            raise ConfigurationError(
                "max_links", f"{self.max_links!r} is not between 0 and {_MOST_LINKS}"
            )
        for name, most in _KEEPALIVES:
            value = getattr(self, name)
            if value != -1 and not 1 <= value <= most:
                raise ConfigurationError(
                    name, f"{value!r} is neither between 1 and {most} nor -1 (system's value)"
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


def check_size(body: bytes, options: NodeOptions) -> None:
    """Raise MessageTooLarge for a body that the peer would cut the connection for."""
    if len(body) > options.max_message_size:
        raise MessageTooLarge(
            f"a body of {len(body)} bytes exceeds max_message_size {options.max_message_size}"
        )
