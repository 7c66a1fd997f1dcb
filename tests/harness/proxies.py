# SPDX-License-Identifier: Apache-2.0
"""Starting and ending proxies from a test."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.leaks import wait_until
from harness.services import child_environment
from zmq_matchmaker import Key, MatchmakerURL, Role, load

_ROUTERS = Key(Role.ROUTER)


class ProxyProcess:
    """`python -m zmq_proxy` for the services of `url`, ready to forward."""

    def __init__(self, folder: Path, url: str, **options: Any) -> None:
        lines = [f"{name} = {value}" for name, value in options.items()]
        config = folder / "proxy.conf"
        config.write_text(
            f"[DEFAULT]\ntransport_url = {url}\n[oslo_messaging_zmq]\n"
            + "\n".join(lines)
            + "\n[zmq_proxy_opts]\nhost = 127.0.0.1\n"
        )
        self._url = url
        self._log = folder / "proxy.log"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "zmq_proxy", f"--config-file={config}"],
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.ports = self._registered_ports()

    @property
    def output(self) -> str:
        """What it has printed until now."""
        return self._log.read_text()

    def _registered_ports(self) -> list[int]:
        matchmaker = load(MatchmakerURL.parse(self._url))
        found: list[int] = []

        def registered() -> bool:
            assert self.process.poll() is None, self.output
            records = matchmaker.lookup([_ROUTERS])[0]
            mine = [r for r in records if f"/{self.process.pid}/proxy/" in r.node]
            found[:] = [int(record.endpoint.rpartition(":")[2]) for record in mine]
            return len(found) == 2

        try:
            wait_until(registered, "the proxy is registered", timeout=20)
        finally:
            matchmaker.close()
        return found

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 15.0) -> int:
        """End it as an operator would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)
