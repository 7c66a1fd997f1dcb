# SPDX-License-Identifier: Apache-2.0
"""Fanouts through publishers, in processes of their own."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import oslo_messaging
import pytest

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.proxies import ProxyProcess
from harness.service import Listening
from harness.traffic import client, established


def publishers(cloud: Cloud, number: int = 2) -> list[ProxyProcess]:
    """So many proxies that publish and do not route."""
    return cloud.proxies(number, role="publisher")


def noted(transport: Any, name: str) -> Counter[str]:
    """How often the service of that name got which note."""
    return Counter(client(transport, server=name).call({}, "noted"))


def await_notes(transport: Any, names: Sequence[str], wanted: Iterable[object]) -> None:
    """Wait until each of these services has got exactly that, each once."""
    once = Counter(map(str, wanted))
    got: dict[str, Counter[str]] = {}

    def all_there() -> bool:
        got.update((name, noted(transport, name)) for name in names)
        return all(notes == once for notes in got.values())

    with contextlib.suppress(AssertionError):
        wait_until(all_there, "everybody has all of them once")
    for name, notes in got.items():
        assert (name, once - notes, notes - once) == (name, Counter(), Counter())


def test_a_fanout_reaches_every_listener_once_with_any_number_of_publishers(
    any_cloud: Cloud,
) -> None:
    proxies = publishers(any_cloud)
    names = ["one", "two", "three"]
    processes = any_cloud.services(names, "work-x")
    transport = any_cloud.transport()
    caster = client(transport).prepare(fanout=True)
    for number in range(20):
        caster.cast({}, "note", text=str(number))
    await_notes(transport, names, range(20))
    for service in processes:
        ports = {connection.raddr.port for connection in established(service.pid)}
        assert all(set(proxy.ports) <= ports for proxy in proxies), "they subscribe at all"


def test_the_sender_of_a_fanout_connects_to_publishers_only(cloud: Cloud) -> None:
    publishers(cloud)
    names = ["one", "two", "three"]
    cloud.services(names)
    sender = cloud.service("s", "sender")
    transport = cloud.transport()
    before = len(established(sender.pid))
    for number in range(5):
        client(transport, server="s").prepare(topic="sender").call(
            {}, "fan_out", topic="work", text=str(number)
        )
    await_notes(transport, names, range(5))
    assert len(established(sender.pid)) == before + 1, "this test's own connection"


def test_a_server_that_has_started_misses_no_fanout(redis_cloud: Cloud) -> None:
    publishers(redis_cloud)
    transport = redis_cloud.transport()
    caster = client(transport).prepare(fanout=True)
    names: list[str] = []
    wanted: dict[str, Counter[str]] = {}
    for number in range(3):
        names.append(f"server-{number}")
        wanted[names[-1]] = Counter()
        redis_cloud.service(names[-1])
        caster.cast({}, "note", text=str(number))  # at once
        for name in names:
            wanted[name][str(number)] += 1
    wait_until(lambda: all(noted(transport, n) == wanted[n] for n in names), "nothing is missed")


def test_without_a_publisher_everybody_gets_a_copy_and_one_warning_is_logged(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["one", "two"]
    cloud.services(names)
    transport = cloud.transport()
    with caplog.at_level(logging.WARNING):
        for number in range(10):
            client(transport).prepare(fanout=True).cast({}, "note", text=str(number))
    await_notes(transport, names, range(10))
    warnings = [r.getMessage() for r in caplog.records if "fanouts" in r.getMessage()]
    assert len(warnings) == 1
    assert "no proxy is registered; run zmq-proxy processes, or set" in warnings[0]


def test_looking_for_publishers_where_there_are_none_is_no_outage_in_the_log(
    redis_cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    redis_cloud.service("one")
    transport = redis_cloud.transport()
    with caplog.at_level(logging.DEBUG, logger="zmq_oslo_driver"):
        client(transport).prepare(fanout=True).cast({}, "note", text="for all")
        directory = transport._driver._use().directory
        # That nobody is registered is believed for a second, then asked again.
        wait_until(lambda: directory.statistics.cold_lookups >= 5, "it has looked again")
    assert [r.getMessage() for r in caplog.records if "no answer" in r.getMessage()] == []


class Caster:
    """A thread that sends numbered fanouts without pause."""

    def __init__(self, transport: Any) -> None:
        self.sent = 0
        self._caster = client(transport).prepare(fanout=True)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopped.wait(0.002):
            self._caster.cast({}, "note", text=str(self.sent))
            self.sent += 1

    def more(self, number: int) -> None:
        """Wait until so many more were sent."""
        wanted = self.sent + number
        wait_until(lambda: self.sent >= wanted, f"{number} more fanouts", timeout=20)

    def __enter__(self) -> Caster:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def test_publishers_that_come_and_are_stopped_cost_no_fanout(redis_cloud: Cloud) -> None:
    names = ["one", "two"]
    redis_cloud.services(names)
    transport = redis_cloud.transport()
    with Caster(transport) as caster:
        caster.more(100)
        (first,) = publishers(redis_cloud, 1)
        caster.more(200)
        (second,) = publishers(redis_cloud, 1)
        caster.more(200)
        assert first.stop() == 0
        caster.more(200)
        assert second.stop() == 0
        caster.more(200)
    await_notes(transport, names, range(caster.sent))


@pytest.mark.alone
def test_a_publisher_that_is_killed_costs_what_was_inside_it(cloud: Cloud) -> None:
    proxies = publishers(cloud, 3)
    cloud.service("one")
    transport = cloud.transport()
    with Caster(transport) as caster:
        caster.more(100)
        proxies[0].kill()
        caster.more(1000)
    last = str(caster.sent - 1)
    wait_until(lambda: noted(transport, "one")[last] == 1, "the last one came")
    got = noted(transport, "one")
    assert max(got.values()) == 1
    assert len(got) >= caster.sent - 5, "of those at two milliseconds' distance"


def test_services_with_and_without_publishers_all_get_fanouts_once(cloud: Cloud) -> None:
    publishers(cloud)
    cloud.service("with")
    cloud.service("without", options={"use_pub_sub": False})
    for use_pub_sub in (True, False):
        cloud.configure_transports(use_pub_sub=use_pub_sub)
        transport = cloud.transport()
        client(transport).prepare(fanout=True).cast({}, "note", text=str(use_pub_sub))
    await_notes(transport, ["with", "without"], [True, False])


def test_a_notification_still_goes_to_one_listener_of_each_pool(cloud: Cloud) -> None:
    publishers(cloud)
    listenings = [Listening(topics=["events"]), Listening(topics=["events"], pool="audit")]
    cloud.services(["one", "two"], notifications=listenings)
    notifier = oslo_messaging.Notifier(
        cloud.transport(notifications=True),
        publisher_id="tests",
        driver="messaging",
        topics=["events"],
    )
    for number in range(10):
        notifier.info({}, f"event-{number}", {})
    transport = cloud.transport()

    def events() -> Counter[str]:
        return Counter(
            event[1]
            for name in ("one", "two")
            for event in client(transport, server=name).call({}, "notified")
        )

    wanted = Counter({f"event-{number}": 2 for number in range(10)})
    wait_until(lambda: events() == wanted, "one of each pool has each event")


def test_a_local_publisher_subscribes_once_for_all_services_of_its_node(
    cloud: Cloud, free_port: int
) -> None:
    proxies = publishers(cloud)
    cloud.configure(subscribe_on=f"127.0.0.1:{free_port}")
    local = cloud.proxy(local_publisher=True)
    names = ["one", "two", "three"]
    processes = cloud.services(names)
    transport = cloud.transport()
    caster = client(transport).prepare(fanout=True)
    for number in range(20):
        caster.cast({}, "note", text=str(number))
    await_notes(transport, names, range(20))
    backends = {port for proxy in proxies for port in proxy.subscriber_ports}
    assert len(backends) == 2

    def subscribed(pid: int) -> list[int]:
        ports = [connection.raddr.port for connection in established(pid)]
        return sorted(port for port in ports if port in backends)

    assert subscribed(local.process.pid) == sorted(backends)
    for service in processes:
        assert subscribed(service.pid) == []
        assert free_port in {connection.raddr.port for connection in established(service.pid)}


def test_a_subscriber_that_finds_no_local_publisher_says_where_to_look(
    cloud: Cloud, free_port: int
) -> None:
    publishers(cloud, 1)
    options = {"subscribe_on": f"127.0.0.1:{free_port}", "zmq_connect_timeout": 1.0}
    service = cloud.service("one", options=options)
    wait_until(lambda: "does a local publisher run where subscribe_on says" in service.errors, "")


def test_services_under_eventlet_use_publishers_too(cloud: Cloud) -> None:
    (proxy,) = publishers(cloud, 1)
    service = cloud.service("one", eventlet=True)
    transport = cloud.transport()
    caster = client(transport).prepare(fanout=True)
    for number in range(20):
        caster.cast({}, "note", text=str(number))
    await_notes(transport, ["one"], range(20))
    ports = {connection.raddr.port for connection in established(service.pid)}
    assert set(proxy.ports) <= ports
    said = service.stop()
    assert all(said["after"][name] <= said["before"][name] for name in said["before"]), said
