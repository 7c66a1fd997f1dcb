# SPDX-License-Identifier: Apache-2.0
"""Starting and ending proxies from a test."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from harness.leaks import wait_until
from harness.services import child_environment
from zmq_core import ProxyAddress
from zmq_matchmaker import Key, MatchmakerURL, Record, Role, load

_COMMAND = ("-W", "ignore", "-m", "zmq_proxy")
_ROLES = {
    "router": [Role.ROUTER],
    "publisher": [Role.PUBLISHER],
    "both": [Role.ROUTER, Role.PUBLISHER],
}


class ProxyProcess:
    """`python -m zmq_proxy` for the services of `url`, ready to forward.

    `options` are of `[zmq_proxy_opts]`, `services` those that services share with it;
    `prefix` is as with `Child`.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        services: Mapping[str, Any] | None = None,
        prefix: Sequence[str] = (),
        **options: Any,
    ) -> None:
        options = {"host": "127.0.0.1", "role": "router", **options}
        config = (
            f"[DEFAULT]\ntransport_url = {url}\n"
            + _section("oslo_messaging_zmq", services or {})
            + _section("zmq_proxy_opts", options)
        )
        self._start(folder, url, config, prefix)
        self.await_ready([] if "local_publisher" in options else _ROLES[options["role"]])

    @classmethod
    def of_config(cls, folder: Path, url: str, config: str) -> Self:
        """One with the whole text of a configuration file; `await_ready` is left to the caller."""
        made = cls.__new__(cls)
        made._start(folder, url, config)
        return made

    def _start(self, folder: Path, url: str, config: str, prefix: Sequence[str] = ()) -> None:
        file = folder / "proxy.conf"
        file.write_text(config)
        self._url = url
        self._log = folder / "proxy.log"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, *_COMMAND, f"--config-file={file}"],
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.ports: list[int] = []
        """On which it is registered: of each role the frontend, then the backend."""
        self._address: ProxyAddress | None = None
        self.subscriber_ports: list[int] = []
        """Those of them at which services subscribe."""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def address(self) -> ProxyAddress:
        """Its two ends as a router."""
        assert self._address is not None, "it does not route"
        return self._address

    @property
    def output(self) -> str:
        """What it has printed until now."""
        return self._log.read_text()

    def await_ready(self, roles: Sequence[Role]) -> None:
        """Wait until it is registered under these roles; without any, until it publishes."""
        if not roles:
            wait_until(lambda: "publishes for this node" in self.output, "it publishes")
            return
        matchmaker = load(MatchmakerURL.parse(self._url))

        def registered() -> bool:
            assert self.process.poll() is None, self.output
            found = matchmaker.lookup([Key(role) for role in roles])
            own = f"/{self.process.pid}/proxy/"
            mine = [
                record
                for records in found
                for record in sorted(records, key=lambda record: record.member, reverse=True)
                if own in record.node
            ]
            self.ports = [_port(record) for record in mine]
            routing = {r.member: r for r in found[0] if r in mine and roles[0] is Role.ROUTER}
            if {"frontend", "backend"} <= set(routing):
                frontend, backend = routing["frontend"], routing["backend"]
                self._address = ProxyAddress(frontend.node, frontend.endpoint, backend.endpoint)
            if roles[-1] is Role.PUBLISHER:
                backends = [record for record in found[-1] if record.member == "backend"]
                self.subscriber_ports = [_port(record) for record in backends if record in mine]
            return len(mine) == 2 * len(roles)

        try:
            wait_until(registered, "the proxy is registered", timeout=20)
        finally:
            matchmaker.close()

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 15.0) -> int:
        """End it as an operator would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def _section(name: str, options: Mapping[str, Any]) -> str:
    lines = [f"{option} = {value}" for option, value in options.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _port(record: Record) -> int:
    return int(record.endpoint.rpartition(":")[2])
