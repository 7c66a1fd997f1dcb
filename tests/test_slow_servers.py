# SPDX-License-Identifier: Apache-2.0
"""A server that takes nothing costs its clients little while another one would take it."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import oslo_messaging
import pytest
from oslo_messaging import MessageDeliveryFailure, Target

from harness.leaks import wait_until
from harness.service import Listening
from harness.services import Service
from zmq_core import NOTIFICATIONS, REQUESTS, Node, NodeOptions, QueueFull, TargetKey
from zmq_matchmaker import Key, Record, Role

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]

EVENTS = Key(Role.NOTIFICATION, "openstack", "events.info")
WORK = Key(Role.LISTENER, "openstack", "work")


@pytest.fixture
def full(conf: Any) -> Iterator[str]:
    """The endpoint of a process that takes one message and one event and no more."""
    conf.set_override("zmq_linger", 0.0, group="oslo_messaging_zmq")
    with Node(NodeOptions(bind_address="127.0.0.1", recv_hwm=10, linger=0.0)) as node:
        node.listen(TargetKey("openstack", "work"), lambda _: None, types=REQUESTS, backlog=1)
        events = TargetKey("openstack", "events.info")
        node.listen(events, lambda _: None, types=NOTIFICATIONS, backlog=1)
        yield node.bind()


@pytest.fixture
def frozen() -> Iterator[str]:
    """The endpoint of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def notifier(transport: Any) -> Any:
    return oslo_messaging.Notifier(
        transport, publisher_id="tests", driver="messaging", topics=["events"]
    )


def fill(transport: Any, endpoint: str, key: Key = WORK) -> None:
    """Send to `endpoint` until it takes nothing more, and let the transport know of it."""
    runtime = transport._driver._use()

    def send_on() -> None:
        while True:
            runtime.node.send(endpoint, TargetKey("openstack", "work"), bytes(20_000), timeout=1)

    with pytest.raises(QueueFull):
        send_on()
    runtime.directory.announce([(key, Record(endpoint=endpoint, node="full"))])


def test_a_full_server_does_not_take_all_the_time_of_a_call_or_cast(
    file_url: str, full: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(file_url, ("", "work", "good"))
    transport = make_transport(file_url)
    fill(transport, full)
    directory = transport._driver._use().directory
    wait_until(lambda: len(directory.refresh(WORK, 5)) == 2, "both are known")
    caller = oslo_messaging.get_rpc_client(transport, Target(topic="work"), timeout=6)
    started = time.monotonic()
    for number in range(4):
        assert caller.call({}, "echo", value=number) == number
        caller.cast({}, "note", text=str(number))
    assert time.monotonic() - started < 5
    assert sorted(caller.call({}, "noted")) == list("0123")


def test_the_time_for_handing_a_call_over_does_not_shorten_the_wait_for_its_reply(
    file_url: str, full: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(file_url, ("", "work", "good"))
    transport = make_transport(file_url)
    fill(transport, full)
    caller = oslo_messaging.get_rpc_client(transport, Target(topic="work"), timeout=8)
    for _ in range(2):
        assert caller.call({}, "slow", seconds=2.5) == "good"


def test_a_full_server_that_is_the_only_one_is_waited_for(
    file_url: str, full: str, make_transport: MakeTransport, conf: Any
) -> None:
    conf.set_override("zmq_send_timeout", 2.0, group="oslo_messaging_zmq")
    transport = make_transport(file_url)
    fill(transport, full)
    caller = oslo_messaging.get_rpc_client(transport, Target(topic="work"), retry=0)
    started = time.monotonic()
    with pytest.raises(MessageDeliveryFailure, match="queue was still full"):
        caller.cast({}, "note", text="one too many")
    assert 1.9 < time.monotonic() - started < 4


def test_a_full_server_does_not_keep_a_fanout_from_the_others(
    file_url: str, full: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    transport = make_transport(f"{file_url}?use_pub_sub=false&zmq_send_timeout=4")
    fill(transport, full)
    # The one that is full comes first.
    behind = {"rpc_zmq_min_port": int(full.rpartition(":")[2]) + 1, "use_pub_sub": False}
    make_service(file_url, ("", "work", "good"), options=behind)
    directory = transport._driver._use().directory
    wait_until(lambda: len(directory.refresh(WORK, 5)) == 2, "both are known")
    caller = oslo_messaging.get_rpc_client(
        transport, Target(topic="work", server="good"), timeout=6
    )
    caller.call({}, "begun")
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(
            caller.prepare(server=None, fanout=True).cast, {}, "note", text="x"
        )
        wait_until(lambda: caller.call({}, "noted") == ["x"], "the other one has it", timeout=2)
        assert not sending.done(), "the full one is still waited for"
        sending.result(timeout=10)
    assert transport._driver._use().statistics.fanout_copies_lost == 1


def test_a_notification_goes_past_a_listener_that_does_not_answer(
    file_url: str, frozen: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    heard = [Listening(topics=["events"])]
    make_service(file_url, ("", "control", "good"), notifications=heard)
    caller = oslo_messaging.get_rpc_client(
        make_transport(file_url), Target(topic="control"), timeout=20
    )
    for number in range(6):  # whose turn comes first is left to chance
        transport = make_transport(f"{file_url}?zmq_linger=0.{number}", notifications=True)
        runtime = transport._driver._use()
        directory = runtime.directory
        directory.announce([(EVENTS, Record(endpoint=frozen, node="frozen"))])
        both = functools.partial(lambda known: len(known(EVENTS, 5)) == 2, directory.refresh)
        wait_until(both, "both are known")
        notifier(transport).info({}, str(number), {})
        assert runtime.statistics.notifications_dropped == 0
        transport.cleanup()
    wait_until(lambda: len(caller.call({}, "notified")) == 6, "all are heard")


def test_f35_a_listener_that_does_not_read_is_waited_for_once_and_forgotten_with_its_record(
    file_url: str, full: str, make_transport: MakeTransport, conf: Any
) -> None:
    transport = make_transport(file_url, notifications=True)
    fill(transport, full, EVENTS)
    runtime = transport._driver._use()
    notify = notifier(transport)
    started = time.monotonic()
    for number in range(10):
        notify.info({}, str(number), {})
    assert 0.9 < time.monotonic() - started < 2.5
    assert runtime.statistics.notifications_dropped == 10
    runtime.directory.withdraw([(EVENTS, Record(endpoint=full, node="full"))])
    notify.info({}, "nobody listens", {})
    assert runtime.statistics.notifications_dropped == 11
    assert runtime.spreader._congested[EVENTS] == set()
