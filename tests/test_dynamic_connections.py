# SPDX-License-Identifier: Apache-2.0
"""`use_dynamic_connections`: few connections, however many servers there are."""

from __future__ import annotations

import functools
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator

import oslo_messaging
import pytest

from harness.cloud import Cloud
from harness.leaks import open_descriptors, wait_until
from harness.services import Child, python
from harness.traffic import Callers, at_once, client, established
from zmq_matchmaker.testing import RedisServer

NAMES = ("one", "two", "three", "four")
TARGETS = 500
CALLS = 100_000
MOST = 50


@pytest.fixture
def few(cloud: Cloud) -> Cloud:
    """A cloud whose processes use two servers of a topic."""
    cloud.configure(
        use_dynamic_connections=True,
        use_pub_sub=False,
        zmq_failover_connections=1,
        zmq_idle_timeout=1,
    )
    return cloud


def test_a_process_uses_one_server_and_so_many_more_until_one_of_them_fails(few: Cloud) -> None:
    services = dict(zip(NAMES, few.services(NAMES), strict=True))
    caller = client(few.transport())

    def used() -> Counter[str]:
        return Counter(caller.call({}, "whoami")[0] for _ in range(20))

    before = used()
    assert sorted(before.values()) == [10, 10]
    assert len(established(os.getpid())) == 2
    dead = min(before)
    with Callers(lambda: caller.call({}, "echo", value=1)) as callers:
        callers.more(100)
        services[dead].kill()
        callers.more(500)
    assert len(callers.failures) <= 8, "each caller has one call out"
    after = used()
    assert sorted(after.values()) == [10, 10]
    assert set(before) - set(after) == {dead}
    assert len(established(os.getpid())) == 2


def test_different_processes_use_different_servers(few: Cloud) -> None:
    few.services(NAMES, journal=os.devnull)
    callers = at_once([functools.partial(few.caller, name="c", journal=os.devnull)] * 4)
    used: set[str] = set()
    for caller in callers:
        report = caller.until(lambda report: len(report["answers"]) == 2, "both are used")
        used |= set(report["answers"])
    for caller in callers:
        assert set(caller.stop()["answers"]) <= set(NAMES)
    assert len(used) > 2, "all the same for one in 216 only"


def test_a_call_to_a_server_and_a_fanout_go_where_they_are_meant_for(few: Cloud) -> None:
    few.services(NAMES)
    transport = few.transport()
    for name in NAMES:
        assert client(transport, server=name).call({}, "whoami")[0] == name
    client(transport, fanout=True).cast({}, "note", text="all")
    for name in NAMES:
        directed = client(transport, server=name)
        wait_until(lambda: directed.call({}, "noted") == ["all"], "each has it")  # noqa: B023
    wait_until(lambda: not established(os.getpid()), "those that are idle are closed")


@pytest.fixture
def crowd(redis_url: str) -> Iterator[list[str]]:
    """Servers enough, each with a node of its own; their names."""
    names = [f"server-{number}" for number in range(TARGETS)]
    configs = [{"url": redis_url, "topic": "crowd", "names": names[part::4]} for part in range(4)]

    def start(config: object) -> Child:
        child = Child(python("-W", "ignore", "-m", "harness.crowd", json.dumps(config)))
        child.hear(timeout=60)
        return child

    children = at_once(functools.partial(start, config) for config in configs)
    yield names
    for child in children:
        child.process.terminate()
    for child in children:
        assert child.hear(timeout=60) == {"stopped": True}
        child.__exit__(None, None, None)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_hundred_thousand_calls_to_five_hundred_servers_take_few_connections_and_leak_none(
    crowd: list[str], redis_cloud: Cloud, redis_server: RedisServer
) -> None:
    redis_cloud.configure(
        use_dynamic_connections=True,
        use_pub_sub=False,
        zmq_max_connections=MOST,
        zmq_idle_timeout=1,
    )
    transport = redis_cloud.transport()
    before = len(open_descriptors())
    most, failures = 0, []
    threads = 4

    def links() -> int:
        return sum(link.raddr.port != redis_server.port for link in established(os.getpid()))

    def call_all(seed: int) -> None:
        order = random.Random(seed)
        caller = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(topic="crowd"), timeout=30
        )
        for _ in range(CALLS // threads // TARGETS // 10):
            for name in order.sample(crowd, TARGETS):
                directed = caller.prepare(server=name)
                for _ in range(10):
                    answer = directed.call({}, "whoami")
                    if answer != name:
                        failures.append((name, answer))

    workers = [threading.Thread(target=call_all, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        most = max(most, links())
        workers[0].join(0.2)
    assert failures == []
    assert MOST / 2 < most <= MOST + 2 * threads, "a few more, while others are being closed"
    wait_until(lambda: not links(), "those that are idle are closed")
    wait_until(lambda: len(open_descriptors()) <= before + 20, "nothing is left of them")
