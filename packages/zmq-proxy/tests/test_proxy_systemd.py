# SPDX-License-Identifier: Apache-2.0
"""The unit, and what a proxy tells systemd."""

from __future__ import annotations

import configparser
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

UNIT = resources.files("zmq_proxy") / "systemd" / "zmq-proxy.service"
Until = Callable[..., None]


class Manager:
    """The socket on which systemd hears of its services."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(15)

    def told(self) -> dict[str, str]:
        """The next message."""
        text = self.socket.recv(4096).decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def told_of(self, name: str) -> list[dict[str, str]]:
        """All messages up to the next one with `name`."""
        messages = [self.told()]
        while name not in messages[-1]:
            messages.append(self.told())
        return messages


@pytest.fixture(params=["a path", "an abstract address"])
def manager(
    request: pytest.FixtureRequest,
    nothing_is_left: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Manager]:
    """Proxies that are started tell it."""
    abstract = f"@zmq-proxy-{os.getpid()}-{tmp_path.name}"
    made = Manager(str(tmp_path / "notify") if request.param == "a path" else abstract)
    monkeypatch.setenv("NOTIFY_SOCKET", made.address)
    with made.socket:
        yield made


def test_systemd_hears_that_it_is_ready_lives_and_stops_in_this_order(
    deployment: Any, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    process = deployment.start("--role", "router")
    ready = manager.told()
    assert ready == {"READY": "1", "STATUS": "forwarding: router"}
    assert len(deployment.records()) == 2, "it registers before it says that it is ready"
    for _ in range(2):
        assert manager.told() == {"WATCHDOG": "1"}
    process.process.send_signal(signal.SIGTERM)
    *before, stopping = manager.told_of("STOPPING")
    assert all(message == {"WATCHDOG": "1"} for message in before)
    assert stopping == {
        "STOPPING": "1",
        "STATUS": "stopping on SIGTERM",
        "EXTEND_TIMEOUT_USEC": "15000000",  # zmq_linger and what a matchmaker may take
    }
    assert process.process.wait(10) == 0


def test_without_a_watchdog_it_hears_of_what_changes_only(
    deployment: Any, manager: Manager, monkeypatch: pytest.MonkeyPatch, busy_port: int
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    # What listens there never answers.
    url = f"zmq+redis://127.0.0.1:{busy_port}/?socket_timeout=0.2"
    config = f"[DEFAULT]\ntransport_url = {url}\n[zmq_proxy_opts]\nhost = 127.0.0.1\n"
    process = deployment.start(config=config)
    messages = manager.told_of("READY")
    status = "forwarding: router, publisher; the matchmaker cannot be reached"
    assert messages == [{"READY": "1", "STATUS": status}]
    process.process.send_signal(signal.SIGTERM)
    assert list(manager.told()) == ["STOPPING", "STATUS", "EXTEND_TIMEOUT_USEC"]
    assert process.process.wait(15) == 0


def test_a_manager_that_is_gone_does_not_hold_up_the_proxy(
    deployment: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    process = deployment.start()
    deployment.endpoints(process)
    assert process.end() == 0
    assert "cannot tell the service manager READY=1" in process.output


def unit() -> configparser.ConfigParser:
    """The unit as systemd reads it."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text())
    return parser


def test_the_unit_starts_the_command_with_options_that_it_knows(deployment: Any) -> None:
    service = unit()["Service"]
    command, *arguments = service["ExecStart"].split()
    _, text = deployment.run("--help")
    assert Path(command).name == "zmq-proxy"
    for argument in arguments:
        assert not argument.startswith("-") or argument in text
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert service["User"] != "root"
    linger, matchmaker = 5, 10
    assert int(service["TimeoutStopSec"]) >= linger + matchmaker


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "zmq-proxy.service"
    # It wants a command that exists.
    copy.write_text(UNIT.read_text().replace("/usr/bin/zmq-proxy", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "zmq-proxy" in line]
    assert (done.returncode, said) == (0, []), done.stderr
