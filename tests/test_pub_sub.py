# SPDX-License-Identifier: Apache-2.0
"""Fanouts through publishers, in processes of their own."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import oslo_messaging
import pytest
from harness.leaks import wait_until
from harness.proxies import ProxyProcess
from harness.service import Listening
from harness.services import Service
from harness.traffic import at_once, client, established
from oslo_config import cfg

MakeProxy = Callable[..., ProxyProcess]
MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]


def publishers(make_proxy: MakeProxy, url: str, number: int = 2, **options: Any) -> list[Any]:
    """So many proxies that publish and do not route."""
    make = functools.partial(make_proxy, url, role="publisher", **options)
    return at_once([make] * number)


def services(
    make_service: MakeService,
    url: str,
    names: Iterable[str],
    *others: tuple[str, str],
    **config: Any,
) -> list[Service]:
    """Services of those names that listen on `work` and on `others` (exchange and topic)."""
    topics = [("", "work"), *others]
    return at_once(
        [
            functools.partial(
                make_service,
                url,
                *((exchange, topic, name) for exchange, topic in topics),
                **config,
            )
            for name in names
        ]
    )


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
    url: str, make_proxy: MakeProxy, make_service: MakeService, make_transport: MakeTransport
) -> None:
    proxies = publishers(make_proxy, url)
    names = ["one", "two", "three"]
    processes = services(make_service, url, names, ("", "work-x"))
    transport = make_transport(url)
    caster = client(transport).prepare(fanout=True)
    for number in range(20):
        caster.cast({}, "note", text=str(number))
    await_notes(transport, names, range(20))
    for service in processes:
        ports = {connection.raddr.port for connection in established(service.pid)}
        assert all(set(proxy.ports) <= ports for proxy in proxies), "they subscribe at all"


def test_the_sender_of_a_fanout_connects_to_publishers_only(
    file_url: str, make_proxy: MakeProxy, make_service: MakeService, make_transport: MakeTransport
) -> None:
    publishers(make_proxy, file_url)
    names = ["one", "two", "three"]
    services(make_service, file_url, names)
    sender = make_service(file_url, ("", "sender", "s"))
    transport = make_transport(file_url)
    before = len(established(sender.pid))
    for number in range(5):
        client(transport, server="s").prepare(topic="sender").call(
            {}, "fan_out", topic="work", text=str(number)
        )
    await_notes(transport, names, range(5))
    assert len(established(sender.pid)) == before + 1, "this test's own connection"


def test_a_server_that_has_started_misses_no_fanout(
    redis_url: str, make_proxy: MakeProxy, make_service: MakeService, make_transport: MakeTransport
) -> None:
    publishers(make_proxy, redis_url)
    transport = make_transport(redis_url)
    caster = client(transport).prepare(fanout=True)
    names: list[str] = []
    wanted: dict[str, Counter[str]] = {}
    for number in range(3):
        names.append(f"server-{number}")
        wanted[names[-1]] = Counter()
        make_service(redis_url, ("", "work", names[-1]))
        caster.cast({}, "note", text=str(number))  # at once
        for name in names:
            wanted[name][str(number)] += 1
    wait_until(lambda: all(noted(transport, n) == wanted[n] for n in names), "nothing is missed")


def test_without_a_publisher_everybody_gets_a_copy_and_one_warning_is_logged(
    file_url: str,
    make_service: MakeService,
    make_transport: MakeTransport,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["one", "two"]
    services(make_service, file_url, names)
    transport = make_transport(file_url)
    with caplog.at_level(logging.WARNING):
        for number in range(10):
            client(transport).prepare(fanout=True).cast({}, "note", text=str(number))
    await_notes(transport, names, range(10))
    warnings = [r.getMessage() for r in caplog.records if "fanouts" in r.getMessage()]
    assert len(warnings) == 1
    assert "no proxy is registered; run zmq-proxy processes, or set" in warnings[0]


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


def test_publishers_that_come_and_are_stopped_cost_no_fanout(
    redis_url: str, make_proxy: MakeProxy, make_service: MakeService, make_transport: MakeTransport
) -> None:
    names = ["one", "two"]
    services(make_service, redis_url, names)
    transport = make_transport(redis_url)
    with Caster(transport) as caster:
        caster.more(100)
        (first,) = publishers(make_proxy, redis_url, 1)
        caster.more(200)
        (second,) = publishers(make_proxy, redis_url, 1)
        caster.more(200)
        assert first.stop() == 0
        caster.more(200)
        assert second.stop() == 0
        caster.more(200)
    await_notes(transport, names, range(caster.sent))


def test_a_publisher_that_is_killed_costs_what_was_inside_it(
    file_url: str, make_proxy: MakeProxy, make_service: MakeService, make_transport: MakeTransport
) -> None:
    proxies = publishers(make_proxy, file_url, 3)
    make_service(file_url, ("", "work", "one"))
    transport = make_transport(file_url)
    with Caster(transport) as caster:
        caster.more(100)
        proxies[0].kill()
        caster.more(1000)
    last = str(caster.sent - 1)
    wait_until(lambda: noted(transport, "one")[last] == 1, "the last one came")
    got = noted(transport, "one")
    assert max(got.values()) == 1
    assert len(got) >= caster.sent - 5, "of those at two milliseconds' distance"


def test_services_with_and_without_publishers_all_get_fanouts_once(
    file_url: str,
    make_proxy: MakeProxy,
    make_service: MakeService,
    make_transport: MakeTransport,
    conf: cfg.ConfigOpts,
) -> None:
    publishers(make_proxy, file_url)
    make_service(file_url, ("", "work", "with"))
    make_service(file_url, ("", "work", "without"), options={"use_pub_sub": False})
    for use_pub_sub in (True, False):
        conf.set_override("use_pub_sub", use_pub_sub, group="oslo_messaging_zmq")
        transport = make_transport(file_url)
        client(transport).prepare(fanout=True).cast({}, "note", text=str(use_pub_sub))
    await_notes(transport, ["with", "without"], [True, False])


def test_a_notification_still_goes_to_one_listener_of_each_pool(
    file_url: str, make_proxy: MakeProxy, make_service: MakeService, make_transport: MakeTransport
) -> None:
    publishers(make_proxy, file_url)
    listenings = [Listening(topics=["events"]), Listening(topics=["events"], pool="audit")]
    services(make_service, file_url, ["one", "two"], notifications=listenings)
    notifier = oslo_messaging.Notifier(
        make_transport(file_url, notifications=True),
        publisher_id="tests",
        driver="messaging",
        topics=["events"],
    )
    for number in range(10):
        notifier.info({}, f"event-{number}", {})
    transport = make_transport(file_url)

    def events() -> Counter[str]:
        return Counter(
            event[1]
            for name in ("one", "two")
            for event in client(transport, server=name).call({}, "notified")
        )

    wanted = Counter({f"event-{number}": 2 for number in range(10)})
    wait_until(lambda: events() == wanted, "one of each pool has each event")


def test_a_local_publisher_subscribes_once_for_all_services_of_its_node(
    file_url: str,
    make_proxy: MakeProxy,
    make_service: MakeService,
    make_transport: MakeTransport,
    free_port: int,
) -> None:
    proxies = publishers(make_proxy, file_url)
    shared = {"subscribe_on": f"127.0.0.1:{free_port}"}
    local = make_proxy(file_url, shared, local_publisher=True)
    names = ["one", "two", "three"]
    processes = services(make_service, file_url, names, options=shared)
    transport = make_transport(file_url)
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
    file_url: str, make_proxy: MakeProxy, make_service: MakeService, free_port: int
) -> None:
    publishers(make_proxy, file_url, 1)
    options = {"subscribe_on": f"127.0.0.1:{free_port}", "zmq_connect_timeout": 1.0}
    service = make_service(file_url, ("", "work", "one"), options=options)
    wait_until(lambda: "does a local publisher run where subscribe_on says" in service.errors, "")


def test_services_under_eventlet_use_publishers_too(
    file_url: str, make_proxy: MakeProxy, make_service: MakeService, make_transport: MakeTransport
) -> None:
    (proxy,) = publishers(make_proxy, file_url, 1)
    service = make_service(file_url, ("", "work", "one"), eventlet=True)
    transport = make_transport(file_url)
    caster = client(transport).prepare(fanout=True)
    for number in range(20):
        caster.cast({}, "note", text=str(number))
    await_notes(transport, ["one"], range(20))
    ports = {connection.raddr.port for connection in established(service.pid)}
    assert set(proxy.ports) <= ports
    said = service.stop()
    assert all(said["after"][name] <= said["before"][name] for name in said["before"]), said
