# SPDX-License-Identifier: Apache-2.0
"""Peers that die, hang, refuse or were never nodes: the caller learns it, and soon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from zmq_core import (
    Endpoint,
    Envelope,
    Incoming,
    MessageType,
    Node,
    NodeOptions,
    NotDelivered,
    PeerLost,
    PeerUnreachable,
    RequestTimeout,
    TargetKey,
    encode,
)

KEY = TargetKey("openstack", "echo")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@contextmanager
def raw_server(answer: bytes = b"", *, accepts: bool = True) -> Iterator[str]:
    """A TCP server that says `answer` to whoever connects, and holds the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    if accepts:
        thread.start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    if accepts:
        thread.join()
    listener.close()
    for connection in connections:
        connection.close()


def test_killed_peer_fails_the_request_that_is_out(
    make_node: Callable[..., Node], child_node: Callable[..., Any]
) -> None:
    child, client = child_node(), make_node()
    assert client.request(child.endpoint, KEY, b"x", timeout=10).body == b"x"
    with within(2), pytest.raises(PeerLost, match="connection lost"):
        client.request(child.endpoint, KEY, b"die", timeout=60)


def test_killed_peer_fails_all_requests_of_all_threads_and_new_ones(
    make_node: Callable[..., Node], child_node: Callable[..., Any], until: Callable[..., None]
) -> None:
    child, client = child_node(), make_node()
    outcomes: list[str] = []
    counted = threading.Lock()

    def ask() -> None:
        try:
            client.request(child.endpoint, KEY, b"silence", timeout=60)
        except PeerLost:
            with counted:
                outcomes.append("lost")

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    until(lambda: int(client.request(child.endpoint, KEY, b"count", timeout=10).body) >= 20)
    child.signal(signal.SIGKILL)
    with within(5):
        for thread in threads:
            thread.join()
    assert outcomes == ["lost"] * 20
    with within(2), pytest.raises(PeerUnreachable):
        client.request(child.endpoint, KEY, b"x", timeout=60)


def busy(cpu: int) -> subprocess.Popen[bytes]:
    """A process that takes all of a CPU."""
    burn = "print(flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE)
    os.sched_setaffinity(process.pid, {cpu})
    assert process.stdout is not None
    process.stdout.readline()
    return process


def slow_down_libzmq(cpu: int) -> None:
    """Have its I/O threads wait for `cpu` behind whatever else runs there."""
    for task in map(int, os.listdir("/proc/self/task")):
        with open(f"/proc/self/task/{task}/comm") as name:
            if "/IO/" in name.read():
                os.sched_setaffinity(task, {cpu})
                os.setpriority(os.PRIO_PROCESS, task, 19)


@pytest.mark.parametrize("send", ["request", "send"])
def test_what_is_sent_after_a_peer_was_killed_may_be_sent_to_another_however_busy_the_machine(
    make_node: Callable[..., Node], child_node: Callable[..., Any], send: str
) -> None:
    children, client = [child_node() for _ in range(5)], make_node()
    for child in children:
        client.request(child.endpoint, KEY, b"x", timeout=10)
    cpu = min(os.sched_getaffinity(0))
    burner = busy(cpu)
    try:
        slow_down_libzmq(cpu)
        for child in children:
            child.end()
            with pytest.raises(PeerUnreachable):
                getattr(client, send)(child.endpoint, KEY, b"x", timeout=30)
    finally:
        burner.kill()
        burner.communicate()


def test_stopped_peer_is_lost_within_the_heartbeat_and_used_again_when_it_goes_on(
    make_node: Callable[..., Node], child_node: Callable[..., Any]
) -> None:
    child = child_node()
    client = make_node(heartbeat_interval=0.2, heartbeat_timeout=0.6)
    client.request(child.endpoint, KEY, b"x", timeout=10)
    child.stop()
    try:
        with within(3), pytest.raises(PeerLost):
            client.request(child.endpoint, KEY, b"x", timeout=60)
    finally:
        child.signal(signal.SIGCONT)
    assert client.request(child.endpoint, KEY, b"y", timeout=10).body == b"y"


def test_peer_that_is_only_slow_is_not_lost(
    make_node: Callable[..., Node], child_node: Callable[..., Any]
) -> None:
    child = child_node(heartbeat_interval=0.1, heartbeat_timeout=0.4)
    client = make_node(heartbeat_interval=0.1, heartbeat_timeout=0.4)
    assert client.request(child.endpoint, KEY, b"after 1.5", timeout=10).body == b"after 1.5"


def test_refused_connection_is_an_unreachable_peer_at_once(
    make_node: Callable[..., Node], free_port: Callable[[], int]
) -> None:
    node = make_node()
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    for _ in range(20):
        with within(1), pytest.raises(PeerUnreachable, match="refused") as caught:
            node.request(endpoint, KEY, b"", timeout=60)
        assert caught.value.endpoint == endpoint
    with within(1), pytest.raises(PeerUnreachable):
        node.send(endpoint, KEY, b"", timeout=60)


@pytest.mark.parametrize("endpoint", ["tcp://controller", "ipc:///tmp/x", "tcp://h:0", ""])
def test_endpoint_that_is_none_is_an_unreachable_peer(
    make_node: Callable[..., Node], endpoint: str
) -> None:
    client = make_node()
    for _ in range(2):
        with pytest.raises(PeerUnreachable, match="endpoint"):
            client.request(endpoint, KEY, b"", timeout=10)


def test_host_that_never_answers_is_unreachable_after_the_connect_timeout(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(connect_timeout=0.4)
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    # A listener whose backlog is full drops what knocks, as a firewall does.
    knocking = []
    for _ in range(4):
        knock = socket.socket()
        knock.setblocking(False)
        knock.connect_ex(full.getsockname())
        knocking.append(knock)
    with within(3), pytest.raises(PeerUnreachable):
        node.request(f"tcp://127.0.0.1:{full.getsockname()[1]}", KEY, b"", timeout=60)
    for knock in (*knocking, full):
        knock.close()


def test_deadline_before_the_connection_stands_is_an_unreachable_peer(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(connect_timeout=30)
    with raw_server(accepts=False) as endpoint, within(2):
        with pytest.raises(PeerUnreachable, match="before the deadline"):
            node.request(endpoint, KEY, b"", timeout=0.3)
        with pytest.raises(PeerUnreachable, match="before the deadline"):
            node.send(endpoint, KEY, b"", timeout=0.3)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\xff" * 64,
        b"\xff\0\0\0\0\0\0\0\1\x7f\3\0CURVE" + b"\0" * 100,
    ],
)
def test_server_of_another_protocol_is_an_unreachable_peer(
    make_node: Callable[..., Node], answer: bytes
) -> None:
    node = make_node(connect_timeout=0.5)
    with raw_server(answer) as endpoint, within(3), pytest.raises(NotDelivered) as caught:
        node.request(endpoint, KEY, b"", timeout=20)
    assert isinstance(caught.value, PeerUnreachable)


def test_reply_that_came_before_the_end_of_the_connection_counts(
    make_node: Callable[..., Node], child_node: Callable[..., Any]
) -> None:
    for _ in range(5):
        child, client = child_node(), make_node()
        outcomes: list[bytes] = []

        def ask(
            client: Node = client, endpoint: str = child.endpoint, outcomes: list[bytes] = outcomes
        ) -> None:
            outcomes.append(client.request(endpoint, KEY, b"after 0.02", timeout=20).body)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        child.end()
        assert outcomes == [b"after 0.02"] * 3


def test_peer_that_returns_on_the_same_port_two_hundred_times_is_found_again_each_time(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    client = make_node()
    server = make_node()
    port = Endpoint.parse(server.bind()).port
    server.close()
    endpoint = f"tcp://127.0.0.1:{port}"
    files = 0
    for number in range(200):
        with make_node(min_port=port, max_port=port + 1) as server:
            server.serve(KEY, lambda incoming: incoming.reply(incoming.body))
            server.bind()
            body = b"%d" % number
            assert client.request(endpoint, KEY, body, timeout=10).body == body
        files = files or len(os.listdir("/proc/self/fd"))
        until(lambda files=files: len(os.listdir("/proc/self/fd")) <= files)
        until(lambda: not client.links)


def test_f08_peer_that_returns_a_thousand_times_on_a_new_port_leaves_no_socket_behind(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    client = make_node()
    server = Node(NodeOptions(bind_address="127.0.0.1"))
    endpoints: set[str] = set()
    most = 0
    for number in range(1000):
        if number % 100 == 1:
            most = max(most, len(os.listdir("/proc/self/fd")))
        server.serve(KEY, lambda incoming: incoming.reply(incoming.body))
        endpoints.add(server.bind())
        assert client.request(server.bind(), KEY, b"x", timeout=10).body == b"x"
        server.close()
        server = Node(NodeOptions(bind_address="127.0.0.1"))
        until(lambda: not client.links)
        if number == 10:
            few = len(os.listdir("/proc/self/fd"))
    assert len(endpoints) > 100, "as a rule the port is another"
    assert most < few + 30
    until(lambda: len(os.listdir("/proc/self/fd")) <= few)


def test_connection_that_ends_while_idle_is_forgotten(
    make_node: Callable[..., Node], child_node: Callable[..., Any], until: Callable[..., None]
) -> None:
    child, client = child_node(), make_node()
    client.request(child.endpoint, KEY, b"x", timeout=10)
    child.end()
    until(lambda: not client.links)


def test_peer_that_does_not_read_its_replies_does_not_hold_up_the_others(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(send_hwm=10), make_node()
    server.serve(KEY, lambda incoming: incoming.reply(b"x" * 100_000))
    endpoint = server.bind()
    context = zmq.Context()
    deaf = context.socket(zmq.DEALER)
    deaf.set(zmq.RCVHWM, 1)
    deaf.set(zmq.LINGER, 0)
    deaf.connect(endpoint)
    frames = client_frames()
    for _ in range(400):
        deaf.send_multipart(frames)
    until(lambda: server.statistics.replies_dropped > 0)
    with within(5):
        assert len(client.request(endpoint, KEY, b"", timeout=20).body) == 100_000
    deaf.close()
    context.term()


def client_frames() -> list[bytes]:
    return encode(Envelope(type=MessageType.CALL, id=bytes(16), key=KEY.encoded))


def test_reply_to_a_peer_that_has_gone_is_dropped_and_counted(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(), make_node()
    asked: list[Incoming] = []
    server.serve(KEY, asked.append)
    with pytest.raises(RequestTimeout):
        client.request(server.bind(), KEY, b"", timeout=0.5)
    client.close()
    until(lambda: not asked[0].heartbeat())
    dropped = server.statistics.replies_dropped
    asked[0].reply(b"late", patience=5)  # may be left to a thread that holds the socket's lock
    until(lambda: server.statistics.replies_dropped == dropped + 1)


def test_reply_that_is_left_to_the_holder_of_the_lock_is_dropped_and_counted_by_it(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(), make_node()
    asked: list[Incoming] = []
    server.serve(KEY, asked.append)
    with pytest.raises(RequestTimeout):
        client.request(server.bind(), KEY, b"", timeout=0.5)
    client.close()
    until(lambda: not asked[0].heartbeat())
    frontend = server._life._frontend
    assert frontend is not None
    dropped = server.statistics.replies_dropped
    with frontend._outbox.lock:
        assert asked[0].reply(b"late"), "not known yet"
        assert server.statistics.replies_dropped == dropped
    until(lambda: server.statistics.replies_dropped == dropped + 1)
