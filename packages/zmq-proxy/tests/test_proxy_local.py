# SPDX-License-Identifier: Apache-2.0
"""A local publisher, and publishers that are not what they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from zmq_core import NodeOptions, resolve_bind_address
from zmq_proxy._local import LocalPublisher
from zmq_proxy._sockets import SocketFactory

Until = Callable[..., None]
LINGER = 1.0


@pytest.fixture
def context(nothing_is_left: None) -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def local(nothing_is_left: None) -> Iterator[LocalPublisher]:
    options = NodeOptions(bind_address="127.0.0.1", linger=0.0)
    sockets = SocketFactory(options, resolve_bind_address("127.0.0.1", ""))
    made = LocalPublisher(sockets, 0, LINGER)
    made.start()
    yield made
    made.stop(0.0)
    made.join()
    sockets.close()


class Publisher:
    """A publisher's end for subscribers."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.socket = context.socket(zmq.XPUB)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"

    def hears(self, message: bytes) -> None:
        """Wait for a subscription, or the end of one."""
        assert self.socket.poll(10_000)
        assert self.socket.recv() == message


@pytest.fixture
def subscriber(context: zmq.Context[zmq.Socket[bytes]], local: LocalPublisher) -> zmq.Socket[bytes]:
    made = context.socket(zmq.SUB)
    made.connect(local.endpoint)
    made.subscribe(b"topic")
    return made


@pytest.fixture
def leaving(
    context: Any, local: LocalPublisher, subscriber: zmq.Socket[bytes], until: Until
) -> Publisher:
    """A publisher that was used, and is not registered any more."""
    publisher = Publisher(context)
    local.use([publisher.endpoint])
    publisher.hears(b"\x01topic")
    local.use([])
    until(lambda: local.publishers == 0)
    return publisher


def test_a_publisher_that_leaves_is_listened_to_for_a_while(
    leaving: Publisher, subscriber: zmq.Socket[bytes]
) -> None:
    leaving.socket.send_multipart([b"topic", b"the last"])
    assert subscriber.poll(10_000)
    assert subscriber.recv_multipart() == [b"topic", b"the last"]
    leaving.hears(b"\x00topic")  # when that time is over


def test_a_publisher_that_comes_back_in_time_is_not_left(
    leaving: Publisher, local: LocalPublisher, until: Until
) -> None:
    local.use([leaving.endpoint])
    until(lambda: local.publishers == 1)
    assert not leaving.socket.poll(int(2 * LINGER * 1000)), "no end of the subscription"


@pytest.mark.parametrize("endpoint", ["garbage", "tcp://host-without-port", "tcp://h:0", ""])
def test_an_endpoint_that_is_none_is_named_and_left_out(
    endpoint: str,
    context: Any,
    local: LocalPublisher,
    subscriber: zmq.Socket[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher = Publisher(context)
    local.use([endpoint, publisher.endpoint])
    publisher.hears(b"\x01topic")
    assert local.failure is None
    assert local.publishers == 1
    assert repr(endpoint) in caplog.text
