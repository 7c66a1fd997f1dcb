# SPDX-License-Identifier: Apache-2.0
"""What a caller is told, and when: monitored calls, pings, retries and stale records."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import oslo_messaging
import pytest
from oslo_messaging import MessageDeliveryFailure, MessagingTimeout, RemoteError, Target

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.services import Service
from harness.traffic import at_once, client
from zmq_matchmaker import Key, Record, Role
from zmq_oslo_driver.errors import ServerLost

HEARTBEAT = 1.0 + 3.0
"""Seconds after which a silent peer is lost: the interval and the timeout."""


@pytest.fixture(params=["direct", "routers"])
def road(request: pytest.FixtureRequest, redis_cloud: Cloud) -> str:
    """Configured in `redis_cloud`; with two routers, if there are any."""
    redis_cloud.configure(use_router_proxy=request.param == "routers", use_pub_sub=False)
    if request.param == "routers":
        redis_cloud.proxies(2)
    return str(request.param)


@pytest.mark.parametrize("trouble", [signal.SIGSTOP, signal.SIGKILL])
def test_a_monitored_call_fails_within_the_monitor_timeout_when_its_server_gives_no_signs(
    road: str, trouble: signal.Signals, redis_cloud: Cloud
) -> None:
    monitor = 2
    service = redis_cloud.service("one")
    caller = client(redis_cloud.transport()).prepare(timeout=60, call_monitor_timeout=monitor)
    assert caller.call({}, "slow", seconds=monitor + 1.5) == "one", "it lives while there are signs"
    timer = threading.Timer(0.5, os.kill, (service.pid, trouble))
    timer.start()
    began = time.monotonic()
    with pytest.raises(MessagingTimeout) as caught:
        caller.call({}, "slow", seconds=30)
    timer.join()
    assert time.monotonic() - began < monitor + 1.5
    assert trouble is signal.SIGSTOP or road == "routers" or isinstance(caught.value, ServerLost)


def test_f03_what_a_killed_server_held_is_not_run_by_another(road: str, redis_cloud: Cloud) -> None:
    services = dict(zip(("one", "two"), redis_cloud.services(["one", "two"]), strict=True))
    transport = redis_cloud.transport()
    caller = client(transport, timeout=60)

    def begun(name: str) -> int:
        return int(caller.prepare(server=name).call({}, "begun"))

    def call() -> float:
        began = time.monotonic()
        with pytest.raises(ServerLost):
            caller.call({}, "slow", seconds=30)
        return time.monotonic() - began

    def kill() -> float:
        wait_until(lambda: any(map(begun, services)), "it has begun")
        [holder] = [name for name in services if begun(name)]
        services.pop(holder).kill()
        return 0.0

    took, _ = at_once([call, kill])
    assert took < HEARTBEAT + 2
    [other] = services
    assert begun(other) == 0


def test_rpc_ping_enabled_has_servers_answer_pings(
    road: str, redis_cloud: Cloud, tmp_path: Path
) -> None:
    file = tmp_path / "service.conf"
    file.write_text("[DEFAULT]\nrpc_ping_enabled = true\n")
    redis_cloud.service("one", config_file=str(file))
    redis_cloud.service("two")
    caller = client(redis_cloud.transport())
    assert caller.prepare(server="one").call({}, "oslo_rpc_server_ping") == "pong"
    with pytest.raises(RemoteError, match="oslo_rpc_server_ping"):
        caller.prepare(server="two").call({}, "oslo_rpc_server_ping")


class Refusing:
    """Takes connections and ends them at once, and counts them."""

    def __init__(self) -> None:
        self.count = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.count += 1  # before the other side can know
                connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    made = Refusing()
    yield made
    made.close()


@pytest.mark.parametrize("method", ["call", "cast"])
@pytest.mark.parametrize("retry", [None, -1, 0, 1, 3])
def test_retry_is_the_number_of_further_attempts_and_none_or_minus_one_as_long_as_time_allows(
    retry: int | None, method: str, cloud: Cloud, refusing: Refusing
) -> None:
    patience = 2.0
    cloud.configure(zmq_send_timeout=patience)
    transport = cloud.transport()
    record = Record(endpoint=refusing.endpoint, node="refusing")
    directory = transport._driver._use().directory
    directory.announce([(Key(Role.LISTENER, "openstack", "work"), record)])
    caller = oslo_messaging.get_rpc_client(
        transport, Target(topic="work"), timeout=patience, retry=retry
    )
    began = time.monotonic()
    with pytest.raises((MessageDeliveryFailure, MessagingTimeout)) as caught:
        getattr(caller, method)({}, "note", text="x")
    took = time.monotonic() - began
    if retry is None or retry < 0:
        assert patience - 0.1 < took < patience + 1
        assert refusing.count > 3
    else:
        assert caught.type is MessageDeliveryFailure
        assert refusing.count == retry + 1
        assert took < patience


def usurp(cloud: Cloud, port: int) -> Service:
    """Kill a server of topic `work` and let a service of topic `else` take its port."""
    one_port = {"rpc_zmq_min_port": port, "rpc_zmq_max_port": port + 1}
    cloud.service("victim", options=one_port).kill()
    bind = {**one_port, "rpc_zmq_bind_address": "127.0.0.1", **cloud.options}
    return cloud.make_service(cloud.url, ("", "else", "usurper"), options=bind)


def test_a_stale_record_is_passed_over_while_others_serve_and_named_in_time_when_none_is_left(
    road: str, redis_cloud: Cloud, free_port: int
) -> None:
    redis_cloud.configure(zmq_send_timeout=3.0)
    usurper = usurp(redis_cloud, free_port)
    servers = redis_cloud.services(["one", "two"])
    transport = redis_cloud.transport()
    caller = client(transport)
    answered = [caller.call({}, "whoami")[0] for _ in range(12)]
    assert {*answered} == {"one", "two"}
    for number in range(6):
        caller.cast({}, "note", text=str(number))
    each = [caller.prepare(server=name) for name in ("one", "two")]
    wait_until(lambda: sum(len(one.call({}, "noted")) for one in each) == 6, "all casts came")
    for server in servers:
        server.stop()
    began = time.monotonic()
    why = "refused|nobody listens"
    with pytest.raises(MessagingTimeout, match=why):
        caller.prepare(timeout=2).call({}, "whoami")
    if road == "direct":
        wait_until(lambda: time.monotonic() > began + 3, "a pause of the first kind is over")
        with pytest.raises(MessageDeliveryFailure, match=why):
            caller.prepare(retry=0).cast({}, "note", text="lost")
    else:  # a proxy has taken it before it can tell
        statistics = transport._driver._use().statistics
        caller.cast({}, "note", text="lost")
        wait_until(lambda: statistics.casts_lost == 1, "it is counted")
    assert time.monotonic() - began < 8
    other = oslo_messaging.get_rpc_client(transport, Target(topic="else"), timeout=10)
    assert other.call({}, "whoami") == ["usurper", usurper.pid]
    assert other.call({}, "noted") == []
