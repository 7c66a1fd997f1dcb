# SPDX-License-Identifier: Apache-2.0
"""What is seen of the options of `[zmq_proxy_opts]`."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from harness.options.bench import Bench, listening
from zmq_core import Endpoint
from zmq_matchmaker import Key, MatchmakerURL, Role, load
from zmq_proxy import Proxy, Settings, new_config

__all__ = [
    "address_of_metrics",
    "addresses",
    "port_of_backend",
    "port_of_frontend",
    "port_of_metrics",
    "port_of_publisher",
    "port_of_publisher_frontend",
    "registries",
    "roles",
    "running",
    "what_a_local_publisher_opens",
]

_GROUP: Final = "zmq_proxy_opts"


@contextmanager
def running(bench: Bench, role: str, **options: Any) -> Iterator[set[tuple[str, int]]]:
    """A proxy with these options and the one under test; where it listens."""
    before = listening()
    file = bench.file(
        {
            "DEFAULT": {"transport_url": bench.registry},
            "oslo_messaging_zmq": {"subscribe_on": f"127.0.0.1:{bench.base + 3}"},
            _GROUP: {"host": "127.0.0.1", "role": role, **options},
        }
    )
    conf = new_config()
    conf(
        [f"--config-file={file}", *_arguments(bench)],
        project="zmq-proxy",
        default_config_dirs=[],
    )
    with Proxy(Settings.load(conf)):
        yield listening() - before


def _arguments(bench: Bench) -> list[str]:
    """What stands on the command line: an option whose value in the file is another."""
    tried = bench.tried
    if tried is None or tried.group != _GROUP or tried.outweighed is None:
        return []
    name = tried.option.replace("_", "-")
    if tried.value in ("true", "false"):
        return [f"--{name}" if tried.value == "true" else f"--no{name}"]
    return [f"--{name}", str(bench.filled(tried.value))]


def addresses(bench: Bench) -> tuple[set[str], set[str]]:
    """On which addresses it listens, and under which it is found."""
    with running(bench, "router") as places:
        hosts = {Endpoint.parse(endpoint).host for endpoint in _endpoints(bench).values()}
        return {host for host, _ in places}, hosts


def port_of_frontend(bench: Bench) -> str:
    """Where others are told to send messages for a peer."""
    return _port(bench, Role.ROUTER, "frontend")


def port_of_backend(bench: Bench) -> str:
    """Where others are told to get them."""
    return _port(bench, Role.ROUTER, "backend")


def port_of_publisher(bench: Bench) -> str:
    """Where others are told to subscribe."""
    return _port(bench, Role.PUBLISHER, "backend")


def _port(bench: Bench, role: Role, member: str) -> str:
    with running(bench, role.value) as places:
        endpoint = Endpoint.parse(_endpoints(bench)[role, member])
        assert endpoint in {Endpoint(host, port) for host, port in places}
        return str(endpoint.port)


def port_of_publisher_frontend(bench: Bench) -> str:
    """Where it listens besides the other three; it is registered a few seconds later."""
    with running(bench, "both") as places:
        known = {Endpoint.parse(endpoint).port for endpoint in _endpoints(bench).values()}
        [port] = {port for _, port in places} - known
        return str(port)


def roles(bench: Bench) -> set[Role]:
    """As what it is found."""
    with running(bench, "both"):
        return {role for role, _ in _endpoints(bench)}


def what_a_local_publisher_opens(bench: Bench) -> tuple[set[Role], bool, int]:
    """As what it is found, whether it listens where `subscribe_on` says, and on how many ports."""
    with running(bench, "both") as places:
        place = ("127.0.0.1", bench.base + 3)
        return {role for role, _ in _endpoints(bench)}, place in places, len(places)


def registries(bench: Bench) -> list[str]:
    """In which of two registries it is found."""
    names = ["registry", "other"]
    with running(bench, "router"):
        return [name for name in names if _endpoints(bench, f"{bench.folder}/{name}/")]


def port_of_metrics(bench: Bench) -> list[int]:
    """On which of two ports it tells of itself."""
    with running(bench, "router"):
        return [n for n in (0, 1) if _is_served("127.0.0.1", bench.base + n)]


def address_of_metrics(bench: Bench) -> list[str]:
    """On which of two addresses it tells of itself."""
    with running(bench, "router", metrics_port=bench.base):
        return [host for host in ("127.0.0.1", "127.0.0.2") if _is_served(host, bench.base)]


def _is_served(host: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _endpoints(bench: Bench, folder: str = "") -> dict[tuple[Role, str], str]:
    """What is registered."""
    matchmaker = load(MatchmakerURL.parse(f"file://{folder or f'{bench.folder}/registry/'}"))
    try:
        wanted = [Role.ROUTER, Role.PUBLISHER]
        found = matchmaker.lookup([Key(role) for role in wanted])
    finally:
        matchmaker.close()
    return {
        (role, record.member): record.endpoint
        for role, records in zip(wanted, found, strict=True)
        for record in records
    }
