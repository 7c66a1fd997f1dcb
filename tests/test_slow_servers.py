# SPDX-License-Identifier: Apache-2.0
"""A server that takes nothing costs its clients little while another one would take it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import oslo_messaging
import pytest
from harness.leaks import wait_until
from harness.services import Service
from oslo_messaging import MessageDeliveryFailure, Target

from zmq_core import REQUESTS, Node, NodeOptions, QueueFull, TargetKey
from zmq_matchmaker import Key, Record, Role

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]

WORK = Key(Role.LISTENER, "openstack", "work")


@pytest.fixture
def full(conf: Any) -> Iterator[str]:
    """The endpoint of a listener that takes one message of the topic `work` and no more."""
    conf.set_override("zmq_linger", 0.0, group="oslo_messaging_zmq")
    with Node(NodeOptions(bind_address="127.0.0.1", recv_hwm=10, linger=0.0)) as node:
        node.listen(TargetKey("openstack", "work"), lambda _: None, types=REQUESTS, backlog=1)
        yield node.bind()


def fill(transport: Any, endpoint: str) -> None:
    """Send to `endpoint` until it takes nothing more, and let the transport know of it."""
    runtime = transport._driver._use()

    def send_on() -> None:
        while True:
            runtime.node.send(endpoint, TargetKey("openstack", "work"), bytes(20_000), timeout=1)

    with pytest.raises(QueueFull):
        send_on()
    runtime.directory.announce([(WORK, Record(endpoint=endpoint, node="full"))])


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
