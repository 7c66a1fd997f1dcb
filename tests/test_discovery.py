# SPDX-License-Identifier: Apache-2.0
"""Services that call each other while Redis dies, hangs, fails over or comes back empty."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg
from oslo_messaging import Target

from harness.leaks import wait_until
from harness.services import Service
from zmq_matchmaker import Directory, Key, MatchmakerURL, Record, Role, load
from zmq_matchmaker.testing import RedisSentinels, RedisServer

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]
ZMQ = "oslo_messaging_zmq"
EXPIRE = 3
HANGS = 30


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, to be treated badly."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def short_lived(conf: cfg.ConfigOpts) -> dict[str, Any]:
    """Records live for a few seconds only, in the services and here."""
    conf.set_override("zmq_target_expire", EXPIRE, group=ZMQ)
    return {"zmq_target_expire": EXPIRE}


class Calls:
    """Calls without pause from a thread, and an account of them."""

    def __init__(self, client: Any, timeout: float = 5.0) -> None:
        self._client = client.prepare(timeout=timeout)
        self._ends = threading.Event()
        self.answers: list[str] = []
        self.failures: list[str] = []
        self.longest = 0.0

    def run(self) -> None:
        while not self._ends.is_set():
            began = time.monotonic()
            try:
                self.answers.append(self._client.call({}, "whoami")[0])
            except oslo_messaging.MessagingException as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.longest = max(self.longest, time.monotonic() - began)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.run) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(self.answers) > 20, "calls are answered")
            yield
        finally:
            self._ends.set()
            for thread in threads:
                thread.join()


def client_of(transport: Any, topic: str = "work") -> Any:
    return oslo_messaging.get_rpc_client(transport, Target(topic=topic), timeout=20)


def test_f11_no_call_fails_while_redis_is_dead_for_longer_than_records_live_and_all_register_again(
    redis: RedisServer,
    make_service: MakeService,
    make_transport: MakeTransport,
    short_lived: dict[str, Any],
) -> None:
    url = f"zmq+{redis.url}/x"
    for name in ("one", "two"):
        make_service(url, ("", "work", name), options=short_lived)
    calls = Calls(client_of(make_transport(url)))
    with calls.running():
        redis.kill()
        dead_until = time.monotonic() + 2 * EXPIRE
        wait_until(lambda: time.monotonic() > dead_until, "dead", timeout=3 * EXPIRE)
        redis.start()  # and empty
        began = time.monotonic()
        with redis.client() as admin:
            name = "zmq:{x}:listener:openstack:work:%"
            wait_until(lambda: admin.hlen(name) == 2, "both registered again", timeout=10)
        assert time.monotonic() - began < 10
        calls.answers.clear()
        wait_until(lambda: {"one", "two"} <= set(calls.answers), "both are used")
    assert calls.failures == []
    assert calls.longest < 1.5


@pytest.mark.alone
def test_f14_no_call_waits_for_a_redis_that_hangs(
    redis: RedisServer,
    make_service: MakeService,
    make_transport: MakeTransport,
    short_lived: dict[str, Any],
) -> None:
    url = f"zmq+{redis.url}/x"
    make_service(url, ("", "work", "one"), options=short_lived)
    calls = Calls(client_of(make_transport(url)))
    with calls.running():
        redis.stop()
        try:
            hangs_until = time.monotonic() + HANGS
            wait_until(lambda: time.monotonic() > hangs_until, "hung", timeout=2 * HANGS)
        finally:
            redis.cont()
        done = len(calls.answers)
        wait_until(lambda: len(calls.answers) > done + 20, "goes on")
    assert calls.failures == []
    assert calls.longest < 1.0


def test_f12_a_flushed_redis_costs_no_call(
    redis: RedisServer, make_service: MakeService, make_transport: MakeTransport
) -> None:
    url = f"zmq+{redis.url}/x"
    for name in ("one", "two", "three"):
        make_service(url, ("", "work", name))  # refreshed every 40 s
    calls = Calls(client_of(make_transport(url)))
    with calls.running(), redis.client() as admin:
        admin.flushall()
        name = "zmq:{x}:listener:openstack:work:%"
        wait_until(lambda: admin.hlen(name) == 3, "all registered again", timeout=10)
        calls.answers.clear()
        wait_until(lambda: len(set(calls.answers)) == 3, "all are used")
    assert calls.failures == []


def test_a_client_uses_a_new_server_and_leaves_one_that_stopped_within_a_second(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    caller = client_of(make_transport(url))
    assert caller.call({}, "whoami")[0] == "one"
    two = make_service(url, ("", "work", "two"))
    began = time.monotonic()
    while caller.call({}, "whoami")[0] != "two":
        assert time.monotonic() - began < 1
    two.stop()
    began = time.monotonic()
    for _ in range(20):
        assert caller.call({}, "whoami")[0] == "one"
    assert time.monotonic() - began < 1


def test_f10_a_service_that_starts_while_redis_is_down_serves_as_soon_as_it_is_there(
    redis: RedisServer, make_service: MakeService, make_transport: MakeTransport
) -> None:
    url = f"zmq+{redis.url}/x"
    redis.kill()
    make_service(url, ("", "work", "one"))
    caller = client_of(make_transport(url))
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(caller.call({}, "whoami")[0]))
    thread.start()
    redis.start()
    thread.join(15)
    assert answers == ["one"]


def test_f13_no_call_fails_while_sentinels_fail_over(
    make_service: MakeService, make_transport: MakeTransport
) -> None:
    with RedisSentinels(password="secret") as sentinels:
        url = f"zmq+{sentinels.url}/x"
        make_service(url, ("", "work", "one"))
        transport = make_transport(url)
        calls = Calls(client_of(transport))
        with calls.running():
            sentinels.fail_over()
            make_service(url, ("", "work", "two"))
            wait_until(lambda: "two" in calls.answers, "a new server is used")
        assert calls.failures == []
        transport.cleanup()


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the system allows, as a unit of systemd would have them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.alone
def test_f30_a_thousand_services_do_not_all_come_back_at_one_moment(
    many_files: None, redis: RedisServer
) -> None:
    number = 1000
    directories = [Directory(load(MatchmakerURL.parse(f"{redis.url}/x"))) for _ in range(number)]
    entries = [
        (Key(Role.LISTENER, "x", f"topic {n % 10}"), Record(endpoint=f"tcp://10.0.0.1:{1000 + n}"))
        for n in range(number)
    ]
    try:
        for directory, entry in zip(directories, entries, strict=True):
            directory.announce([entry])
        with redis.client() as admin:
            admin.config_set("maxclients", 5000)
            before = int(admin.info("stats")["total_commands_processed"])
            admin.flushall()
            began = time.monotonic()
            counts: list[tuple[float, int]] = []
            commands: list[tuple[float, float, int]] = []

            def leases() -> int:
                count = int(admin.zcard("zmq:{x}:leases"))
                counts.append((time.monotonic() - began, count))
                asked = time.monotonic() - began
                done = int(admin.info("stats")["total_commands_processed"])
                commands.append((asked, time.monotonic() - began, done - before - 2 * len(counts)))
                return count

            wait_until(lambda: leases() == number, "all registered again", timeout=15)
            assert time.monotonic() - began < 10
        # They look whether they are still known every five seconds, each at a time of its own.
        first = next(when for when, count in counts if count > number / 10)
        last = next(when for when, count in counts if count > number * 9 / 10)
        assert last - first > 1.0
        for when, count in counts:
            soon = max(later for moment, later in counts if moment < when + 0.5)
            assert soon - count < number / 2
        assert commands[-1][-1] < 150 * number, "some ninety each: to register, and to look at it"
        for asked, _, done in commands:
            # A thread among a thousand may learn late what Redis told long before.
            soon = max((later for _, told, later in commands if told < asked + 1), default=done)
            assert soon - done < 0.4 * commands[-1][-1], "what they ask of Redis is spread, too"
    finally:
        threads = [threading.Thread(target=directory.close) for directory in directories]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
