# SPDX-License-Identifier: Apache-2.0
"""Who is connected, and what waits in the kernel, as /proc/net/tcp and tcp6 tell it.

libzmq tells neither; and to follow its events of each connection would take a
thread that must never fail, where one look at a table will do.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Connections", "connections"]

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED: Final = " 01 "
_MAPPED: Final = "0000000000000000FFFF0000"


@dataclass(slots=True)
class Connections:
    """Those of one listening port."""

    peers: int = 0
    """Established TCP connections."""
    unread: int = 0
    """Bytes that came and that libzmq has not taken from the kernel yet."""
    unacknowledged: int = 0
    """Bytes that libzmq gave to the kernel and that no peer has acknowledged yet."""


def connections(listening: Mapping[str, tuple[str, int]]) -> dict[str, Connections]:
    """The connections of each of the listening addresses and ports, at this moment.

    A table that cannot be read counts as empty.
    """
    found = {name: Connections() for name in listening}
    ports = {f"{port:04X}": (name, _hosts(host)) for name, (host, port) in listening.items()}
    for host, port, sending, receiving in _rows():
        name, hosts = ports.get(port, ("", frozenset()))
        if name and (not hosts or host in hosts):
            of_port = found[name]
            of_port.peers += 1
            of_port.unacknowledged += sending
            of_port.unread += receiving
    return found


def _rows() -> Iterator[tuple[str, str, int, int]]:
    """Local address and port in hexadecimal, and both queues, of established connections."""
    for path in _TABLES:
        try:
            table = path.read_text()
        except OSError:  # a kernel without IPv6
            continue
        for line in table.splitlines():
            if _ESTABLISHED in line:
                _, local, _, _, queues, *_ = line.split(None, 5)
                host, _, port = local.partition(":")
                sending, _, receiving = queues.partition(":")
                yield host, port, int(sending, 16), int(receiving, 16)


def _hosts(host: str) -> frozenset[str]:
    """An address as the tables write it; empty for all addresses."""
    address = ipaddress.ip_address(host) if host != "*" else ipaddress.IPv6Address(0)
    if address.is_unspecified:
        return frozenset()
    octets = address.packed
    words = [int.from_bytes(octets[at : at + 4], sys.byteorder) for at in range(0, len(octets), 4)]
    text = "".join(f"{word:08X}" for word in words)
    return frozenset({text, _MAPPED + text} if address.version == 4 else {text})
