# SPDX-License-Identifier: Apache-2.0
"""A server that stops, within a process that goes on."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import oslo_messaging
import pytest
from oslo_messaging import Target

from harness.leaks import wait_until
from harness.service import Endpoint, NotificationEndpoint
from harness.traffic import Callers, client
from zmq_matchmaker.testing import RedisServer
from zmq_oslo_driver.errors import CleanedUp

MakeTransport = Callable[..., Any]


@pytest.fixture
def acknowledged(redis_url: str) -> str:
    """The URL of clients that share nothing with the servers of this process."""
    return f"{redis_url}?rpc_use_acks=true&use_pub_sub=false"


@contextmanager
def serving(transport: Any, endpoint: Any) -> Iterator[Any]:
    server = oslo_messaging.get_rpc_server(
        transport, Target(topic="work", server=endpoint.name), [endpoint], executor="threading"
    )
    server.start()
    yield server
    server.stop()
    server.wait()


def test_what_was_acknowledged_is_executed_also_if_a_second_stop_comes_during_the_first(
    redis_url: str, acknowledged: str, redis_server: RedisServer, make_transport: MakeTransport
) -> None:
    transport = make_transport(redis_url)
    endpoint = Endpoint("one", transport)
    caster = client(make_transport(acknowledged)).prepare(retry=0)
    acknowledgements: list[int] = []
    with serving(transport, endpoint) as server:
        caster.call({}, "begun")

        def cast() -> None:
            caster.cast({}, "note", text="x")
            acknowledgements.append(1)

        with Callers(cast, number=2) as callers:
            callers.more(50)
            redis_server.stop()  # so that the first stop takes its time to withdraw
            stops = [threading.Thread(target=server.stop)]
            (listener,) = transport._driver._listeners
            stops.append(threading.Thread(target=listener.stop))
            for stop in stops:
                stop.start()
                callers.more(50)
            redis_server.cont()
            for stop in stops:
                stop.join()
        server.wait()
        wait_until(lambda: len(endpoint.casts) >= len(acknowledgements), "all were executed")
    assert len(endpoint.casts) == len(acknowledgements)


def test_a_server_that_is_started_after_its_transport_was_cleaned_up_says_so(
    file_url: str, make_transport: MakeTransport
) -> None:
    other = make_transport(file_url)
    directory = other._driver._use().directory
    transport = make_transport(file_url)
    listener = transport._driver.listen(Target(topic="work", server="one"), 1, None)
    transport.cleanup()
    with pytest.raises(CleanedUp, match="this server's transport was cleaned up"):
        listener.start(lambda messages: None)
    assert directory.statistics.announced == 0


class Requeueing(NotificationEndpoint):
    """Puts an event back, once it may."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, requeue_first=1)
        self.begun = threading.Event()
        self.go = threading.Event()

    def info(self, *arguments: Any) -> str:
        self.begun.set()
        self.go.wait(20)
        return super().info(*arguments)


def test_an_event_that_is_put_back_by_a_listener_that_has_stopped_goes_to_the_next_one_there(
    file_url: str, make_transport: MakeTransport
) -> None:
    transport = make_transport(file_url, notifications=True)
    listen = functools.partial(
        oslo_messaging.get_notification_listener,
        transport,
        [Target(topic="events")],
        executor="threading",
        allow_requeue=True,
    )
    taken = Endpoint("two", transport)
    leaving = Requeueing(Endpoint("one", transport))
    first, second = listen([leaving]), listen([NotificationEndpoint(taken, 0)])
    first.start()
    notifier = oslo_messaging.Notifier(transport, "tests", driver="messaging", topics=["events"])
    notifier.info({}, "event", {})
    assert leaving.begun.wait(10)
    second.start()
    first.stop()
    leaving.go.set()
    first.wait()
    wait_until(lambda: [event[1] for event in taken.events] == ["event"], "it was handed on")
    second.stop()
    second.wait()
