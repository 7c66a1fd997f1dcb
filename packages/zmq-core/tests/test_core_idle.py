# SPDX-License-Identifier: Apache-2.0
"""Connections that nobody uses are closed, and nobody notices."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from zmq_core import Incoming, Node, QueueFull, TargetKey

KEY = TargetKey("openstack", "topic")


@pytest.fixture
def server(make_node: Callable[..., Node]) -> Node:
    """It answers at once, but what is to be done slowly."""
    node = make_node()

    def handle(incoming: Incoming) -> None:
        if incoming.body == b"slow":
            threading.Timer(1.0, lambda: incoming.reply(b"done")).start()
        else:
            incoming.reply(incoming.body)

    node.serve(KEY, handle)
    return node


def echoing(node: Node) -> str:
    """Where `node` answers with what it was sent."""
    node.serve(KEY, lambda incoming: incoming.reply(incoming.body))
    return node.bind()


def test_a_connection_that_nothing_is_sent_by_is_closed_and_made_anew_when_needed(
    make_node: Callable[..., Node], server: Node, until: Callable[..., None]
) -> None:
    client = make_node(idle_timeout=0.2)
    endpoint = server.bind()
    for body in (b"one", b"two"):
        assert client.request(endpoint, KEY, body, timeout=10).body == body
        until(lambda: not client.links)


def test_a_connection_with_a_request_out_is_not_idle(
    make_node: Callable[..., Node], server: Node
) -> None:
    client = make_node(idle_timeout=0.1)
    assert client.request(server.bind(), KEY, b"slow", timeout=10).body == b"done"


def test_a_connection_that_holds_what_its_peer_has_not_taken_is_not_idle(
    make_node: Callable[..., Node], server: Node, until: Callable[..., None]
) -> None:
    # What a socket that is closed still holds is lost at once.
    client, slow = make_node(idle_timeout=0.2, linger=0.0), make_node()
    waiting: list[Incoming] = []
    slow.listen(KEY, waiting.append, backlog=10)
    sent = 0
    with contextlib.suppress(QueueFull):
        while True:
            client.send(slow.bind(), KEY, b"x" * 20_000, timeout=0.5)
            sent += 1
    assert sent > 1000, "some of them are still here, and in the system's buffers"
    for _ in range(3):  # a connection that is idle is closed meanwhile, three times
        client.request(server.bind(), KEY, b"x", timeout=10)
        until(lambda: server.bind() not in client.links)
    for number in range(sent):
        until(lambda: len(waiting) > number)  # noqa: B023
        waiting[number].release()
    until(lambda: not client.links)


def test_without_the_option_connections_stay(
    make_node: Callable[..., Node], server: Node, until: Callable[..., None]
) -> None:
    stays, goes = make_node(), make_node(idle_timeout=0.1)
    for client in (stays, goes):
        client.request(server.bind(), KEY, b"x", timeout=10)
    until(lambda: not goes.links)
    assert stays.links


def test_what_is_sent_while_a_connection_is_being_closed_goes_by_a_new_one(
    make_node: Callable[..., Node], server: Node, until: Callable[..., None]
) -> None:
    client = make_node(idle_timeout=0.001)  # so that it happens all the time
    endpoint = server.bind()
    taken: list[bytes] = []
    casts = server.listen(TargetKey("openstack", "casts"), lambda i: taken.append(i.body))
    failures: list[Exception] = []

    def send_on() -> None:
        try:
            for _ in range(200):
                client.request(endpoint, KEY, b"x", timeout=10)
                client.send(endpoint, TargetKey("openstack", "casts"), b"y", timeout=10)
        except Exception as error:  # noqa: BLE001 - what is under test
            failures.append(error)

    threads = [threading.Thread(target=send_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    until(lambda: len(taken) == 4 * 200)
    casts.close()


def test_of_too_many_connections_those_are_closed_that_were_not_used_for_longest(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    client = make_node(max_links=3)
    endpoints = [echoing(make_node()) for _ in range(6)]
    for endpoint in (*endpoints[:3], endpoints[0], endpoints[3]):
        client.request(endpoint, KEY, b"x", timeout=10)
    until(lambda: [*client.links] == [endpoints[0], endpoints[2], endpoints[3]])
    for endpoint in endpoints:
        client.request(endpoint, KEY, b"x", timeout=10)
    until(lambda: [*client.links] == endpoints[3:])


def test_no_more_connections_are_closed_than_are_too_many(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    client = make_node(max_links=2)
    endpoints = [echoing(make_node()) for _ in range(4)]
    for _ in range(200):  # one may end by itself while others are chosen
        for endpoint in endpoints * 3:
            client.send(endpoint, KEY, b"x", timeout=10)
        until(lambda: len(client.links) <= 2)
        assert len(client.links) == 2


def test_connections_that_were_in_use_are_closed_when_they_are_not_any_more(
    make_node: Callable[..., Node], server: Node, until: Callable[..., None]
) -> None:
    client, other = make_node(max_links=1), echoing(make_node())
    caller = threading.Thread(
        target=lambda: client.request(server.bind(), KEY, b"slow", timeout=10)
    )
    caller.start()
    until(lambda: server.bind() in client.links)
    client.request(other, KEY, b"x", timeout=10)
    caller.join()
    until(lambda: len(client.links) == 1)


def test_connections_above_the_bound_stay_while_something_is_under_way_on_them(
    make_node: Callable[..., Node], server: Node, until: Callable[..., None]
) -> None:
    client, other, slow = make_node(max_links=1), make_node(), make_node(linger=0.0)
    other.serve(KEY, lambda incoming: incoming.reply(incoming.body))
    waiting: list[Incoming] = []
    slow.listen(KEY, waiting.append, backlog=1)
    answers: list[bytes] = []
    caller = threading.Thread(
        target=lambda: answers.append(client.request(server.bind(), KEY, b"slow", timeout=10).body)
    )
    caller.start()
    until(lambda: server.bind() in client.links)
    for _ in range(2):
        client.send(slow.bind(), KEY, b"x", timeout=10)
    client.request(other.bind(), KEY, b"x", timeout=10)
    caller.join()
    assert answers == [b"done"], "nobody has closed the connection with a request out"
    client.send(slow.bind(), KEY, b"x", timeout=10)
    for number in range(3):
        until(lambda: len(waiting) > number)  # noqa: B023
        waiting[number].release()
    client.request(server.bind(), KEY, b"x", timeout=10)
    client.request(other.bind(), KEY, b"x", timeout=10)
    until(lambda: len(client.links) == 1)
