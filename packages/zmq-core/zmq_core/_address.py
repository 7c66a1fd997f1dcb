# SPDX-License-Identifier: Apache-2.0
"""Bind addresses, adapters and endpoints: what a name in a setting means on this machine."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

import psutil

from zmq_core._errors import ConfigurationError, PeerUnreachable, UnknownAdapter

__all__ = ["BindAddress", "Endpoint", "resolve_bind_address"]

_SCHEME: Final = "tcp://"
_PORT_DIGITS: Final = 5
_INET: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node can be reached: host (a name or an IP address) and TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_SCHEME}{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """The endpoint written as `tcp://host:port`, IPv6 hosts in brackets.

        :raises ConfigurationError: `text` is not of that form.
        """
        host, colon, port = text.removeprefix(_SCHEME).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        is_host = host.isprintable() and not any(map(str.isspace, host)) and host != ""
        is_port = port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS
        if not (text.startswith(_SCHEME) and colon and is_host and is_port):
            raise ConfigurationError("endpoint", f"{text!r} is not of the form tcp://host:port")
        if not 0 < int(port) < 65536:
            raise ConfigurationError("endpoint", f"{text!r} has a port outside 1 to 65535")
        return cls(host, int(port))

    def resolve(self) -> list[Endpoint]:
        """This endpoint by its IP addresses, in the system's order of preference.

        Resolved anew for each connection, so that a host whose address changed
        is found again; and here rather than in libzmq, whose I/O thread would
        stand still for all peers while a name server is slow.

        :raises PeerUnreachable: the name does not resolve.
        """
        if _ip(self.host) is not None:
            return [self]
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # UnicodeError: a label of the name is empty or too long.
            reason = getattr(error, "strerror", None) or error
            raise PeerUnreachable(
                str(self), f"the host name does not resolve ({reason})"
            ) from error
        hosts = [str(address[0]) for family, *_, address in found if family in _INET]
        return [Endpoint(host, self.port) for host in dict.fromkeys(hosts)]


@dataclass(frozen=True, slots=True)
class BindAddress:
    """What to bind, and what to tell others: `host` is `*` or an IP address."""

    host: str
    advertise: str

    def endpoint(self, port: int) -> str:
        """The endpoint to bind `port` of this address with."""
        return str(Endpoint(self.host, port))


def resolve_bind_address(bind_address: str, advertise_host: str = "") -> BindAddress:
    """The address that `bind_address` (`*`, an IP address or an adapter's name) means.

    :raises UnknownAdapter: it is none of those; the message lists the adapters.
    """
    if bind_address == "*":
        return BindAddress("*", advertise_host or _own_host())
    plain = bind_address.removeprefix("[").removesuffix("]")
    ip = _ip(plain)
    if ip is not None:
        host = str(ip)
        if ip.is_unspecified:
            return BindAddress(host, advertise_host or _own_host())
    else:
        host = _adapter_address(bind_address)
    return BindAddress(host, advertise_host or host)


def _own_host() -> str:
    """A name under which other hosts can be expected to find this one."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        # A host that does not know its own name: the best that is left is an address.
        for address in _addresses():
            if not address.is_loopback and not address.is_link_local:
                return str(address)
        return "127.0.0.1"
    return name


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _addresses(adapter: str | None = None) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The IP addresses of one adapter, or of all: IPv4 first, link-local last."""
    found = [
        ipaddress.ip_address(address.address)
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family in _INET and adapter in (None, name)
    ]
    return sorted(found, key=lambda ip: (ip.is_link_local, ip.version))


def _adapter_address(name: str) -> str:
    adapters = sorted(psutil.net_if_addrs())
    if name not in adapters:
        raise UnknownAdapter(
            "bind_address",
            f"{name!r} is neither '*', nor an IP address, nor an adapter of this host "
            f"(adapters: {', '.join(adapters)})",
        )
    addresses = _addresses(name)
    if not addresses:
        raise UnknownAdapter("bind_address", f"the adapter {name!r} has no IP address")
    return str(addresses[0])
