# SPDX-License-Identifier: Apache-2.0
"""Where an option is tried: configuration files, and transports made from them."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import oslo_messaging
import psutil
from oslo_config import cfg
from oslo_messaging.conffixture import ConfFixture

from harness.leaks import wait_until
from harness.traffic import at_once
from zmq_matchmaker import Key, MatchmakerURL, Record, Role, load
from zmq_matchmaker.testing import RedisServer

__all__ = ["LISTENERS", "Bench", "Endpoint", "Tried", "client", "connections_to", "listening"]

_GROUP = "oslo_messaging_zmq"
LISTENERS = Key(Role.LISTENER, "openstack", "work")


class Tried(NamedTuple):
    """The option under test, as text."""

    group: str
    option: str
    value: str
    outweighed: str | None = None
    """What the file says, where `value` stands in the URL's query or on the command line."""

    @property
    def in_file(self) -> str:
        """What the configuration file says of it."""
        return self.value if self.outweighed is None else self.outweighed


class Endpoint:
    """The methods that are called."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.gate = threading.Event()

    def note(self, ctxt: dict[str, Any], text: str) -> None:
        self.noted.append(text)

    def echo(self, ctxt: dict[str, Any], text: str) -> str:
        return text

    def wait(self, ctxt: dict[str, Any]) -> None:
        """Until the test opens the gate."""
        self.gate.wait(20)


class Bench:
    """One trial of one option, in a folder of its own."""

    def __init__(self, folder: Path, redis_server: RedisServer, tried: Tried | None = None) -> None:
        self.folder = folder / uuid.uuid4().hex
        self.folder.mkdir()
        self.redis_server = redis_server
        self.tried = tried
        self.base = _four_free_ports()
        self.places = {f"port{n}": str(self.base + n) for n in range(4)}
        self.places["folder"] = str(self.folder)
        self._numbers = itertools.count()
        self._servers: list[Any] = []

    @classmethod
    def close(cls, benches: Iterable[Bench]) -> None:
        """Wait for the servers' threads, for all at once: each looks up once a second."""
        at_once(server.wait for bench in benches for server in bench._servers)

    def filled(self, thing: Any) -> Any:
        """A text, or those in a list, with what this bench has instead of names in braces."""
        if isinstance(thing, str):
            return thing.format_map(self.places)
        return [self.filled(item) for item in thing] if isinstance(thing, list) else thing

    @property
    def registry(self) -> str:
        """A transport URL with a matchmaker that works between processes."""
        return f"zmq+file://{self.folder}/registry/"

    def table(self, *ports: int, role: str = "listener", topic: str = "work") -> str:
        """A transport URL by which the listeners on `topic` are at these ports."""
        hosts = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        file = self.folder / f"table-{next(self._numbers)}.toml"
        file.write_text(f'[[listeners]]\nrole = "{role}"\ntopic = "{topic}"\nhosts = [{hosts}]\n')
        return f"zmq+file://{file}"

    def records(self, url: str, key: Key = LISTENERS, count: int = 1) -> tuple[Record, ...]:
        """What is registered, as soon as it is so many."""
        matchmaker = load(MatchmakerURL.parse(url))
        try:
            wait_until(lambda: len(matchmaker.lookup([key])[0]) >= count, f"{count} records")
            return matchmaker.lookup([key])[0]
        finally:
            matchmaker.close()

    def file(self, options: Mapping[str, Mapping[str, Any]], *, tried: bool = True) -> Path:
        """A configuration file with these options by group, and the one under test."""
        groups = {name: dict(values) for name, values in options.items()}
        if tried and self.tried is not None:
            text = self.filled(self.tried.in_file)
            groups.setdefault(self.tried.group, {})[self.tried.option] = text
        file = self.folder / f"service-{next(self._numbers)}.conf"
        lines = []
        for name, values in groups.items():
            lines += [f"[{name}]", *(f"{option} = {text}" for option, text in values.items())]
        file.write_text("\n".join([*lines, ""]))
        return file

    @contextmanager
    def conf(
        self, options: Mapping[str, Mapping[str, Any]], *, tried: bool = True
    ) -> Iterator[cfg.ConfigOpts]:
        """A service's configuration, read from such a file."""
        conf = cfg.ConfigOpts()
        fixture = ConfFixture(conf)
        fixture.setUp()
        try:
            file = self.file(options, tried=tried)
            conf([f"--config-file={file}"], project="tests", default_config_dirs=[])
            yield conf
        finally:
            fixture.cleanUp()

    @contextmanager
    def transport(
        self,
        url: str,
        *,
        tried: bool = True,
        notifications: bool = False,
        redis: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """A transport with these options and the one under test, or an ordinary one."""
        make = (
            oslo_messaging.get_notification_transport
            if notifications
            else oslo_messaging.get_rpc_transport
        )
        options = {"rpc_zmq_bind_address": "127.0.0.1", "zmq_linger": 0, **options}
        if tried and self.tried is not None and self.tried.outweighed is not None:
            value = self.filled(self.tried.value)
            url = f"{url}?{urlencode({self.tried.option: value})}"
        groups = {_GROUP: options, "matchmaker_redis": redis or {}}
        with self.conf(groups, tried=tried) as conf:
            transport = make(conf, url=url)
            try:
                yield transport
            finally:
                transport.cleanup()

    @contextmanager
    def server(
        self, url: str, *, tried: bool = True, workers: int = 1, **options: Any
    ) -> Iterator[Endpoint]:
        """A server on `work`, on a transport of its own."""
        endpoint = Endpoint()
        with self.transport(url, tried=tried, **options) as transport:
            server = oslo_messaging.get_rpc_server(
                transport,
                oslo_messaging.Target(topic="work", server="one"),
                [endpoint],
                executor="threading",
            )
            server.start(override_pool_size=workers)
            try:
                yield endpoint
            finally:
                endpoint.gate.set()
                server.stop()
                self._servers.append(server)

    @contextmanager
    def busy(self, *ports: int) -> Iterator[None]:
        """Somebody else listens on these ports."""
        with ExitStack() as stack:
            for port in ports:
                holder = stack.enter_context(socket.socket())
                holder.bind(("127.0.0.1", port))
                holder.listen()
            yield


def client(transport: Any, timeout: float = 10, retry: int | None = None) -> Any:
    """A client of `work`."""
    target = oslo_messaging.Target(topic="work")
    return oslo_messaging.get_rpc_client(transport, target, timeout=timeout, retry=retry)


def connections_to(port: int) -> dict[int, int]:
    """This process's connections to that port: our port, and the descriptor."""
    return {
        connection.laddr.port: connection.fd
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port == port
    }


def listening() -> set[tuple[str, int]]:
    """The addresses and ports on which this process listens; `*` is any address."""
    return {
        (_plain(connection.laddr.ip), connection.laddr.port)
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def _plain(address: str) -> str:
    """As an operator would write it: libzmq's sockets are of IPv6, also for IPv4."""
    return "*" if address in ("::", "0.0.0.0") else address.removeprefix("::ffff:")


def _four_free_ports() -> int:
    """The first of four ports in a row that nobody listens on, and that nobody else is given."""
    for first in _FIRST_PORTS:
        with ExitStack() as stack:
            try:
                for port in range(first, first + 4):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no four free ports in a row")


# Below those that the system gives to connections; other runs begin elsewhere.
_FIRST_PORTS = itertools.count(random.randrange(20000, 30000, 4), 4)
