# SPDX-License-Identifier: Apache-2.0
"""Messages to all who listen: published once, subscribed to everywhere."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from zmq_core import Incoming, Node, NodeClosed, NoProxy, ProxyEnd, TargetKey

KEY = TargetKey("openstack", "topic")
LONGER = TargetKey("openstack", "topic-x")


class Publisher:
    """From a PULL to a PUB, as a proxy does it."""

    def __init__(self, name: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pull, self._pub = self._context.socket(zmq.PULL), self._context.socket(zmq.PUB)
        for own in (self._pull, self._pub):
            own.set(zmq.LINGER, 0)
        port = self._pull.bind_to_random_port("tcp://127.0.0.1")
        self.frontend = ProxyEnd(name, f"tcp://127.0.0.1:{port}")
        port = self._pub.bind_to_random_port("tcp://127.0.0.1")
        self.backend = ProxyEnd(name, f"tcp://127.0.0.1:{port}")
        self.published = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            if self._pull.poll(20):
                frames = self._pull.recv_multipart()
                self._pub.send_multipart(frames)
                self.published += frames[0] == KEY.encoded

    def end(self, linger: float = 0.0) -> None:
        """Idempotent."""
        self._ended.set()
        self._thread.join()
        self._context.destroy(linger=int(linger * 1000))


@pytest.fixture
def publishers(nothing_is_left: None) -> Iterator[list[Publisher]]:
    made = [Publisher(name) for name in ("one", "two")]
    yield made
    for publisher in made:
        publisher.end()


def use(node: Node, publishers: list[Publisher], timeout: float = 10.0) -> int:
    """Have `node` use all of them."""
    ends = [p.frontend for p in publishers], [p.backend for p in publishers]
    return node.publishers.use(*ends, timeout=timeout)


class Listener:
    """A node that listens and subscribes."""

    def __init__(self, node: Node, publishers: list[Publisher], **settings: Any) -> None:
        self.node = node
        self.got: list[bytes] = []
        self.incoming: list[Incoming] = []
        self.listening = node.listen(KEY, self._take, **settings)
        use(node, publishers)
        self.subscription = node.publishers.subscribe(KEY, timeout=10)

    def has_more_than(self, number: int) -> bool:
        """Whether so many messages have come, and another."""
        return len(self.incoming) > number

    def _take(self, incoming: Incoming) -> None:
        self.got.append(incoming.body)
        self.incoming.append(incoming)


@pytest.fixture
def make_listener(
    make_node: Callable[..., Node], publishers: list[Publisher]
) -> Callable[..., Listener]:
    return lambda **settings: Listener(make_node(), publishers, **settings)


@pytest.fixture
def sender(make_node: Callable[..., Node], publishers: list[Publisher]) -> Node:
    node = make_node()
    assert use(node, publishers) == 2
    return node


def test_each_subscriber_gets_each_message_once_and_misses_none(
    sender: Node, make_listener: Callable[..., Listener], until: Callable[..., None]
) -> None:
    bodies = [str(number).encode() for number in range(50)]
    listeners = [make_listener() for _ in range(3)]
    assert all(listener.subscription.missing == () for listener in listeners)
    for body in bodies:  # at once: the subscriptions are in place
        sender.publishers.publish(KEY, body, timeout=5)
    until(lambda: all(len(listener.got) >= 50 for listener in listeners))
    assert all(sorted(listener.got) == sorted(bodies) for listener in listeners)


def test_a_topic_that_begins_like_another_is_another(
    sender: Node, make_listener: Callable[..., Listener], until: Callable[..., None]
) -> None:
    listener = make_listener()
    sender.publishers.publish(LONGER, b"not this", timeout=5)
    for _ in range(2):  # by both publishers
        sender.publishers.publish(KEY, b"this", timeout=5)
    until(lambda: len(listener.got) == 2)
    assert set(listener.got) == {b"this"}


def test_without_a_publisher_the_sender_is_told_at_once(make_node: Callable[..., Node]) -> None:
    node = make_node()
    began = time.monotonic()
    with pytest.raises(NoProxy, match="no proxy is registered"):
        node.publishers.publish(KEY, b"x", timeout=30)
    assert time.monotonic() - began < 5


def test_a_publisher_that_does_not_confirm_a_subscription_is_named(
    make_node: Callable[..., Node], publishers: list[Publisher]
) -> None:
    one, two = publishers
    node = make_node()
    nowhere = ProxyEnd("two", "tcp://127.0.0.1:1")
    node.publishers.use([one.frontend, two.frontend], [one.backend, nowhere], timeout=10)
    assert node.publishers.subscribe(KEY, timeout=0.5).missing == ("two",)


def test_after_the_last_one_has_gone_messages_are_dropped(
    sender: Node, make_listener: Callable[..., Listener], until: Callable[..., None]
) -> None:
    listener = make_listener()
    other = make_listener()
    listener.listening.close()
    sender.publishers.publish(KEY, b"x", timeout=5)
    until(lambda: listener.node.statistics.unknown_key == 1)
    listener.subscription.close()
    before = listener.node.statistics.received
    use(listener.node, [])
    for _ in range(10):
        sender.publishers.publish(KEY, b"x", timeout=5)
    until(lambda: len(other.got) == 11)
    assert listener.node.statistics.received - before <= 2, "what was under way"


def test_a_node_that_is_full_reads_on_when_there_is_room(
    sender: Node, make_listener: Callable[..., Listener], until: Callable[..., None]
) -> None:
    listener = make_listener(backlog=1)
    for number in range(1500):
        sender.publishers.publish(KEY, str(number).encode(), timeout=5)
        if number == 1200:
            until(lambda: listener.node._life.context.reception.full)  # type: ignore[union-attr]
    for number in range(1500):
        until(functools.partial(listener.has_more_than, number))
        listener.incoming[number].release()
    assert len(set(listener.got)) == 1500


@pytest.mark.parametrize("repetition", range(3))
def test_what_a_publisher_had_sent_when_it_left_comes_also_to_a_node_that_was_full(
    repetition: int,
    sender: Node,
    publishers: list[Publisher],
    make_listener: Callable[..., Listener],
    until: Callable[..., None],
) -> None:
    listener = make_listener(backlog=10)
    for _ in range(1010 + 900):
        sender.publishers.publish(KEY, b"x", timeout=5)
    until(lambda: sum(publisher.published for publisher in publishers) == 1010 + 900)
    until(lambda: listener.node._life.context.reception.full)  # type: ignore[union-attr]
    for publisher in publishers:
        publisher.end(linger=5.0)
    for number in range(1010 + 900):
        until(functools.partial(listener.has_more_than, number))
        listener.incoming[number].release()
    until(lambda: use(listener.node, publishers, timeout=0.0) == 0)


def test_published_messages_for_a_slow_listener_do_not_stop_calls_to_another(
    sender: Node,
    make_node: Callable[..., Node],
    make_listener: Callable[..., Listener],
    until: Callable[..., None],
) -> None:
    listener = make_listener(backlog=1)
    listener.node.serve(LONGER, lambda incoming: incoming.reply(b"done"))
    endpoint, client = listener.node.bind(), make_node()
    client.request(endpoint, LONGER, b"", timeout=10)
    for _ in range(1500):
        sender.publishers.publish(KEY, b"x", timeout=5)
    until(lambda: listener.node._life.context.reception.full)  # type: ignore[union-attr]
    answers: list[bytes] = []
    caller = threading.Thread(
        target=lambda: answers.append(client.request(endpoint, LONGER, b"", timeout=60).body)
    )
    before = listener.node.statistics.received
    caller.start()
    for number in range(100):
        until(functools.partial(listener.has_more_than, number))
        listener.incoming[number].release()
        if answers:
            break
    caller.join(timeout=0.0 if not answers else None)
    assert answers, f"{listener.node.statistics.received - before} others were taken first"


def test_what_is_no_message_is_counted_and_the_rest_comes(
    sender: Node,
    publishers: list[Publisher],
    make_listener: Callable[..., Listener],
    until: Callable[..., None],
) -> None:
    listener = make_listener()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    rude = context.socket(zmq.PUSH)
    rude.connect(publishers[0].frontend.endpoint)
    for frames in ([KEY.encoded], [KEY.encoded, b"x"], [KEY.encoded, b"", b"", b"", b""]):
        rude.send_multipart(frames)
    until(lambda: listener.node.statistics.malformed == 3)
    sender.publishers.publish(KEY, b"x", timeout=5)
    until(lambda: listener.got == [b"x"])
    context.destroy(linger=0)


def test_a_publisher_that_ends_is_left_for_the_others(
    sender: Node,
    publishers: list[Publisher],
    make_listener: Callable[..., Listener],
    until: Callable[..., None],
) -> None:
    listener = make_listener()
    publishers[0].end()
    until(lambda: use(sender, publishers, timeout=0.0) == 1)
    for _ in range(10):
        sender.publishers.publish(KEY, b"x", timeout=5)
    until(lambda: len(listener.got) == 10)


def test_who_waits_for_a_subscription_is_let_go_when_the_node_closes(
    make_node: Callable[..., Node], publishers: list[Publisher]
) -> None:
    node = make_node()
    node.publishers.use([p.frontend for p in publishers], [], timeout=10)
    waiting = threading.Thread(target=lambda: node.publishers.subscribe(KEY, timeout=60))
    waiting.start()
    while not node._life.roads.publications._checks:  # type: ignore[union-attr]
        time.sleep(0.005)
    node.close()
    waiting.join(10)
    assert not waiting.is_alive()
    with pytest.raises(NodeClosed):
        node.publishers.publish(KEY, b"x", timeout=1)
