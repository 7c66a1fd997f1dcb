# SPDX-License-Identifier: Apache-2.0
"""Calls, casts and notifications through router proxies, in processes of their own."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
import signal
import threading
import time
from typing import Any

import oslo_messaging
import psutil
import pytest
from oslo_messaging import MessageDeliveryFailure, MessagingTimeout, Target

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.proxies import ProxyProcess
from harness.service import Listening
from harness.traffic import Callers, client, established
from zmq_matchmaker import Key, Record, Role
from zmq_oslo_driver.errors import ServerLost

PROXIED = {"use_router_proxy": True, "use_pub_sub": False}
NO_CONNECTION = r"no proxy has a connection to it; if it lives, does it have use_router_proxy"


@pytest.fixture
def cloud(cloud: Cloud) -> Cloud:
    """Everything goes through routers."""
    cloud.configure(**PROXIED)
    return cloud


@pytest.fixture
def any_cloud(any_cloud: Cloud) -> Cloud:
    """The same."""
    any_cloud.configure(**PROXIED)
    return any_cloud


def connected(pid: int, proxy: ProxyProcess) -> bool:
    """Whether a process has its two connections to `proxy`."""
    return {*proxy.ports} <= {connection.raddr.port for connection in established(pid)}


def test_every_pattern_goes_through_the_proxies_and_nothing_past_them(any_cloud: Cloud) -> None:
    proxies = any_cloud.proxies(2)
    heard = [Listening(topics=["events"])]
    services = [any_cloud.service(name, notifications=heard) for name in ("one", "two")]
    transport = any_cloud.transport()
    caller = client(transport)
    assert {caller.call({}, "whoami")[0] for _ in range(20)} == {"one", "two"}
    assert client(transport, server="two").call({}, "whoami")[0] == "two"
    with pytest.raises(oslo_messaging.RemoteError, match="no_such_method"):
        caller.call({}, "no_such_method")
    caller.prepare(fanout=True).cast({}, "note", text="all")
    client(transport, server="one").cast({}, "note", text="one")
    notifier = oslo_messaging.Notifier(
        any_cloud.transport(notifications=True),
        publisher_id="tests",
        driver="messaging",
        topics=["events"],
    )
    notifier.info({}, "event", {})

    def noted() -> list[list[str]]:
        return [client(transport, server=n).call({}, "noted") for n in ("one", "two")]

    wait_until(lambda: sorted(map(sorted, noted())) == [["all"], ["all", "one"]], "casts came")

    def events() -> int:
        return sum(len(client(transport, server=n).call({}, "notified")) for n in ("one", "two"))

    wait_until(lambda: events() == 1, "one of the listeners has the event")
    ports = {port for proxy in proxies for port in proxy.ports}
    for service in services:
        peers = [connection.raddr.port for connection in established(service.pid)]
        peers = [port for port in peers if "redis" not in any_cloud.url or port in ports]
        assert sorted(peers) == sorted(ports), "one connection to each port of each proxy"
    # (N + M) processes with two connections to each of P proxies.
    for proxy in proxies:
        taken = [c for c in established(proxy.process.pid) if c.laddr.port in proxy.ports]
        assert len(taken) == 3 * 2
    own = {c.raddr.port for c in established(psutil.Process().pid)}
    listening = {
        c.laddr.port
        for service in services
        for c in psutil.Process(service.pid).net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    }
    assert listening, "they could be connected to"
    assert not own & listening, "but are not"


def test_a_service_under_eventlet_uses_them_too(cloud: Cloud) -> None:
    proxy = cloud.proxy()
    service = cloud.service("one", eventlet=True)
    caller = client(cloud.transport())
    assert [caller.call({}, "echo", value=value) for value in range(50)] == list(range(50))
    assert connected(service.pid, proxy)
    said = service.stop()
    assert all(said["after"][name] <= said["before"][name] for name in said["before"]), said


def test_what_reaches_a_process_that_closes_comes_back(cloud: Cloud) -> None:
    cloud.proxy()
    services = [cloud.service(n) for n in ("one", "two")]
    caller = client(cloud.transport())
    caller.call({}, "echo", value=1)
    stopped = threading.Event()
    sent = itertools.count()

    def cast_on() -> None:
        while not stopped.is_set():
            caller.cast({}, "note", text=str(next(sent)))
            stopped.wait(0.001)

    thread = threading.Thread(target=cast_on)
    thread.start()
    stayed = client(caller.transport, server="two")
    wait_until(lambda: len(stayed.call({}, "noted")) > 50, "both get some")
    taken = services[0].stop()["noted"]
    stopped.set()
    thread.join()
    number = next(sent)
    wait_until(lambda: taken + len(stayed.call({}, "noted")) == number, "none was lost")


def test_f17_a_proxy_that_is_stopped_costs_no_call(cloud: Cloud) -> None:
    proxies = cloud.proxies(3)
    cloud.service("one")
    caller = client(cloud.transport())
    with Callers(lambda: caller.call({}, "echo", value=1)) as callers:
        callers.more(200)
        assert proxies[0].stop() == 0
        callers.more(200)
        assert proxies[1].stop() == 0
        callers.more(200)
    assert callers.failures == []


def test_f15_a_proxy_that_is_killed_costs_no_more_than_what_was_inside_it(cloud: Cloud) -> None:
    proxies = cloud.proxies(3)
    cloud.service("one")
    caller = client(cloud.transport())
    with Callers(lambda: caller.call({}, "echo", value=1)) as callers:
        callers.more(200)
        proxies[0].kill()
        callers.more(2000)
    assert len(callers.failures) <= 8, "each caller has one call out"
    assert all(isinstance(error, ServerLost) for _, error in callers.failures)
    assert callers.longest_gap < 5


def test_a_call_that_is_being_worked_on_outlives_the_proxy_that_brought_it(cloud: Cloud) -> None:
    proxies = cloud.proxies(2)
    cloud.service("one")
    caller = client(cloud.transport(), timeout=30)
    caller.call({}, "echo", value=1)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(caller.call({}, "slow", seconds=4)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: caller.call({}, "begun") == 4, "the server has all four")
    proxies[0].kill()
    for thread in threads:
        thread.join()
    assert answers == ["one"] * 4


def test_the_callers_of_a_killed_server_learn_it(cloud: Cloud) -> None:
    cloud.proxy()
    service = cloud.service("one")
    caller = client(cloud.transport(), timeout=60)
    caller.call({}, "echo", value=1)
    killer = threading.Timer(1, service.kill)
    killer.start()
    began = time.monotonic()
    with pytest.raises(ServerLost, match="not connected to the proxies any more"):
        caller.call({}, "slow", seconds=50)
    assert time.monotonic() - began < 1 + 5
    killer.join()


def test_f16_without_any_proxy_the_sender_is_told_in_time_and_goes_on_with_the_next(
    cloud: Cloud,
) -> None:
    cloud.configure_transports(zmq_send_timeout=1.0)
    first = cloud.proxy()
    cloud.service("one")
    transport = cloud.transport()
    caller = client(transport, timeout=2)
    caller.call({}, "echo", value=1)
    first.kill()
    began = time.monotonic()
    with pytest.raises(MessagingTimeout, match="prox"):
        caller.call({}, "echo", value=1)
    with pytest.raises(MessageDeliveryFailure, match="prox"):
        client(transport, timeout=None).cast({}, "note", text="lost")
    assert time.monotonic() - began < 5
    cloud.configure_transports(zmq_send_timeout=0.05)
    impatient = cloud.transport()
    process, threads, size = psutil.Process(), 8, 2**20
    before = process.memory_info().rss

    def send(_: int) -> None:
        with pytest.raises(MessageDeliveryFailure, match="prox"):
            client(impatient, timeout=None).cast({}, "note", text="x" * size)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, range(200)))
    assert process.memory_info().rss - before < 8 * threads * size, "nothing of it is kept"
    cloud.proxy()
    assert client(transport, timeout=10).call({}, "echo", value=2) == 2


def test_a_new_proxy_is_used(cloud: Cloud) -> None:
    first = cloud.proxy()
    service = cloud.service("one")
    caller = client(cloud.transport())
    caller.call({}, "echo", value=1)
    second = cloud.proxy()
    for pid in (service.pid, psutil.Process().pid):
        wait_until(functools.partial(connected, pid, second), "it is connected to")
    first.kill()
    for value in range(20):
        assert caller.call({}, "echo", value=value) == value


def test_a_server_that_uses_no_proxies_is_named_to_those_who_do(cloud: Cloud) -> None:
    cloud.proxy()
    cloud.service("one", options={"use_router_proxy": False})
    caller = client(cloud.transport(), timeout=2)
    with pytest.raises(MessagingTimeout, match=NO_CONNECTION):
        caller.call({}, "echo", value=1)
    with pytest.raises(MessageDeliveryFailure, match=NO_CONNECTION):
        oslo_messaging.get_rpc_client(
            cloud.transport(), Target(topic="work"), timeout=10, retry=0
        ).call({}, "echo", value=1)


def test_casts_faster_than_their_server_are_slowed_down_and_none_is_lost(cloud: Cloud) -> None:
    cloud.proxy()
    options = {"rpc_zmq_topic_backlog": 10}
    cloud.service("one", options=options)
    caller = client(cloud.transport())
    caller.call({}, "echo", value=1)

    def cast(part: int) -> None:
        for number in range(3000):
            caller.cast({}, "note", text=f"{part} {number}")

    threads = [threading.Thread(target=cast, args=[part]) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(caller.call({}, "noted")) >= 9000, "all came", timeout=60)
    noted = caller.call({}, "noted")
    assert len(noted) == len(set(noted)) == 9000


def test_casts_to_a_server_that_is_stuck_fail_in_time(cloud: Cloud) -> None:
    cloud.configure_transports(zmq_send_timeout=1.0)
    cloud.proxy()
    service = cloud.service("one")
    caller = client(cloud.transport())
    caller.call({}, "echo", value=1)
    os.kill(service.pid, signal.SIGSTOP)
    text = "x" * 50_000

    def cast_on() -> None:
        for _ in range(20_000):
            caller.cast({}, "note", text=text)

    with pytest.raises(MessageDeliveryFailure, match="full"):
        cast_on()
    os.kill(service.pid, signal.SIGCONT)
    assert caller.call({}, "echo", value=2) == 2


@pytest.mark.parametrize("name", ["0/1/oslo/dead", "zz/1/oslo/dead"])
def test_a_record_that_a_dead_process_left_for_the_same_port_costs_no_fanout_and_no_notification(
    name: str, cloud: Cloud
) -> None:
    cloud.proxies(1)
    cloud.service("one", notifications=[Listening(topics=["events"])])
    transport = cloud.transport()
    caller = client(transport, server="one")
    directory = transport._driver._use().directory
    events = Key(Role.NOTIFICATION, "openstack", "events.info")
    for key in (Key(Role.LISTENER, "openstack", "work"), events):
        endpoint = directory.lookup(key, 5)[0].endpoint
        directory.announce([(key, Record(endpoint=endpoint, node=name))])
    notifier = oslo_messaging.Notifier(transport, "tests", driver="messaging", topics=["events"])
    for number in range(5):
        client(transport, fanout=True).cast({}, "note", text=str(number))
        notifier.info({}, str(number), {})
    wait_until(lambda: sorted(caller.call({}, "noted")) == list("01234"), "fanouts")

    def events_of_one() -> list[str]:
        return sorted(event[1] for event in caller.call({}, "notified"))

    wait_until(lambda: events_of_one() == list("01234"), "notifications")
