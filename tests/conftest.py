# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests that cross packages."""

from __future__ import annotations

import gc
import itertools
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg
from oslo_messaging.conffixture import ConfFixture

from harness.cloud import Cloud
from harness.leaks import assert_nothing_left, holdings
from harness.nursery import Nursery
from harness.proxies import ProxyProcess
from harness.services import CallerProcess, Service, make_nursery
from zmq_matchmaker.testing import RedisServer

MakeTransport = Callable[..., Any]
MakeProxy = Callable[..., ProxyProcess]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts services and callers, for all tests."""
    made = make_nursery()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test returns every thread, descriptor and process that it took."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if "redis_url" in request.fixturenames or parameters.get("url") == "redis":
        request.getfixturevalue("redis_server")  # lives longer than this test
    if "nursery" in request.fixturenames:
        request.getfixturevalue("nursery")  # does, too
    gc.collect()
    before = holdings()
    yield
    gc.collect()
    assert_nothing_left(before)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real Redis for all tests; each test has a deployment of its own in it."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A deployment that nobody else uses."""
    return f"zmq+{redis_server.url}/{uuid.uuid4().hex}"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """A registry that nobody else uses."""
    return f"zmq+file://{tmp_path}/registry/"


@pytest.fixture(params=["redis", "file"])
def url(request: pytest.FixtureRequest) -> str:
    """A transport URL, with each matchmaker that works between processes."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def conf() -> Iterator[cfg.ConfigOpts]:
    """A configuration of the test's own, bound to the loopback adapter."""
    from zmq_oslo_driver import options

    conf = cfg.ConfigOpts()
    fixture = ConfFixture(conf)
    fixture.setUp()
    conf([], project="tests")
    options.register(conf)
    conf.set_override("rpc_zmq_bind_address", "127.0.0.1", group=options.GROUP)
    yield conf
    fixture.cleanUp()


@pytest.fixture
def make_transport(conf: cfg.ConfigOpts) -> Iterator[MakeTransport]:
    """Makes transports and cleans them up."""
    made = []

    def make(url: str, *, notifications: bool = False, **settings: Any) -> Any:
        factory = (
            oslo_messaging.get_notification_transport
            if notifications
            else oslo_messaging.get_rpc_transport
        )
        transport = factory(conf, url=url, **settings)
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.cleanup()


@pytest.fixture
def make_service(nursery: Nursery) -> Iterator[Callable[..., Service]]:
    """Starts service processes and ends them."""
    made: list[Service] = []

    def make(url: str, *servers: tuple[str, str, str], **config: Any) -> Service:
        options = {"rpc_zmq_bind_address": "127.0.0.1", **config.pop("options", {})}
        service = Service(url, *servers, options=options, nursery=nursery, **config)
        made.append(service)
        return service

    yield make
    for service in made:
        service.__exit__(None, None, None)


@pytest.fixture
def make_caller(
    nothing_is_left_behind: None, nursery: Nursery
) -> Iterator[Callable[..., CallerProcess]]:
    """Starts processes that send without pause, and ends them."""
    made: list[CallerProcess] = []

    def make(url: str, **config: Any) -> CallerProcess:
        options = {"rpc_zmq_bind_address": "127.0.0.1", **config.pop("options", {})}
        made.append(CallerProcess(url, options=options, nursery=nursery, **config))
        return made[-1]

    yield make
    for caller in made:
        caller.__exit__(None, None, None)


@pytest.fixture
def make_proxy(
    nothing_is_left_behind: None, tmp_path: Path
) -> Iterator[Callable[..., ProxyProcess]]:
    """Starts proxies and ends them."""
    made: list[ProxyProcess] = []

    numbers = itertools.count()

    def make(url: str, services: Mapping[str, Any] | None = None, **options: Any) -> ProxyProcess:
        folder = tmp_path / f"proxy-{next(numbers)}"
        folder.mkdir()
        made.append(ProxyProcess(folder, url, services, **options))
        return made[-1]

    yield make
    for proxy in made:
        proxy.kill()


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cloud(
    file_url: str,
    conf: cfg.ConfigOpts,
    make_proxy: MakeProxy,
    make_service: Callable[..., Service],
    make_transport: MakeTransport,
    make_caller: Callable[..., CallerProcess],
) -> Cloud:
    """A deployment on a registry of its own."""
    return Cloud(file_url, conf, make_proxy, make_service, make_transport, make_caller)


@pytest.fixture
def any_cloud(
    url: str,
    conf: cfg.ConfigOpts,
    make_proxy: MakeProxy,
    make_service: Callable[..., Service],
    make_transport: MakeTransport,
    make_caller: Callable[..., CallerProcess],
) -> Cloud:
    """The same with each matchmaker that works between processes."""
    return Cloud(url, conf, make_proxy, make_service, make_transport, make_caller)


@pytest.fixture
def redis_cloud(
    redis_url: str,
    conf: cfg.ConfigOpts,
    make_proxy: MakeProxy,
    make_service: Callable[..., Service],
    make_transport: MakeTransport,
    make_caller: Callable[..., CallerProcess],
) -> Cloud:
    """The same with a Redis."""
    return Cloud(redis_url, conf, make_proxy, make_service, make_transport, make_caller)
