# SPDX-License-Identifier: Apache-2.0
"""`use_dynamic_connections`: few connections, however many servers there are."""

from __future__ import annotations

import functools
import os
from collections import Counter

import pytest

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.many import SETTINGS, call_many, crowd
from harness.traffic import Callers, at_once, client, established
from zmq_matchmaker.testing import RedisServer

NAMES = ("one", "two", "three", "four")
TARGETS = 100
CALLS = 10_000
MOST = 20


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
    callers = at_once([functools.partial(few.caller, name="c", journal=os.devnull)] * 8)
    used: set[str] = set()
    for caller in callers:
        report = caller.until(lambda report: len(report["answers"]) == 2, "both are used")
        used |= set(report["answers"])
    for caller in callers:
        assert set(caller.stop()["answers"]) <= set(NAMES)
    assert len(used) > 2, "all the same for one in 280,000 only"


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


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_many_calls_to_many_servers_take_few_connections_and_leave_none(
    redis_url: str, redis_cloud: Cloud, redis_server: RedisServer
) -> None:
    """Fewer than `python -m harness.many` makes by hand."""
    names = [f"server-{number}" for number in range(TARGETS)]
    redis_cloud.configure(**SETTINGS, zmq_max_connections=MOST)
    with crowd(redis_url, names):
        outcome = call_many(redis_server, redis_cloud.transport(), names, CALLS)
    assert outcome.fault(CALLS, MOST) == ""
