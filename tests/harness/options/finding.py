# SPDX-License-Identifier: Apache-2.0
"""What is seen of the options that are about who listens where, and of proxies' roads."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import zmq

from harness.leaks import wait_until
from harness.options.bench import Bench, client, connections_to
from harness.options.peers import Ear
from harness.options.proxies import running
from zmq_core import Endpoint

__all__ = [
    "first_pause_of_a_dead_host",
    "fourth_pause_of_a_dead_host",
    "goes_directly",
    "matchmaker_of_a_url_without",
    "publishers_subscribed_at",
    "refreshes",
    "seconds_to_live",
]


def matchmaker_of_a_url_without(bench: Bench) -> str:
    """Where a server registers whose URL is `zmq://`."""
    with bench.server(f"zmq:///{bench.folder}/registry/"):
        found = (bench.folder / "registry").exists()
        return "in the folder" if found else "in the process"


def seconds_to_live(bench: Bench) -> float:
    """How long a record has to live in Redis when it was made."""
    with _registered_in_redis(bench) as (admin, name):
        ends = admin.zrange(name, 0, -1, withscores=True)[0][1]
        return math.inf if ends == math.inf else ends / _unit(ends) - time.time()


def refreshes(bench: Bench) -> bool:
    """Whether a record is refreshed within 1.8 seconds."""
    with _registered_in_redis(bench) as (admin, name):

        def ends() -> float:
            return float(admin.zrange(name, 0, -1, withscores=True)[0][1])

        first, until = ends(), time.monotonic() + 1.8
        wait_until(lambda: ends() > first or time.monotonic() > until, "a while")
        return ends() > first


def _unit(moment: float) -> float:
    """How many of what Redis counts in are a second."""
    return 10.0 ** (round(math.log10(moment)) - 9)


@contextmanager
def _registered_in_redis(bench: Bench) -> Iterator[tuple[Any, str]]:
    deployment = bench.folder.name
    with (
        bench.server(f"zmq+{bench.redis_server.url}/{deployment}"),
        bench.redis_server.client() as admin,
    ):
        name = f"zmq:{{{deployment}}}:leases"
        wait_until(lambda: admin.exists(name), "it is registered")
        yield admin, name


def first_pause_of_a_dead_host(bench: Bench) -> float:
    """After how many seconds a host that did not answer is tried again."""
    return _pauses_of_a_dead_host(bench, 1)[0]


def fourth_pause_of_a_dead_host(bench: Bench) -> float:
    """The same after it has failed four times, from a pause of 0.1 s on."""
    return _pauses_of_a_dead_host(bench, 4)[3]


def _pauses_of_a_dead_host(bench: Bench, count: int) -> list[float]:
    port = bench.base
    options: dict[str, Any] = {"rpc_zmq_min_port": port, "rpc_zmq_max_port": port + 1}
    with (
        Ear(drops=True) as dead,
        bench.server(bench.table(port, dead.port), tried=False, **options),
        bench.transport(bench.table(port, dead.port), zmq_nack_pause=0.1) as transport,
    ):
        caller = client(transport)

        def tried() -> bool:
            caller.call({}, "echo", text="x")
            return len(dead.connected) > count

        wait_until(tried, "tried again so often")
        times = dead.connected
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def goes_directly(bench: Bench) -> bool:
    """Whether a call makes a connection from client to server."""
    options: dict[str, Any] = {"use_pub_sub": False, "zmq_linger": 1}
    with (
        running(bench, "router"),
        bench.server(bench.registry, **options),
        bench.transport(bench.registry, **options, zmq_notify_timeout=2) as transport,
    ):
        assert client(transport).call({}, "echo", text="x") == "x"
        [record] = bench.records(bench.registry)
        return bool(connections_to(Endpoint.parse(record.endpoint).port))


def publishers_subscribed_at(bench: Bench) -> list[int]:
    """At which of two publishers a server subscribes, the first being the local one."""
    ports = [bench.base, bench.base + 1]
    options: dict[str, Any] = {"subscribe_on": f"127.0.0.1:{ports[0]}", "zmq_connect_timeout": 0.3}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        publishers = [context.socket(zmq.XPUB) for _ in ports]
        for publisher, port in zip(publishers, ports, strict=True):
            publisher.bind(f"tcp://127.0.0.1:{port}")
        with ExitStack() as stack:
            stack.enter_context(bench.server(bench.registry, **options))
            return [n for n, publisher in enumerate(publishers) if publisher.poll(200)]
    finally:
        context.destroy(linger=0)
