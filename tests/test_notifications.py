# SPDX-License-Identifier: Apache-2.0
"""Notifications from process to process."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import oslo_messaging
import pytest
from oslo_messaging import Target

from harness.leaks import wait_until
from harness.service import Listening
from harness.services import Service
from zmq_matchmaker import Key, Role
from zmq_matchmaker.testing import RedisServer

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]


def notifier(transport: Any, topic: str = "events") -> Any:
    return oslo_messaging.Notifier(
        transport, publisher_id="tests", driver="messaging", topics=[topic]
    )


def events(caller: Any, server: str) -> list[list[Any]]:
    found: list[list[Any]] = caller.prepare(server=server).call({}, "notified")
    return found


def caller_of(transport: Any) -> Any:
    return oslo_messaging.get_rpc_client(transport, Target(topic="control"), timeout=20)


def test_a_notification_reaches_one_listener_of_those_without_a_pool(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    for name in ("one", "two"):
        make_service(url, ("", "control", name), notifications=[Listening(topics=["events"])])
    send = notifier(make_transport(url, notifications=True))
    caller = caller_of(make_transport(url))
    for number in range(20):
        send.info({}, f"event {number}", {"number": number})

    def counts() -> list[int]:
        return [len(events(caller, name)) for name in ("one", "two")]

    wait_until(lambda: sum(counts()) >= 20, "all notifications handled")
    assert counts() == [10, 10]


def test_each_pool_gets_one_copy(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    listeners = {"one": None, "two": "red", "three": "red", "four": "blue"}
    for name, pool in listeners.items():
        make_service(
            url,
            ("", "control", name),
            notifications=[Listening(topics=["events"], pool=pool)],
        )
    send = notifier(make_transport(url, notifications=True))
    caller = caller_of(make_transport(url))
    for number in range(10):
        send.info({}, f"event {number}", {})
    expected = {"one": 10, "two": 5, "three": 5, "four": 10}

    def counts() -> dict[str, int]:
        return {name: len(events(caller, name)) for name in listeners}

    wait_until(lambda: sum(counts().values()) >= 30, "every pool has its copies")
    assert counts() == expected


def test_a_pool_whose_only_member_did_not_answer_lately_gets_its_copy(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    for name in ("one", "two"):
        heard = [Listening(topics=["events"], pool=name)]
        make_service(url, ("", "control", name), notifications=heard)
    transport = make_transport(url, notifications=True)
    caller = caller_of(make_transport(url))
    directory = transport._driver._use().directory
    key = Key(Role.NOTIFICATION, "openstack", "events.info")
    wait_until(lambda: len(directory.refresh(key, 5)) == 2, "both are known")
    directory.nack(key, directory.lookup(key, 5)[0])
    assert len(directory.lookup(key, 5)) == 1
    notifier(transport).info({}, "for both", {})
    for name in ("one", "two"):
        heard_once = functools.partial(lambda name: len(events(caller, name)) == 1, name)
        wait_until(heard_once, f"{name} has its copy")


def test_priorities_are_separate_topics(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "control", "one"), notifications=[Listening(topics=["events"])])
    send = notifier(make_transport(url, notifications=True))
    caller = caller_of(make_transport(url))
    send.error({}, "broken", {"a": 1})
    send.debug({}, "nobody has a method for this", {})
    send.info({}, "fine", {"b": [2]})
    wait_until(lambda: len(events(caller, "one")) == 2, "both handled")
    assert sorted(events(caller, "one")) == [
        ["error", "broken", {"a": 1}, "tests"],
        ["info", "fine", {"b": [2]}, "tests"],
    ]


def test_batches_are_full_or_as_old_as_their_timeout(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    batches = Listening(topics=["events"], batch_size=10, batch_timeout=1.0)
    make_service(url, ("", "control", "one"), notifications=[batches])
    send = notifier(make_transport(url, notifications=True))
    caller = caller_of(make_transport(url))
    for number in range(23):
        send.info({}, str(number), {})
    wait_until(lambda: len(events(caller, "one")) == 3, "three batches")
    assert [len(batch) for _, batch in events(caller, "one")] == [10, 10, 3]


def test_a_batch_may_be_larger_than_the_backlog(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    batches = Listening(topics=["events"], batch_size=20)
    few = {"rpc_zmq_topic_backlog": 5}
    make_service(url, ("", "control", "one"), notifications=[batches], options=few)
    send = notifier(make_transport(url, notifications=True))
    caller = caller_of(make_transport(url))
    for number in range(40):
        send.info({}, str(number), {})
    wait_until(lambda: len(events(caller, "one")) == 2, "two batches")
    assert [len(batch) for _, batch in events(caller, "one")] == [20, 20]


def test_a_requeued_notification_comes_again(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    again = Listening(topics=["events"], requeue_first=3)
    make_service(url, ("", "control", "one"), notifications=[again])
    send = notifier(make_transport(url, notifications=True))
    caller = caller_of(make_transport(url))
    send.info({}, "stubborn", {})
    wait_until(lambda: len(events(caller, "one")) == 4, "handled in the end")
    assert [event[0] for event in events(caller, "one")] == ["requeued"] * 3 + ["info"]


def test_f35_a_notification_that_nobody_listens_to_does_not_hold_up_the_service(
    url: str, make_transport: MakeTransport
) -> None:
    send = notifier(make_transport(url, notifications=True))
    started = time.monotonic()
    for number in range(20):
        send.info({}, f"event {number}", {})
    assert time.monotonic() - started < 5


def test_an_rpc_topic_and_a_notification_topic_of_one_name_do_not_cross(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "events.info", "one"), notifications=[Listening(topics=["events"])])
    send = notifier(make_transport(url, notifications=True))
    caller = oslo_messaging.get_rpc_client(
        make_transport(url), Target(topic="events.info"), timeout=20
    )
    send.info({}, "event", {})
    wait_until(lambda: len(events(caller, "one")) == 1, "the notification")
    assert caller.call({}, "noted") == []


@pytest.mark.parametrize("trouble", ["dead", "hangs"])
def test_f35_while_the_matchmaker_is_down_notifications_are_counted_and_logged_and_nobody_waits(
    trouble: str, make_transport: MakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer() as redis:
        transport = make_transport(f"zmq+{redis.url}/x", notifications=True)
        (redis.kill if trouble == "dead" else redis.stop)()
        send = notifier(transport)
        started = time.monotonic()
        with caplog.at_level(logging.WARNING):
            for number in range(20):
                send.info({}, f"event {number}", {})
        assert time.monotonic() - started < 5
        assert transport._driver._use().statistics.notifications_dropped == 20
        said = [record for record in caplog.records if "dropped" in record.getMessage()]
        assert len(said) == 1
        if trouble == "hangs":
            redis.cont()
        transport.cleanup()
