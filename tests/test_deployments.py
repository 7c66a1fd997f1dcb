# SPDX-License-Identifier: Apache-2.0
"""Every page of docs/deployment, run as it stands there on this host."""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import oslo_messaging
import psutil
import pytest
from oslo_config import cfg

from harness.leaks import wait_until
from harness.proxies import ProxyProcess
from harness.service import Listening
from harness.services import Service
from harness.traffic import at_once, client
from zmq_matchmaker import Role

PAGES = Path(__file__).resolve().parent.parent / "docs" / "deployment"
SENDERS, LISTENERS, PROXIES, HOSTS = 1, 2, 2, 1
NAMES = ["one", "two"]


def pages() -> list[str]:
    """All of them but the overview."""
    return sorted(page.name for page in PAGES.glob("*.md") if page.name != "README.md")


class Page:
    """The blocks of a page, made to run here: another matchmaker, address, and other ports."""

    def __init__(self, name: str, url: str) -> None:
        self.text = (PAGES / name).read_text()
        self._url = url
        self.blocks: dict[str, str] = dict(
            re.findall(r"^```ini\n# ([a-z ]+)\n(.*?)^```", self.text, re.M | re.S)
        )

    def config(self, block: str, ports: dict[str, str]) -> str:
        """The text of that block; `ports` are to be in place of those that are named."""
        text = self.blocks[block]
        text = re.sub(r"transport_url = .*", f"transport_url = {self._url}", text)
        text = text.replace("eth1", "127.0.0.1").replace("timeout = 60", "timeout = 3")
        assert "127.0.0.1" in text
        for named, port in ports.items():
            text = text.replace(named, port)
        return text

    @property
    def connections(self) -> list[int]:
        """What the page says of their number."""
        (line,) = re.findall(r"^- Connections: (.*)", self.text, re.M)
        formulas = re.findall(r"`([NMPH0-9*+() ]+)`", line)
        numbers = {"N": SENDERS, "M": LISTENERS, "P": PROXIES, "H": HOSTS}
        return [eval(formula, {}, numbers) for formula in formulas]


def free_ports(number: int) -> list[str]:
    """So many ports of 127.0.0.1 that nobody listens on."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def ports_of(number: int) -> list[dict[str, str]]:
    """For so many processes, what is to stand in place of 50001 to 50004; 50005 is for all."""
    ports = free_ports(4 * number + 1)
    return [
        {"50005": ports[-1]}
        | {str(50001 + index): ports[4 * process + index] for index in range(4)}
        for process in range(number)
    ]


@pytest.fixture
def start_proxy(nothing_is_left_behind: None, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a proxy of a page and waits until it is ready; it is ended with the test."""
    made: list[ProxyProcess] = []

    def start(url: str, config: str, folder: str) -> ProxyProcess:
        (tmp_path / folder).mkdir()
        proxy = ProxyProcess.of_config(tmp_path / folder, url, config)
        made.append(proxy)
        local = "local_publisher" in config
        roles = [Role.ROUTER] * ("backend_port" in config)
        roles += [Role.PUBLISHER] * ("publisher_port" in config)
        proxy.await_ready([] if local else roles)
        return proxy

    yield start
    for proxy in made:
        proxy.kill()


def connections_between(processes: list[int]) -> int:
    """How many TCP connections they have with each other, those of one with itself left out."""
    ends = [
        (pid, connection)
        for pid in processes
        for connection in psutil.Process(pid).net_connections("tcp")
    ]
    listening = {c.laddr.port: pid for pid, c in ends if c.status == psutil.CONN_LISTEN}
    return sum(
        c.status == psutil.CONN_ESTABLISHED and listening.get(c.raddr.port, pid) != pid
        for pid, c in ends
    )


def every_pattern_works(transport: Any, notifier: Any) -> None:
    """Calls, a cast, a fanout and a notification arrive as often as they should."""
    for name in NAMES:
        assert client(transport, server=name).call({}, "whoami")[0] == name
    assert {client(transport).call({}, "whoami")[0] for _ in range(10)} == set(NAMES)
    client(transport, server="one").cast({}, "note", text="one")
    client(transport).prepare(fanout=True).cast({}, "note", text="all")
    notifier.info({}, "event", {})

    def got(method: str) -> list[list[Any]]:
        return [client(transport, server=name).call({}, method) for name in NAMES]

    wait_until(lambda: sorted(map(sorted, got("noted"))) == [["all"], ["all", "one"]], "casts")
    wait_until(lambda: sum(map(len, got("notified"))) == 1, "one has the notification")


@pytest.mark.parametrize("name", pages())
def test_a_deployment_works_as_its_page_says(
    name: str,
    file_url: str,
    conf: cfg.ConfigOpts,
    start_proxy: Any,
    make_service: Any,
    make_transport: Any,
    tmp_path: Path,
) -> None:
    page = Page(name, file_url)
    ports = ports_of(PROXIES)
    proxies: list[ProxyProcess] = []
    if "proxy" in page.blocks:
        proxies += at_once(
            functools.partial(start_proxy, file_url, page.config("proxy", taken), f"proxy-{index}")
            for index, taken in enumerate(ports)
        )
    if "local publisher" in page.blocks:
        proxies.append(start_proxy(file_url, page.config("local publisher", ports[0]), "local"))
    services_file = tmp_path / "services.conf"
    services_file.write_text(page.config("services", ports[0]))
    services: list[Service] = at_once(
        functools.partial(
            make_service,
            file_url,
            ("", "work", server),
            notifications=[Listening(topics=["events"])],
            config_file=str(services_file),
        )
        for server in NAMES
    )
    conf([f"--config-file={services_file}"], project="tests")
    transport = make_transport(file_url)
    notifier = oslo_messaging.Notifier(
        make_transport(file_url, notifications=True),
        publisher_id="tests",
        driver="messaging",
        topics=["events"],
    )
    every_pattern_works(transport, notifier)
    pids = [*(p.pid for p in proxies), *(s.pid for s in services), psutil.Process().pid]
    within_host = LISTENERS if "local publisher" in page.blocks else 0
    most, *idle = page.connections
    assert connections_between(pids) == most + within_host
    for number in idle:
        wait_until(functools.partial(settled, pids, number), "those that are idle are closed")


def settled(pids: list[int], number: int) -> bool:
    """Whether they have so many connections with each other."""
    return connections_between(pids) == number


def test_the_overview_names_every_page() -> None:
    overview = (PAGES / "README.md").read_text()
    assert all(f"]({name})" in overview for name in pages())
