# SPDX-License-Identifier: Apache-2.0
"""What a publisher does with messages, and what a local publisher does."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from zmq_core import Envelope, MessageType, TargetKey, decode, encode
from zmq_proxy import BACKEND, FRONTEND, PUBLISHERS, InvalidConfiguration, Settings, new_config

KEY = TargetKey("openstack", "work").encoded
OTHER = TargetKey("openstack", "work-x").encoded
Until = Callable[..., None]


def fanout(number: int, body: bytes = b"x", key: bytes = KEY) -> list[bytes]:
    """A message with the id `number`, as it is published."""
    id_ = number.to_bytes(16, "big")
    return [key, *encode(Envelope(type=MessageType.FANOUT, id=id_, key=key, body=body))]


class Peers:
    """Senders and subscribers."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def sender(self, frontend: str) -> zmq.Socket[bytes]:
        """Connected to a publisher's frontend."""
        socket = self.context.socket(zmq.PUSH)
        socket.connect(frontend)
        return socket

    def subscriber(self, sender: Any, backend: str, key: bytes = KEY) -> zmq.Socket[bytes]:
        """Connected to a publisher's backend; what `sender` sends arrives by now."""
        socket = self.context.socket(zmq.SUB)
        socket.subscribe(key)
        own = b"\xff" + str(id(socket)).encode()
        socket.subscribe(own)
        socket.connect(backend)
        while not socket.poll(50):
            sender.send_multipart([own, b"is it there?"])
        socket.unsubscribe(own)
        return socket


@pytest.fixture
def peers(nothing_is_left: None) -> Iterator[Peers]:
    """Their sockets are closed at the end."""
    made = Peers()
    yield made
    made.context.destroy(linger=0)


def received(subscriber: zmq.Socket[bytes]) -> int:
    """The number of the next fanout that came, past what a subscriber sends itself."""
    while True:
        assert subscriber.poll(10_000), "nothing came"
        _, *frames = subscriber.recv_multipart()
        if len(frames) == 3:
            return int.from_bytes(decode(frames).id, "big")


def test_a_message_goes_to_each_subscriber_of_its_key_and_to_nobody_else(
    deployment: Any, peers: Peers
) -> None:
    process = deployment.start("--role", "publisher")
    frontend, backend = deployment.endpoints(process, PUBLISHERS)
    sender = peers.sender(frontend)
    both = [peers.subscriber(sender, backend) for _ in range(2)]
    other = peers.subscriber(sender, backend, OTHER)
    sender.send_multipart(fanout(1))
    sender.send_multipart(fanout(2, key=OTHER))
    sender.send_multipart(fanout(3))
    assert [[received(one), received(one)] for one in both] == [[1, 3], [1, 3]]
    assert received(other) == 2
    assert not any(one.poll(0) for one in (*both, other))
    assert deployment.records() == (), "it does not route"


def test_senders_are_told_of_a_publisher_later_than_subscribers(
    deployment: Any, until: Until
) -> None:
    deployment.start("--role", "publisher")

    def members() -> set[str]:
        return {record.member for record in deployment.records(PUBLISHERS)}

    until(lambda: members() == {BACKEND})
    until(lambda: members() == {FRONTEND, BACKEND})


def test_f23_a_subscriber_that_does_not_read_misses_messages_and_others_get_them_all(
    deployment: Any, peers: Peers, until: Until
) -> None:
    process = deployment.start("--role", "publisher")
    frontend, backend = deployment.endpoints(process, PUBLISHERS)
    sender = peers.sender(frontend)
    good = peers.subscriber(sender, backend)
    stuck = peers.subscriber(sender, backend)
    body = bytes(10_000)
    for number in range(3000):
        sender.send_multipart(fanout(number, body))
        assert received(good) == number
    until(lambda: f"subscriber of {TargetKey.decode(KEY)} does not read" in process.output)
    warnings = process.output.count("does not read")
    assert warnings <= 3, "one in ten seconds"
    assert stuck.poll(0), "it has what fitted into the queues"
    assert process.end() == 0
    assert "PublisherStatistics(stalls=1," in process.output


def test_what_cannot_be_sent_on_and_is_no_message_is_dropped(deployment: Any, peers: Peers) -> None:
    process = deployment.start("--role", "publisher")
    frontend, backend = deployment.endpoints(process, PUBLISHERS)
    sender = peers.sender(frontend)
    good = peers.subscriber(sender, backend)
    peers.subscriber(sender, backend)  # which never reads
    for _ in range(2500):
        sender.send_multipart([KEY, bytes(10_000)])
        sender.send_multipart([KEY, b"", b"no key", b"", b""])
    deadline = time.monotonic() + 20
    came = False
    while not came:  # it may have stalled, too, while it was not read
        assert time.monotonic() < deadline
        sender.send_multipart(fanout(1))
        while good.poll(10):
            came = good.recv_multipart() == fanout(1) or came
    assert process.end() == 0
    assert "Traceback" not in process.output


def test_what_is_inside_a_publisher_when_it_is_told_to_stop_is_published(
    deployment: Any, peers: Peers
) -> None:
    process = deployment.start("--role", "publisher")
    frontend, backend = deployment.endpoints(process, PUBLISHERS)
    sender = peers.sender(frontend)
    subscriber = peers.subscriber(sender, backend)
    for number in range(900):
        sender.send_multipart(fanout(number))
    assert received(subscriber) == 0
    process.process.send_signal(signal.SIGTERM)
    assert [received(subscriber) for _ in range(899)] == list(range(1, 900))
    assert process.process.wait(10) == 0


@pytest.fixture
def local_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_local_publisher_passes_on_what_all_publishers_send_and_follows_them(
    deployment: Any, peers: Peers, local_port: int, until: Until
) -> None:
    first = deployment.start("--role", "publisher")
    frontend, _ = deployment.endpoints(first, PUBLISHERS)
    config = deployment.config(f"subscribe_on = 127.0.0.1:{local_port}", "")
    local = deployment.start("--local-publisher", config=config)
    until(lambda: "publishes for this node" in local.output)
    sender = peers.sender(frontend)
    subscribers = [
        peers.subscriber(sender, f"tcp://127.0.0.1:{local_port}", key) for key in (KEY, KEY, OTHER)
    ]
    sender.send_multipart(fanout(1))
    assert [received(one) for one in subscribers[:2]] == [1, 1]
    second = deployment.start("--role", "publisher")
    other_frontend, _ = deployment.endpoints(second, PUBLISHERS)
    other_sender = peers.sender(other_frontend)
    peers.subscriber(other_sender, f"tcp://127.0.0.1:{local_port}")
    assert first.end() == 0
    until(lambda: "is not registered any more" in local.output)
    other_sender.send_multipart(fanout(2))
    assert [received(one) for one in subscribers[:2]] == [2, 2]
    other_sender.send_multipart(fanout(3, key=OTHER))
    assert received(subscribers[2]) == 3, "and nothing before"
    assert local.end() == 0
    assert "Traceback" not in local.output


def load(deployment: Any, services: str = "", proxy: str = "", *arguments: str) -> Settings:
    """The settings of such a configuration."""
    file = deployment.folder / "some.conf"
    file.write_text(deployment.config(services, proxy))
    conf = new_config()
    conf(["--config-file", str(file), *arguments], project="test")
    return Settings.load(conf)


@pytest.mark.parametrize(
    ("services", "proxy", "warning"),
    [
        ("", "", ""),
        ("use_router_proxy = true", "", ""),
        ("use_router_proxy = true\nuse_pub_sub = false", "", ""),
        ("use_router_proxy = true\nuse_pub_sub = false", "role = router", ""),
        ("", "role = publisher", ""),
        ("", "role = router", "routes, but use_router_proxy is false"),
        ("use_pub_sub = false", "role = publisher", "publishes, but use_pub_sub is false"),
        ("use_router_proxy = true", "role = publisher", "this proxy does not route"),
        ("use_pub_sub = false", "", "publishes, but use_pub_sub is false"),
    ],
)
def test_what_the_services_of_the_same_file_do_not_use_is_said(
    deployment: Any, services: str, proxy: str, warning: str
) -> None:
    warnings = load(deployment, services, proxy).warnings
    assert (warning in " ".join(warnings)) if warning else not warnings


@pytest.mark.parametrize(
    ("services", "proxy", "message"),
    [
        ("", "local_publisher = true", "subscribe_on: names 0 publishers; a local publisher needs"),
        ("subscribe_on = a:1,b:2", "local_publisher = true", "names 2 publishers"),
        ("subscribe_on = nonsense", "local_publisher = true", "subscribe_on: 'tcp://nonsense'"),
        ("", "role = brodcaster", "role"),
        ("", "publisher_port = 7\nbackend_port = 7", "publisher_port: 7 is the backend_port"),
    ],
)
def test_a_configuration_that_cannot_work_is_named(
    deployment: Any, services: str, proxy: str, message: str
) -> None:
    with pytest.raises((InvalidConfiguration, ValueError), match=re.escape(message)):
        load(deployment, services, proxy)


def test_a_local_publisher_is_where_subscribe_on_says(deployment: Any) -> None:
    settings = load(deployment, "subscribe_on = 127.0.0.3:9503", "", "--local-publisher")
    assert (settings.address.host, settings.publisher_port) == ("127.0.0.3", 9503)


def test_the_url_of_the_proxy_wins_over_that_of_the_services(deployment: Any) -> None:
    settings = load(deployment, "", "url = zmq+redis://elsewhere:1/path")
    assert [host.name for host in settings.matchmaker.hosts] == ["elsewhere"]
