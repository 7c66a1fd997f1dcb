# SPDX-License-Identifier: Apache-2.0
"""Hosts of their own: network namespaces, connected by a switch in one more of them.

What loses, delays or reorders single packets is `harness.wire`.  Nothing is changed
outside the namespaces.  Needs root and iproute2 (`@pytest.mark.root`).
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterable
from typing import Final, Self

__all__ = ["Network"]

_NUMBERS: Final = itertools.count()


class Network:
    """One network with these hosts; gone with the block."""

    def __init__(self, hosts: Iterable[str], *, ipv6_only: bool = False) -> None:
        self._name = f"zmq-{os.getpid()}-{next(_NUMBERS)}"
        self._hosts = {host: number for number, host in enumerate(hosts, 1)}
        self._ipv6_only = ipv6_only
        self._made: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._make(self._switch)
            self._ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
            self._ip("-n", self._switch, "link", "set", "switch", "up")
            for host in self._hosts:
                self._connect(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._made:
            self._ip("netns", "delete", self._made.pop())

    def address(self, host: str) -> str:
        """Its only one."""
        return f"{'fd77::' if self._ipv6_only else '10.77.0.'}{self._hosts[host]}"

    def on(self, host: str) -> tuple[str, ...]:
        """What to put in front of a command so that it runs there."""
        return ("ip", "netns", "exec", self._namespace(host))

    def cut(self, host: str) -> None:
        """Pull its cable: what is under way is lost, and nobody is told."""
        self._ip("-n", self._switch, "link", "set", self._port(host), "down")

    def heal(self, host: str) -> None:
        """Put it back in."""
        self._ip("-n", self._switch, "link", "set", self._port(host), "up")

    @property
    def _switch(self) -> str:
        return f"{self._name}-switch"

    def _namespace(self, host: str) -> str:
        return f"{self._name}-{host}"

    def _port(self, host: str) -> str:
        return f"port{self._hosts[host]}"

    def _make(self, namespace: str) -> None:
        self._ip("netns", "add", namespace)
        self._made.append(namespace)

    def _connect(self, host: str) -> None:
        namespace = self._namespace(host)
        self._make(namespace)
        self._ip("-n", self._switch, "link", "add", self._port(host), "type", "veth",
                 "peer", "name", "eth0", "netns", namespace)  # fmt: skip
        self._ip("-n", self._switch, "link", "set", self._port(host), "master", "switch", "up")
        length, *flags = ("64", "nodad") if self._ipv6_only else ("24",)
        self._ip("-n", namespace, "address", "add", f"{self.address(host)}/{length}",
                 "dev", "eth0", *flags)  # fmt: skip
        for adapter in ("lo", "eth0"):
            self._ip("-n", namespace, "link", "set", adapter, "up")

    def _ip(self, *arguments: str) -> None:
        self._run("ip", *arguments)

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, text=True)
