# SPDX-License-Identifier: Apache-2.0
"""Messages that come again by a router: what became of the first is not forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq

from zmq_core import (
    Incoming,
    MalformedMessage,
    MessageType,
    NackCode,
    Node,
    PeerLost,
    ProxyAddress,
    ProxyLost,
    QueueFull,
    RequestTimeout,
    TargetKey,
    decode,
    encode,
)

KEY = TargetKey("openstack", "topic")
QUICK = {"heartbeat_interval": 0.1, "heartbeat_timeout": 5.0}


class Router:
    """From a PULL to a ROUTER, as a proxy does it, but for what it is to swallow."""

    def __init__(self) -> None:
        self.swallow: list[MessageType] = []
        """Types of which it passes the next one over; one entry for each."""
        self.standing: list[Router] | None = None
        """Shared by routers of which the one that gets the next CALL stands still from then on."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pull, self._router = self._context.socket(zmq.PULL), self._context.socket(zmq.ROUTER)
        for own in (self._pull, self._router):
            own.set(zmq.LINGER, 0)
        self._router.set(zmq.ROUTER_MANDATORY, 1)
        ports = [own.bind_to_random_port("tcp://127.0.0.1") for own in (self._pull, self._router)]
        self.address = ProxyAddress(
            f"router-{ports[0]}", *(f"tcp://127.0.0.1:{port}" for port in ports)
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            if self._pull.poll(20):
                frames = self._pull.recv_multipart()
                kind = _type_of(frames)
                if self.standing == [] and kind is MessageType.CALL:
                    self.standing.append(self)
                if self.standing and self in self.standing:
                    continue
                if kind in self.swallow:
                    self.swallow.remove(kind)
                else:
                    self._pass_on(frames)

    def _pass_on(self, frames: list[bytes]) -> None:
        try:
            self._router.send_multipart(frames)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            receiver, sender, *message = frames
            denial = decode(message).refused(NackCode.UNROUTABLE)
            self._router.send_multipart([sender, receiver, *encode(denial)])

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self._context.destroy()


def _type_of(frames: list[bytes]) -> MessageType | None:
    try:
        return decode(frames[2:]).type
    except MalformedMessage:
        return None


@pytest.fixture
def router(nothing_is_left: None) -> Iterator[Router]:
    made = Router()
    yield made
    made.end()


another = router
third = router


@pytest.fixture
def sender(make_node: Callable[..., Node], router: Router) -> Node:
    node = make_node(**QUICK)
    assert node.use_proxies([router.address], timeout=10) == 1
    return node


@pytest.fixture
def receiver(make_node: Callable[..., Node], router: Router) -> Node:
    node = make_node(**QUICK)
    assert node.use_proxies([router.address], timeout=10) == 1
    return node


def test_what_waits_for_room_is_not_refused_when_it_comes_again(
    sender: Node, receiver: Node, until: Callable[..., None]
) -> None:
    taken: list[Incoming] = []
    receiver.listen(KEY, taken.append, backlog=1)

    def send(body: bytes, message_id: bytes, timeout: float) -> None:
        sender.send(
            "",
            KEY,
            body,
            timeout=timeout,
            acknowledged=bool(message_id),
            message_id=message_id,
            routing_id=receiver.identity,
        )

    send(b"first", sender.new_id(), 10)
    again = sender.new_id()
    with pytest.raises(RequestTimeout):
        send(b"again", again, 0.5)
    for _ in range(7):  # more than a node holds
        send(b"x" * 10 * 2**20, b"", 10)
    with pytest.raises(QueueFull):
        send(b"new", sender.new_id(), 10)
    with pytest.raises(RequestTimeout):  # it is there, so it is not refused
        send(b"again", again, 0.5)
    for number in range(9):
        until(lambda: len(taken) > number)  # noqa: B023
        taken[number].release()
    send(b"again", again, 10)
    assert [incoming.body for incoming in taken].count(b"again") == 1


def test_a_request_that_is_refused_when_it_comes_again_may_have_been_executed(
    sender: Node, receiver: Node, router: Router
) -> None:
    router.swallow.append(MessageType.CALL)
    with pytest.raises(ProxyLost):
        sender.request("", KEY, b"", timeout=10, routing_id=receiver.identity, repeatable=True)


def test_what_was_lost_with_a_router_goes_by_another_one(
    make_node: Callable[..., Node], router: Router, another: Router
) -> None:
    sender, receiver = make_node(**QUICK), make_node(**QUICK)
    for node in (sender, receiver):
        assert node.use_proxies([router.address, another.address], timeout=10) == 2
    receiver.serve(KEY, lambda incoming: incoming.reply(b"done"))
    router.standing = another.standing = []
    reply = sender.request("", KEY, b"", timeout=4, routing_id=receiver.identity, repeatable=True)
    assert reply.body == b"done"
    assert len(router.standing) == 1


def test_a_peer_is_not_silent_because_one_of_two_routers_does_not_bring_its_answers(
    make_node: Callable[..., Node], router: Router, another: Router
) -> None:
    sender = make_node(heartbeat_interval=0.1, heartbeat_timeout=0.3)
    receiver = make_node(**QUICK)
    for node in (sender, receiver):
        assert node.use_proxies([router.address, another.address], timeout=10) == 2
    taken: list[Incoming] = []
    receiver.listen(KEY, taken.append)
    probes = 1000
    router.swallow += probes * [MessageType.PROBE]

    def call(_: int) -> bytes:
        return sender.request("", KEY, b"", timeout=1, routing_id=receiver.identity).body

    calls = 8
    with ThreadPoolExecutor(calls) as pool:
        for outcome in [pool.submit(call, number) for number in range(calls)]:
            with pytest.raises(RequestTimeout):
                outcome.result()
    assert len(taken) == calls
    assert 0 < len(router.swallow) < probes - calls


def test_a_peer_that_one_of_three_routers_knows_is_not_lost(
    make_node: Callable[..., Node], router: Router, another: Router, third: Router
) -> None:
    sender, receiver = make_node(**QUICK), make_node(**QUICK)
    assert sender.use_proxies([it.address for it in (router, another, third)], timeout=10) == 3
    assert receiver.use_proxies([third.address], timeout=10) == 1
    taken: list[Incoming] = []
    receiver.listen(KEY, taken.append)
    calls = 8

    def call(_: int) -> bytes:
        return sender.request("", KEY, b"", timeout=1, routing_id=receiver.identity).body

    with ThreadPoolExecutor(calls) as pool:
        for outcome in [pool.submit(call, number) for number in range(calls)]:
            with pytest.raises(RequestTimeout):
                outcome.result()
    assert len(taken) == calls


def test_a_peer_that_no_router_knows_any_more_is_lost_before_two_intervals_are_over(
    make_node: Callable[..., Node], router: Router, another: Router, until: Callable[..., None]
) -> None:
    interval = 2.0
    sender = make_node(heartbeat_interval=interval, heartbeat_timeout=10.0)
    receiver = make_node()
    for node in (sender, receiver):
        assert node.use_proxies([router.address, another.address], timeout=10) == 2
    taken: list[Incoming] = []
    receiver.listen(KEY, taken.append)
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        call = pool.submit(sender.request, "", KEY, b"", timeout=30, routing_id=receiver.identity)
        until(lambda: taken)
        receiver.close()
        with pytest.raises(PeerLost, match="not connected to the proxies"):
            call.result()
    assert interval < time.monotonic() - began < 2 * interval
