# SPDX-License-Identifier: Apache-2.0
"""Hosts of their own on a wire that loses, delays and reorders packets, or some of them.

Each host is a network namespace with one adapter, a TUN device whose packets come to this
process; a thread passes them on.  So TCP on both sides is real, and what happens between
them is up to the test, without any module of the kernel.  Nothing is changed outside the
namespaces.  Needs root and iproute2 (`@pytest.mark.root`).
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple, Self

__all__ = ["Wire"]

_NUMBERS: Final = itertools.count()
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_LARGEST: Final = 65536
_TCP: Final = 6


class _Quality(NamedTuple):
    """What happens to packets on their way to a host."""

    loss: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0


class Wire:
    """Connects these hosts; gone with the block."""

    def __init__(self, hosts: Iterable[str], seed: int = 0) -> None:
        self._name = f"zmq-{os.getpid()}-w{next(_NUMBERS)}"
        self._hosts = {host: number for number, host in enumerate(hosts, 1)}
        self._ends: dict[str, int] = {}
        self._qualities: dict[tuple[str, str], _Quality] = {}
        self._known: set[bytes] = set()
        self._forgotten: frozenset[bytes] = frozenset()
        self._chance = random.Random(seed)
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._order = itertools.count()
        self._wake, self._woken = socket.socketpair()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self.passed = 0
        """Packets that reached a host."""
        self.lost = 0
        """Packets that did not."""

    def address(self, host: str) -> str:
        """Its IPv4 address."""
        return f"10.78.0.{self._hosts[host]}"

    def on(self, host: str) -> tuple[str, ...]:
        """What to put in front of a command so that it runs there."""
        return ("ip", "netns", "exec", self._namespace(host))

    def spoil(
        self,
        host: str,
        *,
        sender: str = "",
        loss: float = 0.0,
        delay: float = 0.0,
        reorder: float = 0.0,
    ) -> None:
        """What goes to `host` is lost with that probability, else comes `delay` seconds later.

        With probability `reorder` it comes at once instead, before what was sent earlier.
        With a `sender`, only what comes from there.
        """
        for other in (sender,) if sender else self._hosts:
            self._qualities[other, host] = _Quality(loss, delay, reorder)

    def forget(self) -> None:
        """Swallow from now on what belongs to a TCP connection that there is, as a firewall
        does that has forgotten it.  New ones are let through."""
        self._forgotten = frozenset(self._known)

    def __enter__(self) -> Self:
        try:
            for host in self._hosts:
                self._connect(host)
            self._thread.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._wake.send(b".")
        if self._thread.is_alive():
            self._thread.join()
        for host, end in self._ends.items():
            os.close(end)
            self._ip("netns", "delete", self._namespace(host))
        self._ends.clear()
        self._wake.close()
        self._woken.close()

    def _namespace(self, host: str) -> str:
        return f"{self._name}-{host}"

    def _connect(self, host: str) -> None:
        namespace = self._namespace(host)
        device = f"wire{os.getpid() % 100_000}n{self._hosts[host]}"[:15]
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(
                end, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI)
            )
            self._ip("netns", "add", namespace)
        except BaseException:
            os.close(end)
            raise
        self._ends[host] = end
        self._ip("link", "set", device, "netns", namespace, "name", "eth0")
        self._ip("-n", namespace, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        for adapter in ("lo", "eth0"):
            self._ip("-n", namespace, "link", "set", adapter, "up")

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        by_address = {socket.inet_aton(self.address(host)): host for host in self._hosts}
        ends = [*self._ends.values(), self._woken.fileno()]
        while not self._closing:
            left = self._under_way[0][0] - time.monotonic() if self._under_way else 1.0
            readable, _, _ = select.select(ends, (), (), max(0.0, left))
            for end in readable:
                if end != self._woken.fileno():
                    self._take(os.read(end, _LARGEST), by_address)
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(self._under_way)
                self._deliver(end, packet)

    def _take(self, packet: bytes, by_address: dict[bytes, str]) -> None:
        if packet[0] >> 4 != 4:
            return  # IPv6's own business
        sender, host = (by_address.get(address) for address in (packet[12:16], packet[16:20]))
        if sender is None or host is None:
            return
        quality = self._qualities.get((sender, host), _Quality())
        connection = _connection(packet)
        if connection:
            self._known.add(connection)
        if connection in self._forgotten or self._chance.random() < quality.loss:
            self.lost += 1
            return
        delay = 0.0 if self._chance.random() < quality.reorder else quality.delay
        due = time.monotonic() + delay
        heapq.heappush(self._under_way, (due, next(self._order), self._ends[host], packet))

    def _deliver(self, end: int, packet: bytes) -> None:
        with suppress(OSError):  # the adapter's queue is full: lost, as on any other
            os.write(end, packet)
            self.passed += 1


def _connection(packet: bytes) -> bytes:
    """What the packets of one TCP connection have in common, in both directions; else nothing."""
    if packet[9] != _TCP:
        return b""
    begin = (packet[0] & 0x0F) * 4
    ends = (
        packet[12:16] + packet[begin : begin + 2],
        packet[16:20] + packet[begin + 2 : begin + 4],
    )
    return b"".join(sorted(ends))
