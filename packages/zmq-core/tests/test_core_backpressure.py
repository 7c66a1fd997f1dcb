# SPDX-License-Identifier: Apache-2.0
"""A receiver that does not keep up slows its senders, and nothing accepted is lost."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from zmq_core import Incoming, MessageType, Node, QueueFull, RequestTimeout, TargetKey

KEY = TargetKey("openstack", "slow")
OTHER = TargetKey("openstack", "idle")
BODY = b"x" * 100_000


def fill(node: Node, endpoint: str, seconds: float) -> int:
    """Send for so long, to a listener that picks nothing up; the messages that were taken."""
    end = time.monotonic() + seconds
    for sent in itertools.count():
        try:
            node.send(endpoint, KEY, b"%06d" % sent + BODY, timeout=end - time.monotonic())
        except QueueFull:
            assert end <= time.monotonic() < end + 1
            return sent
    raise AssertionError("never full")


def pick_up_all(got: list[Incoming], expected: int, until: Callable[..., None]) -> list[int]:
    """Release everything that comes until `expected` messages have come."""
    released = 0

    def all_came() -> bool:
        nonlocal released
        while released < len(got):
            got[released].release()
            released += 1
        return released >= expected

    until(all_came)
    return [int(incoming.body[:6]) for incoming in got]


def test_sender_of_a_stuck_listener_gets_queue_full_at_its_deadline_and_all_accepted_arrive(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server = make_node(recv_hwm=10)
    client = make_node(send_hwm=10)
    got: list[Incoming] = []
    server.listen(KEY, got.append, backlog=10)
    endpoint = server.bind()
    memory = psutil.Process().memory_info().rss

    accepted = fill(client, endpoint, 1.5)
    assert len(got) == 10
    assert psutil.Process().memory_info().rss - memory < 200 * 2**20

    assert pick_up_all(got, accepted, until) == list(range(accepted))


def test_connection_to_a_listener_stuck_for_longer_than_the_heartbeat_is_kept_and_loses_nothing(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    options = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.4}
    server = make_node(recv_hwm=10, **options)
    client = make_node(send_hwm=10, **options)
    got: list[Incoming] = []
    server.listen(KEY, got.append, backlog=5)
    accepted = fill(client, server.bind(), 1.5)
    assert pick_up_all(got, accepted, until) == list(range(accepted))


def test_calls_outward_work_while_the_listener_of_the_same_node_is_stuck(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    stuck, other, client = make_node(recv_hwm=5), make_node(), make_node(send_hwm=5)
    got: list[Incoming] = []
    stuck.listen(KEY, got.append, backlog=1)
    echo = TargetKey("openstack", "echo")
    other.serve(echo, lambda incoming: incoming.reply(incoming.body))
    accepted = fill(client, stuck.bind(), 0.2)
    reply = stuck.request(other.bind(), echo, b"out", timeout=5)
    assert reply.body == b"out"
    pick_up_all(got, accepted, until)


def test_blocked_senders_all_get_through_once_there_is_room(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(recv_hwm=5), make_node(send_hwm=5)
    got: list[Incoming] = []
    server.listen(KEY, got.append, backlog=2)
    endpoint = server.bind()
    accepted = fill(client, endpoint, 0.2)
    senders = [
        threading.Thread(
            target=client.send,
            args=(endpoint, KEY, b"%06d" % (accepted + number) + BODY),
            kwargs={"timeout": 20},
        )
        for number in range(16)
    ]
    for sender in senders:
        sender.start()
    numbers = pick_up_all(got, accepted + 16, until)
    for sender in senders:
        sender.join()
    assert sorted(numbers) == list(range(accepted + 16))


def test_acknowledgement_comes_when_the_message_is_queued_not_when_it_is_worked_on(
    make_node: Callable[..., Node],
) -> None:
    server, client = make_node(), make_node()
    got: list[Incoming] = []
    listening = server.listen(KEY, got.append, backlog=1)
    client.send(server.bind(), KEY, b"1", timeout=5, acknowledged=True)
    assert [incoming.body for incoming in got] == [b"1"]
    assert listening.waiting == 1
    got[0].release()
    got[0].release()
    assert listening.waiting == 0


def test_death_of_a_sender_that_waits_for_room_leaves_the_receiver_alive(
    make_node: Callable[..., Node], run_python: Callable[..., str], until: Callable[..., None]
) -> None:
    # libzmq would abort the receiver: a heartbeat on a connection that broke while it was not read
    options = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.4}
    server = make_node(recv_hwm=5, **options)
    got: list[Incoming] = []
    listening = server.listen(KEY, got.append, backlog=2)
    for _ in range(2):
        run_python(
            """
import os, sys, time
from zmq_core import *
node = Node(NodeOptions(heartbeat_interval=0.1, heartbeat_timeout=0.4, send_hwm=5))
if os.fork():
    os.wait()
else:
    end = time.monotonic() + 1
    try:
        while True:
            node.send(sys.argv[1], TargetKey("openstack", "slow"), b"000000" * 20000,
                      timeout=end - time.monotonic())
    except QueueFull:
        os.kill(os.getpid(), 9)
""",
            server.bind(),
        )
    waited = time.monotonic() + 0.5
    until(lambda: time.monotonic() > waited)  # several heartbeats of the receiver
    other = TargetKey("openstack", "other")
    for incoming in got:
        incoming.release()
    server.serve(other, lambda incoming: incoming.reply(b"alive"))
    listening.close()
    assert server.request(server.bind(), other, b"", timeout=10).body == b"alive"


def test_sender_that_comes_while_the_listener_is_stuck_is_kept_too(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    options = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.4}
    server = make_node(recv_hwm=5, **options)
    got: list[Incoming] = []
    server.listen(KEY, got.append, backlog=2)
    clients = [make_node(send_hwm=5, **options) for _ in range(6)]
    accepted = [0] * len(clients)

    def send(number: int) -> None:
        accepted[number] = fill(clients[number], server.bind(), 1.5)

    senders = [threading.Thread(target=send, args=(number,)) for number in range(len(clients))]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    numbers = pick_up_all(got, sum(accepted), until)
    assert sorted(numbers) == sorted(n for count in accepted for n in range(count))


def test_a_full_listener_does_not_hold_up_the_others(make_node: Callable[..., Node]) -> None:
    server = make_node()
    stuck: list[Incoming] = []
    server.listen(KEY, stuck.append, backlog=1)
    server.serve(OTHER, lambda incoming: incoming.reply(incoming.body))
    for number in range(5):
        server.send(server.bind(), KEY, b"%d" % number, timeout=5)
    assert server.request(server.bind(), OTHER, b"x", timeout=5).body == b"x"
    assert len(stuck) == 1


def test_what_was_held_for_a_full_listener_comes_in_order(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server = make_node()
    got: list[Incoming] = []
    server.listen(KEY, got.append, backlog=1)
    for number in range(50):
        kind = MessageType.FANOUT if number % 7 == 3 else MessageType.CAST
        server.send(server.bind(), KEY, b"%d" % number, timeout=5, kind=kind)
    for number in range(50):
        until(functools.partial(lambda number: len(got) == number + 1, number))
        got[-1].release()
    assert [int(incoming.body) for incoming in got] == list(range(50))


def test_no_more_than_so_much_is_held(make_node: Callable[..., Node]) -> None:
    server, client = make_node(recv_hwm=10), make_node(send_hwm=10)
    got: list[Incoming] = []
    server.listen(KEY, got.append, backlog=1)
    fill(client, server.bind(), 4)
    held = server.statistics.received * len(BODY)
    assert 60 * 2**20 < held < 70 * 2**20, "64 MiB, and what is read to learn of other senders"


def test_no_more_than_twice_as_much_is_read_to_learn_of_other_senders(
    make_node: Callable[..., Node],
) -> None:
    server, client = make_node(recv_hwm=10, heartbeat_interval=0.1), make_node(send_hwm=10)
    got: list[Incoming] = []
    server.listen(KEY, got.append, backlog=1)
    size = 10 * 2**20
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        with contextlib.suppress(QueueFull):
            client.send(server.bind(), KEY, bytes(size), timeout=0.5)
    assert 64 * 2**20 <= server.statistics.received * size < 160 * 2**20


def test_what_a_full_receiver_has_not_read_is_not_executed_when_it_has_come_again(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client, other = make_node(), make_node(), make_node()
    got: list[Incoming] = []
    server.listen(KEY, got.append, backlog=1)
    endpoint = server.bind()
    for _ in range(1100):
        other.send(endpoint, KEY, b"000000", timeout=5)
    until(lambda: server.statistics.received >= 1000)
    again = client.new_id()

    def send(timeout: float) -> None:
        client.send(endpoint, KEY, b"000001", timeout=timeout, acknowledged=True, message_id=again)

    with pytest.raises(RequestTimeout):
        send(0.5)
    client.links[endpoint].close("the network was cut")
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, 20)
        until(lambda: client.links)
        pick_up_all(got, 1101, until)
        sending.result()
    assert [incoming.body for incoming in got].count(b"000001") == 1
