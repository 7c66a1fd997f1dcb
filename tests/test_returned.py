# SPDX-License-Identifier: Apache-2.0
"""Messages that a peer returned reach another listener; none of them holds up the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import oslo_messaging
import pytest
from oslo_messaging import Target

from harness.leaks import wait_until
from harness.services import Service
from zmq_core import Envelope, MessageType, Serializer, TargetKey
from zmq_oslo_driver.serialization import Request

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]

STALE = "tcp://127.0.0.1:9"


def cast(topic: str, text: str = "text") -> Envelope:
    """A cast to `topic` as it would come back."""
    request = Request({}, {"method": "note", "args": {"text": text}})
    return Envelope(
        type=MessageType.CAST,
        id=bytes(16),
        key=TargetKey("openstack", topic).encoded,
        body=request.dump(Serializer.JSON),
        serializer=Serializer.JSON,
    )


def courier_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "zmq-returned"]


def test_a_returned_cast_does_not_wait_behind_those_that_nobody_listens_to(
    file_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(file_url, ("", "alive", "one"))
    transport = make_transport(file_url)
    runtime = transport._driver._use()
    for _ in range(200):
        runtime.courier.post(STALE, cast("dead"))
    runtime.courier.post(STALE, cast("alive", "passed them all"))
    caller = oslo_messaging.get_rpc_client(transport, Target(topic="alive"), timeout=20)
    wait_until(lambda: caller.call({}, "noted") == ["passed them all"], "the living has its cast")
    wait_until(lambda: runtime.statistics.casts_rerouted == 1, "it is counted")
    started = time.monotonic()
    transport.cleanup()
    assert time.monotonic() - started < 2
    assert runtime.statistics.casts_rerouted == 1
    assert runtime.statistics.casts_lost == 200


def test_all_that_wait_for_a_listener_are_given_up_when_their_time_is_over(
    file_url: str, make_transport: MakeTransport, conf: Any
) -> None:
    conf.set_override("zmq_send_timeout", 1.0, group="oslo_messaging_zmq")
    runtime = make_transport(file_url)._driver._use()
    started = time.monotonic()
    for _ in range(20):
        runtime.courier.post(STALE, cast("dead"))
    wait_until(lambda: runtime.statistics.casts_lost == 20, "all are lost")
    assert 0.9 < time.monotonic() - started < 3
    wait_until(lambda: not courier_threads(), "the thread has ended")


def test_a_returned_cast_reaches_a_listener_that_appears_later(
    file_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    transport = make_transport(file_url)
    transport._driver._use().courier.post(STALE, cast("late", "at last"))
    make_service(file_url, ("", "late", "one"))
    caller = oslo_messaging.get_rpc_client(transport, Target(topic="late"), timeout=20)
    wait_until(lambda: caller.call({}, "noted") == ["at last"], "it has come")


def test_a_returned_notification_waits_no_longer_than_a_new_one(
    file_url: str, make_transport: MakeTransport
) -> None:
    runtime = make_transport(file_url)._driver._use()
    key = TargetKey("openstack", "events.info").encoded
    started = time.monotonic()
    runtime.courier.post(STALE, Envelope(type=MessageType.NOTIFY, id=bytes(16), key=key))
    wait_until(lambda: runtime.statistics.notifications_dropped == 1, "it is dropped")
    assert time.monotonic() - started < 4
    assert runtime.statistics.casts_rerouted == 0


@pytest.mark.parametrize("key", [b"", b"no key"])
def test_a_message_that_cannot_be_sent_on_is_lost_alone(
    key: bytes, file_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(file_url, ("", "alive", "one"))
    transport = make_transport(file_url)
    runtime = transport._driver._use()
    runtime.courier.post(STALE, Envelope(type=MessageType.CAST, id=bytes(16), key=key))
    wait_until(lambda: runtime.statistics.casts_lost == 1, "it is lost")
    runtime.courier.post(STALE, cast("alive"))
    wait_until(lambda: runtime.statistics.casts_rerouted == 1, "the next is not")


def test_cleanup_sends_what_is_left_to_those_who_are_known(
    file_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    service = make_service(file_url, ("", "alive", "one"))
    transport, other = make_transport(file_url), make_transport(file_url + "?zmq_linger=4")
    caller = oslo_messaging.get_rpc_client(transport, Target(topic="alive"), timeout=20)
    assert caller.call({}, "whoami") == ["one", service.pid]
    courier = transport._driver._use().courier
    for number in range(100):
        courier.post(STALE, cast("alive", str(number)))
    transport.cleanup()
    after = oslo_messaging.get_rpc_client(other, Target(topic="alive"), timeout=20)
    wait_until(lambda: len(after.call({}, "noted")) == 100, "all have come")
