# SPDX-License-Identifier: Apache-2.0
"""The end of a node, and what a fork makes of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from zmq_core import (
    Envelope,
    Incoming,
    MessageType,
    Node,
    NodeClosed,
    PeerLost,
    QueueFull,
    TargetKey,
    encode,
)
from zmq_core._reactor import Reactor

KEY = TargetKey("openstack", "echo")


def echo(incoming: Incoming) -> bool:
    return incoming.reply(incoming.body)


@contextmanager
def sending(node: Node, endpoint: str) -> Iterator[None]:
    """Within the block a thread sends without pause."""
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            node.send(endpoint, KEY, b"", timeout=5)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def test_node_that_was_never_used_opens_nothing_and_closes(make_node: Callable[..., Node]) -> None:
    files, threads = os.listdir("/proc/self/fd"), threading.active_count()
    node = make_node()
    assert os.listdir("/proc/self/fd") == files
    assert threading.active_count() == threads
    node.close()
    node.close()


@pytest.mark.parametrize("requests", [1, 5])
def test_f28_close_from_another_thread_wakes_all_who_wait(
    make_node: Callable[..., Node], until: Callable[..., None], requests: int
) -> None:
    server, client = make_node(), make_node()
    asked: list[Incoming] = []
    server.serve(KEY, asked.append)
    endpoint = server.bind()
    outcomes: list[Exception] = []

    def ask() -> None:
        try:
            client.request(endpoint, KEY, b"", timeout=60)
        except PeerLost as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask) for _ in range(requests)]
    for thread in threads:
        thread.start()
    until(lambda: len(asked) == requests)
    started = time.monotonic()
    client.close()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 3
    assert len(outcomes) == requests
    assert "this node was closed" in str(outcomes[0])


def test_close_wakes_a_sender_that_waits_for_room(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(recv_hwm=1), make_node(send_hwm=1, linger=0)
    server.listen(KEY, lambda incoming: None, backlog=1)
    endpoint = server.bind()
    body = b"x" * 2**20
    while True:
        try:
            client.send(endpoint, KEY, body, timeout=0.5)
        except QueueFull:
            break
    errors: list[Exception] = []

    def send() -> None:
        try:
            client.send(endpoint, KEY, body, timeout=60)
        except Exception as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: any(link._blocked for link in client.links.values()))
    client.close()
    sender.join()
    assert "this node was closed" in str(errors[0])


def test_everything_on_a_closed_node_says_so(make_node: Callable[..., Node]) -> None:
    server, client = make_node(), make_node()
    server.serve(KEY, echo)
    endpoint = server.bind()
    client.request(endpoint, KEY, b"", timeout=5)
    client.close()
    for use in (
        lambda: client.request(endpoint, KEY, b"", timeout=5),
        lambda: client.send(endpoint, KEY, b"", timeout=5),
        lambda: client.serve(KEY, echo),
        lambda: client.connect([endpoint]),
        client.bind,
    ):
        with pytest.raises(NodeClosed):
            use()


def test_what_a_closed_node_left_behind_may_still_be_used(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(), make_node()
    got: list[Incoming] = []
    listening = server.listen(KEY, got.append, backlog=1)
    for _ in range(3):
        client.send(server.bind(), KEY, b"", timeout=5)
    until(lambda: server.statistics.received >= 2)
    server.close()
    got[0].release()
    assert not got[0].reply(b"too late")
    assert not got[0].heartbeat()
    listening.close()
    assert listening.waiting == 0


def test_reactor_that_has_stopped_takes_calls_and_forgets_them() -> None:
    reactor = Reactor("test")
    reactor.start()
    reactor.stop()
    reactor.call_soon(lambda: None)
    reactor.call_later(0, lambda: None)
    reactor.drain()


def test_messages_that_were_handed_over_leave_before_close_returns(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server = make_node()
    got: list[bytes] = []
    server.serve(KEY, lambda incoming: got.append(incoming.body))
    client = make_node(linger=10)
    for number in range(200):
        client.send(server.bind(), KEY, b"%d" % number, timeout=5)
    client.close()
    until(lambda: len(got) == 200)


def test_f28_close_with_unsent_messages_ends_within_linger(make_node: Callable[..., Node]) -> None:
    server, client = make_node(recv_hwm=1), make_node(send_hwm=5, linger=0.5)
    server.listen(KEY, lambda incoming: None, backlog=1)
    while True:
        try:
            client.send(server.bind(), KEY, b"x" * 2**20, timeout=0.5)
        except QueueFull:
            break
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 2


def test_close_ends_while_a_peer_keeps_sending(make_node: Callable[..., Node]) -> None:
    server = make_node(linger=0.5)
    server.serve(KEY, lambda incoming: None)
    endpoint = server.bind()
    stopped = threading.Event()
    context = zmq.Context()

    def flood() -> None:
        with context.socket(zmq.DEALER) as dealer:
            dealer.set(zmq.LINGER, 0)
            dealer.connect(endpoint)
            frames = encode(Envelope(type=MessageType.CALL, id=bytes(16), key=KEY.encoded))
            while not stopped.is_set():
                if dealer.poll(10, zmq.POLLOUT):
                    dealer.send_multipart(frames)
                while dealer.poll(0):
                    dealer.recv_multipart()

    flooders = [threading.Thread(target=flood) for _ in range(3)]
    for flooder in flooders:
        flooder.start()
    client = make_node()
    client.send(endpoint, KEY, b"", timeout=5, acknowledged=True)
    started = time.monotonic()
    server.close()
    took = time.monotonic() - started
    stopped.set()
    for flooder in flooders:
        flooder.join()
    context.term()
    assert took < 4


def test_close_and_use_at_the_same_time_end_in_an_error_of_this_package(
    make_node: Callable[..., Node],
) -> None:
    server = make_node()
    server.serve(KEY, echo)
    endpoint = server.bind()
    strange: list[BaseException] = []
    for _ in range(25):
        client = make_node(linger=0)
        barrier = threading.Barrier(5)

        def use(client: Node = client, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                while True:
                    client.request(endpoint, KEY, b"", timeout=5)
                    client.serve(KEY, echo).close()
            except (NodeClosed, PeerLost):
                return
            except Exception as error:  # noqa: BLE001 - looked at below
                if "this node was closed" not in str(error):
                    strange.append(error)

        users = [threading.Thread(target=use) for _ in range(4)]
        for user in users:
            user.start()
        barrier.wait()
        client.close()
        for user in users:
            user.join()
    assert strange == []


def test_listener_that_awaits_quiet_takes_what_a_peer_that_has_ended_sent_before(
    make_node: Callable[..., Node],
) -> None:
    server, client = make_node(), make_node()
    taken: list[bytes] = []
    free = threading.Lock()

    def handle(incoming: Incoming) -> None:
        with free:  # the I/O thread is late
            taken.append(incoming.body)

    listening = server.serve(KEY, handle)
    endpoint = server.bind()
    client.send(endpoint, KEY, b"", timeout=5, acknowledged=True)
    with free:
        for _ in range(90):
            client.send(endpoint, KEY, b"", timeout=5)
        client.close()
        waiter = threading.Thread(target=listening.await_quiet, args=(0.05, 20))
        waiter.start()
        waiter.join(0.5)
        assert waiter.is_alive(), "it knows that the I/O thread had no turn"
    waiter.join()
    listening.close()
    assert len(taken) == 91


def test_listener_does_not_await_quiet_longer_than_it_is_told(
    make_node: Callable[..., Node],
) -> None:
    server, client = make_node(), make_node()
    listening = server.serve(KEY, lambda incoming: None)
    endpoint = server.bind()
    with sending(client, endpoint):
        started = time.monotonic()
        listening.await_quiet(0.1, 0.5)
        took = time.monotonic() - started
    assert 0.5 <= took < 5


def test_listener_is_not_called_once_its_close_has_returned(make_node: Callable[..., Node]) -> None:
    node = make_node()
    closed = False
    late: list[Incoming] = []
    endpoint = node.bind()

    def handle(incoming: Incoming) -> None:
        if closed:
            late.append(incoming)

    listening = node.serve(KEY, handle)
    with sending(node, endpoint):
        node.send(endpoint, KEY, b"", timeout=5, acknowledged=True)
        listening.close()
        closed = True
    assert late == []


def in_a_forked_child(work: Callable[[], Any]) -> str:
    """What `work` returned or raised in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            outcome = repr(work())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            outcome = f"{type(error).__name__}: {error}"
        os.write(writing, outcome.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        outcome = pipe.read()
    os.waitpid(pid, 0)
    return outcome


def test_f28_forked_child_may_not_use_the_parents_node_but_may_make_its_own(
    make_node: Callable[..., Node],
) -> None:
    node = make_node()
    node.serve(KEY, echo)
    endpoint = node.bind()
    assert node.request(endpoint, KEY, b"before", timeout=5).body == b"before"

    def with_parents_node() -> None:
        node.request(endpoint, KEY, b"", timeout=5)

    def with_own_node() -> bytes:
        node.close()
        with Node(node.options) as own:
            own.serve(KEY, echo)
            assert own.request(own.bind(), KEY, b"own", timeout=5).body == b"own"
            return own.request(endpoint, KEY, b"child", timeout=5).body

    assert "NodeClosed" in in_a_forked_child(with_parents_node)
    assert "make a new one" in in_a_forked_child(node.bind)
    assert in_a_forked_child(with_own_node) == "b'child'"
    assert node.request(endpoint, KEY, b"after", timeout=5).body == b"after"


def test_answering_and_stopping_in_a_forked_child_leave_the_parent_alone(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    node = make_node()
    asked: list[Incoming] = []
    listening = node.serve(KEY, asked.append)
    endpoint = node.bind()
    node.send(endpoint, KEY, b"", timeout=5)
    until(lambda: asked)

    def child() -> bool:
        answered = asked[0].reply(b"x") or asked[0].heartbeat()
        asked[0].release()
        listening.close()
        node.close()
        return answered

    assert in_a_forked_child(child) == "False"
    node.send(endpoint, KEY, b"", timeout=5, acknowledged=True)
    assert len(asked) == 2


def test_fork_while_another_thread_holds_the_nodes_lock_does_not_hang_the_child(
    make_node: Callable[..., Node],
) -> None:
    node = make_node()
    node.bind()
    with node._life._lock:
        assert in_a_forked_child(node.close) == "None"
        assert "NodeClosed" in in_a_forked_child(node.bind)


def test_node_made_before_the_fork_belongs_to_whoever_uses_it_first(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(role="worker")

    def first_use() -> tuple[bool, bool, bytes]:
        node.serve(KEY, echo)
        reply = node.request(node.bind(), KEY, b"x", timeout=5)
        own_id = f"/{os.getpid()}/worker/" in node.identity
        node.close()
        return own_id, reply.body == b"x", reply.id[:8]

    one, other = in_a_forked_child(first_use), in_a_forked_child(first_use)
    assert one.startswith("(True, True, ")
    assert other.startswith("(True, True, ")
    assert one != other
    node.serve(KEY, echo)
    assert node.request(node.bind(), KEY, b"parent", timeout=5).body == b"parent"


INTERRUPTED = """
import faulthandler, random, signal
from zmq_core import Node, NodeOptions, TargetKey

class Interrupted(BaseException):
    pass

def interrupt(*_):
    raise Interrupted

faulthandler.dump_traceback_later(60, exit=True)
signal.signal(signal.SIGALRM, interrupt)
options = NodeOptions(bind_address="127.0.0.1", linger=0.5)
key = TargetKey("a", "b")
dice = random.Random(1)
interrupted = 0
with Node(options) as server:
    server.serve(key, lambda incoming: incoming.reply(b"ok"))
    endpoint = server.bind()
    for _ in range(300):
        node = Node(options)

        node._life.start()
        held = None  # the frames that were interrupted, as they are while `finally` runs
        try:
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.00001, 0.0008))
            node.request(endpoint, key, b"", timeout=10)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted as error:
            held = error
            interrupted += 1
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted as error:
            held = error
        node.close()
print(interrupted)
"""


def test_node_whose_request_was_interrupted_anywhere_can_be_closed(
    run_python: Callable[..., str],
) -> None:
    assert int(run_python(INTERRUPTED, timeout=90)) > 30
