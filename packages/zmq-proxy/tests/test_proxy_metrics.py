# SPDX-License-Identifier: Apache-2.0
"""What a proxy counts, says of its health, and writes about single messages."""

from __future__ import annotations

import random
import re
import signal
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from zmq_core import Envelope, MessageType, TargetKey, encode
from zmq_proxy import PUBLISHERS

MakePeer = Callable[[str], Any]
Until = Callable[..., None]
Counts = dict[tuple[str, str], tuple[int, int]]

KEY = TargetKey("openstack", "echo").encoded
ANSWERS = {MessageType.REPLY, MessageType.ACK, MessageType.HEARTBEAT, MessageType.PROBE}


def message(kind: MessageType, body: bytes = b"", number: int = 1) -> Envelope:
    """A message with the id `number`."""
    key = b"" if kind in ANSWERS else KEY
    return Envelope(type=kind, id=number.to_bytes(16, "big"), key=key, body=body)


class Expected:
    """What the counters should have grown by."""

    def __init__(self, before: Counts) -> None:
        self._before = before
        self._messages: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()

    def add(self, kind: str, direction: str, *frames: bytes) -> None:
        """One message more."""
        self._messages[kind, direction] += 1
        self._bytes[kind, direction] += sum(map(len, frames))

    def routed(self, kind: str, *frames: bytes) -> None:
        """One message that was passed on without its first frame."""
        self.add(kind, "in", *frames)
        self.add(kind, "out", *frames[1:])

    @property
    def counts(self) -> Counts:
        """What there should be now."""
        keys = self._before.keys() | self._messages.keys()
        return {
            key: (
                self._before.get(key, (0, 0))[0] + self._messages[key],
                self._before.get(key, (0, 0))[1] + self._bytes[key],
            )
            for key in keys
        }


@pytest.fixture
def start(deployment: Any, metrics: Any) -> Callable[..., Any]:
    """Start a proxy that counts, and return it when it answers."""

    def start(*arguments: str, **options: Any) -> Any:
        return deployment.start("--metrics-port", str(metrics.port), *arguments, **options)

    return start


def counted_until_now(metrics: Any, peer: Any, until: Until) -> Counts:
    """What a router has counted; all that `peer` sent before is in it."""
    # Messages are counted in the order in which they are forwarded.
    peer.send(peer.name, message(MessageType.PROBE))
    peer.receive()
    until(lambda: ("probe", "out") in metrics.traffic("router"))
    counts: Counts = metrics.traffic("router")
    return counts


def test_a_router_counts_messages_and_bytes_by_type_and_direction(
    deployment: Any, start: Any, make_peer: MakePeer, metrics: Any, until: Until
) -> None:
    endpoints = deployment.endpoints(start())
    client, server = make_peer("host-1/10/client"), make_peer("host-2/20/server")
    client.connect(*endpoints)
    server.connect(*endpoints)
    expected = Expected(counted_until_now(metrics, server, until))
    refused = metrics.samples("zmq_proxy_refused_total")["unroutable",]

    for kind in MessageType:
        for number in range(int(kind)):
            envelope = message(kind, bytes(100 * number), number)
            client.send(server.name, envelope)
            frames = [server.name, client.name, *encode(envelope)]
            expected.routed(kind.name.lower(), *frames)
            assert server.dealer.recv_multipart() == frames[1:]
    malformed = [server.name, client.name, b"no header", b"", b""]
    client.push.send_multipart(malformed)
    assert server.dealer.recv_multipart() == malformed[1:]
    expected.routed("malformed", *malformed)
    until(lambda: metrics.traffic("router") == expected.counts)

    # One frame has a destination and nothing to bring it; it is swallowed.
    client.push.send(server.name)
    expected.add("malformed", "in", server.name)
    # And these are refused: a NACK goes out in place of two of them.
    for kind in (MessageType.CALL, MessageType.CAST, MessageType.REPLY):
        envelope = message(kind, b"to nobody")
        client.send(b"nobody", envelope)
        expected.add(kind.name.lower(), "in", b"nobody", client.name, *encode(envelope))
        if kind is not MessageType.REPLY:
            expected.add("nack", "out", client.name, *client.dealer.recv_multipart())
            expected._bytes["nack", "out"] -= len(client.name)
    client.push.send_multipart([b"nobody", b"no message"])
    expected.add("malformed", "in", b"nobody", b"no message")
    client.send(server.name, message(MessageType.CALL, b"last"))
    last = [server.name, client.name, *encode(message(MessageType.CALL, b"last"))]
    assert server.dealer.recv_multipart() == last[1:]
    expected.routed("call", *last)
    until(lambda: metrics.traffic("router") == expected.counts)
    assert metrics.samples("zmq_proxy_refused_total")["unroutable",] == refused + 4
    assert metrics.samples("zmq_proxy_nacks_total") == {("told",): 2, ("lost",): 0}


def test_what_a_full_queue_refuses_is_counted_in_but_not_out(
    deployment: Any, start: Any, make_peer: MakePeer, metrics: Any, until: Until
) -> None:
    endpoints = deployment.endpoints(start())
    client, stuck = make_peer("client"), make_peer("stuck")
    client.dealer.set(zmq.RCVHWM, 100_000)
    stuck.dealer.set(zmq.RCVHWM, 1)
    stuck.dealer.set(zmq.RCVBUF, 4096)
    client.connect(*endpoints)
    stuck.connect(*endpoints)
    count = 3000
    for number in range(count):
        client.send(stuck.name, message(MessageType.CALL, bytes(20_000), number))
    client.send(client.name, message(MessageType.ACK))
    refused = 0
    while client.receive()[1].type is MessageType.NACK:
        refused += 1
    assert 0 < refused < count
    until(lambda: metrics.traffic("router").get(("call", "in"), (0,))[0] == count)
    traffic = metrics.traffic("router")
    assert traffic["call", "out"][0] == count - refused
    assert traffic["nack", "out"][0] == refused
    assert ("nack", "in") not in traffic
    assert ("malformed", "in") not in traffic
    assert metrics.samples("zmq_proxy_refused_total")["queue_full",] == refused
    waiting = metrics.samples("zmq_proxy_kernel_queue_bytes")
    assert waiting["out", "backend"] > 4096
    assert waiting["in", "frontend"] == 0


def test_garbage_is_counted_message_by_message(
    deployment: Any, start: Any, make_peer: MakePeer, metrics: Any, until: Until
) -> None:
    endpoints = deployment.endpoints(start())
    peer = make_peer("peer")
    peer.connect(*endpoints)
    dice = random.Random(16)
    header = encode(message(MessageType.CALL))[0]
    expected = Expected({})
    for _ in range(2000):
        length = dice.choice((1, 2, 3, 4, 6, 7))
        frames = [b"nobody", b"", header, KEY, b"body", b"", b"more"][:length]
        if dice.random() < 0.5:
            frames = [dice.randbytes(dice.choice((0, 1, 28, 300))) for _ in range(length)]
        peer.push.send_multipart(frames)
        expected.add("malformed", "in", *frames)
    peer.send(peer.name, message(MessageType.CAST))
    cast = [peer.name, peer.name, *encode(message(MessageType.CAST))]
    expected.routed("cast", *cast)

    def counted() -> Counts:
        traffic = metrics.traffic("router")
        return {key: traffic[key] for key in traffic if key[0] != "heartbeat"}

    until(lambda: counted() == expected.counts)


def test_a_stopping_proxy_counts_on_and_sends_load_balancers_away(
    deployment: Any, start: Any, make_peer: MakePeer, metrics: Any, until: Until
) -> None:
    process = start()
    endpoints = deployment.endpoints(process)
    peer = make_peer("peer")
    peer.connect(*endpoints)
    until(lambda: metrics.get("/healthz") == (200, "ok\n"))
    process.process.send_signal(signal.SIGTERM)
    sent = 0

    def goes_on() -> None:
        nonlocal sent
        for to in (peer.name, b"nobody"):
            peer.send(to, message(MessageType.CALL, b"on", sent))
            peer.receive()
        sent += 1

    def told() -> bool:
        goes_on()
        return bool(metrics.get("/healthz") == (503, "stopping\n"))

    until(told)
    for _ in range(100):
        goes_on()

    forwarding: dict[tuple[str, ...], float] = {}

    def counted() -> bool:
        nonlocal forwarding
        goes_on()  # or it ends half a second later
        forwarding = metrics.samples("zmq_proxy_forwarding")
        goes_on()
        traffic = metrics.traffic("router")
        taken, passed = traffic["call", "in"][0], traffic["call", "out"][0]
        assert passed <= sent <= taken <= 2 * sent
        return (taken, passed, traffic["nack", "out"][0]) == (2 * sent, sent, sent)

    until(counted)
    assert forwarding == {(): 0}
    assert process.process.wait(10) == 0


def fanout(number: int, body: bytes = b"x") -> list[bytes]:
    """As it is published."""
    return [KEY, *encode(message(MessageType.FANOUT, body, number))]


@pytest.fixture
def subscribe(make_peer: MakePeer) -> Callable[..., Any]:
    """Make subscribers to all that is published."""

    def subscribe(backend: str) -> Any:
        peer = make_peer("subscriber")
        sub = peer.dealer.context.socket(zmq.SUB)
        sub.set(zmq.LINGER, 0)
        sub.subscribe(b"")
        sub.connect(backend)
        return sub

    return subscribe


def test_a_publisher_counts_what_it_publishes_once_whoever_gets_it(
    deployment: Any,
    start: Any,
    make_peer: MakePeer,
    subscribe: Any,
    metrics: Any,
    until: Until,
) -> None:
    process = start("--role", "publisher")
    frontend, backend = deployment.endpoints(process, PUBLISHERS)
    sender = make_peer("sender").push
    sender.connect(frontend)
    good, stuck = subscribe(backend), subscribe(backend)
    for one in (good, stuck):
        until(lambda one=one: sender.send_multipart([b"\xff", b"knock"]) or one.poll(20))
    count = 3000
    expected = Expected({})
    for number in range(count):
        frames = fanout(number, bytes(10_000))
        sender.send_multipart(frames)
        expected.add("fanout", "in", *frames)
        expected.add("fanout", "out", *frames)
        while good.recv_multipart() != frames:
            pass

    def published() -> Counts:
        return {
            key: value for key, value in metrics.traffic("publisher").items() if "fanout" in key
        }

    until(lambda: published() == expected.counts)
    assert metrics.samples("zmq_proxy_stalls_total") == {("publisher",): 1}
    knocks = metrics.traffic("publisher")
    assert knocks["malformed", "in"] == knocks["malformed", "out"]
    assert set(metrics.samples("zmq_proxy_peers")) == {("publisher_frontend",), ("publisher",)}
    assert metrics.samples("zmq_proxy_peers") == {("publisher_frontend",): 1, ("publisher",): 2}


def test_a_local_publisher_counts_what_it_publishes(
    deployment: Any,
    start: Any,
    make_peer: MakePeer,
    subscribe: Any,
    metrics: Any,
    until: Until,
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    publisher = deployment.start("--role", "publisher")
    frontend, _ = deployment.endpoints(publisher, PUBLISHERS)
    on = f"subscribe_on = 127.0.0.1:{port}"
    start("--local-publisher", config=deployment.config(on))
    sender = make_peer("sender").push
    sender.connect(frontend)
    sub = subscribe(f"tcp://127.0.0.1:{port}")
    until(lambda: sender.send_multipart([b"\xff", b"knock"]) or sub.poll(20))
    expected = Expected({})
    for number in range(20):
        frames = fanout(number, bytes(number))
        sender.send_multipart(frames)
        while sub.recv_multipart() != frames:
            pass
        expected.add("fanout", "in", *frames)
        expected.add("fanout", "out", *frames)
    counted = metrics.traffic("local")
    assert {key: value for key, value in counted.items() if "fanout" in key} == expected.counts
    assert metrics.samples("zmq_proxy_upstream_publishers") == {(): 1}
    assert metrics.get("/healthz") == (200, "ok\n")


def test_each_metric_stands_in_the_documentation(
    deployment: Any, start: Any, metrics: Any, until: Until
) -> None:
    page = (Path(__file__).parents[3] / "docs/proxy.md").read_text()
    table = page.partition("## Metrics")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z_]+)`", table))
    process = start()
    deployment.endpoints(process)
    text = metrics.get("/metrics")[1]
    names = set(re.findall(r"^# TYPE zmq_proxy_(\w+)", text, re.MULTILINE))
    assert names >= {"messages_total", "peers", "refused_total", "matchmaker_reachable"}
    assert names <= documented


def test_peers_are_counted_while_they_are_connected(
    deployment: Any, start: Any, make_peer: MakePeer, metrics: Any, until: Until
) -> None:
    endpoints = deployment.endpoints(start("--role", "router"))
    assert metrics.samples("zmq_proxy_peers") == {("frontend",): 0, ("backend",): 0}
    peers = [make_peer(f"peer-{number}") for number in range(20)]
    for peer in peers:
        peer.connect(*endpoints)
    assert metrics.samples("zmq_proxy_peers") == {("frontend",): 20, ("backend",): 20}
    for peer in peers[:15]:
        peer.dealer.close()
    until(lambda: metrics.samples("zmq_proxy_peers") == {("frontend",): 20, ("backend",): 5})
    for peer in peers:
        peer.push.close()
    until(lambda: metrics.samples("zmq_proxy_peers") == {("frontend",): 0, ("backend",): 5})


def test_the_matchmakers_state_uptime_and_versions_are_told(
    deployment: Any, start: Any, metrics: Any
) -> None:
    deployment.endpoints(start("--role", "router"))
    assert metrics.samples("zmq_proxy_matchmaker_reachable") == {(): 1}
    entries = metrics.samples("zmq_proxy_matchmaker_entries")
    assert entries == {("announced",): 2, ("unwritten",): 0}
    first = metrics.samples("zmq_proxy_uptime_seconds")[()]
    assert 0 < first < 60
    assert metrics.samples("zmq_proxy_uptime_seconds")[()] > first
    [labels] = metrics.samples("zmq_proxy_info")
    assert zmq.zmq_version() in labels


def test_a_matchmaker_that_cannot_be_reached_shows_and_does_not_make_it_unhealthy(
    deployment: Any, start: Any, metrics: Any, until: Until, busy_port: int
) -> None:
    # What listens there never answers.
    url = f"zmq+redis://me:hidden@127.0.0.1:{busy_port}/?socket_timeout=0.2"
    config = f"[DEFAULT]\ntransport_url = {url}\n[zmq_proxy_opts]\nhost = 127.0.0.1\n"
    process = start(config=config)
    until(lambda: "metrics at port" in process.output)
    until(lambda: metrics.samples("zmq_proxy_matchmaker_reachable") == {(): 0})
    assert metrics.samples("zmq_proxy_matchmaker_failures_total")[()] > 0
    until(lambda: metrics.samples("zmq_proxy_matchmaker_entries")["unwritten",] >= 2, 20)
    until(lambda: metrics.get("/healthz") == (200, "ok\n"))
    assert "hidden" not in metrics.get("/metrics")[1]


def listening(pid: int) -> set[int]:
    """The TCP ports that a process listens on."""
    return {
        connection.laddr.port
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def test_nothing_is_served_by_default_and_else_on_the_loopback_address_only(
    deployment: Any, start: Any, metrics: Any
) -> None:
    process = deployment.start("--role", "router")
    ports = {int(one.rpartition(":")[2]) for one in deployment.endpoints(process)}
    assert listening(process.process.pid) == ports
    process = start("--role", "router")
    deployment.endpoints(process)
    assert {
        connection.laddr.ip
        for connection in psutil.Process(process.process.pid).net_connections("tcp")
        if connection.laddr.port == metrics.port
    } == {"127.0.0.1"}


def test_a_metrics_port_in_use_or_an_address_of_others_ends_the_command_before_it_registers(
    deployment: Any, busy_port: int, free_port: int
) -> None:
    code, text = deployment.run("--metrics-port", str(busy_port))
    assert code == 1
    assert f"[zmq_proxy_opts] metrics_port: the port {busy_port} of '127.0.0.1' is in use" in text
    for host in ("192.0.2.1", "no such host"):
        code, text = deployment.run("--metrics-port", str(free_port), "--metrics-host", host)
        assert code == 1
        assert f"[zmq_proxy_opts] metrics_host: cannot listen on {host!r}: " in text
        assert "Traceback" not in text
    assert deployment.records() == ()


def test_other_requests_are_refused_and_clients_that_say_nothing_hold_up_nobody(
    deployment: Any, start: Any, metrics: Any, until: Until
) -> None:
    process = start()
    deployment.endpoints(process)
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", metrics.port)))
        assert metrics.get("/")[0] == 404
        assert metrics.get("/metrics?x=y")[0] == 200
        assert metrics.get("/metrics", "POST")[0] == 405
        assert metrics.get("/healthz", "HEAD") == (200, "")
        for garbage in (b"\r\n\r\n", b"\xff\x00" * 5000 + b"\r\n\r\n", bytes(100_000)):
            with socket.create_connection(("127.0.0.1", metrics.port)) as raw:
                raw.settimeout(10)
                try:
                    raw.sendall(garbage)
                    assert raw.recv(4096)[:12] in (b"", b"HTTP/1.1 405")
                except ConnectionError:
                    pass  # it has heard enough
        until(lambda: metrics.get("/healthz") == (200, "ok\n"))
        assert process.end(seconds=4) == 0, "silent clients must not delay the end"
    assert "Traceback" not in process.output


def test_debug_writes_a_line_per_message_without_its_body(
    deployment: Any, make_peer: MakePeer, until: Until
) -> None:
    process = deployment.start("--debug")
    endpoints = deployment.endpoints(process)
    peer = make_peer("host-1/10/peer")
    peer.connect(*endpoints)
    for number, to in enumerate((peer.name, b"nobody"), 77):
        peer.send(to, message(MessageType.CAST, b"confidential", number))
        peer.receive()
    size = sum(
        map(len, [peer.name, peer.name, *encode(message(MessageType.CAST, b"confidential"))])
    )
    key = TargetKey.decode(KEY)
    until(lambda: "router sent nack" in process.output)
    for line in (
        f"router passed on cast {77:032x} from {peer.name!r} to {peer.name!r}, key {key}, {size}",
        f"router refused cast {78:032x} from {peer.name!r} to b'nobody', key {key}, ",
        f"router sent nack {78:032x} from b'",
        f"router passed on heartbeat {0:028x}",
    ):
        assert line in process.output
    assert process.output.count(" cast ") == 2
    assert "confidential" not in process.output
    assert process.end() == 0


def test_without_debug_no_message_is_written_about(
    deployment: Any, start: Any, make_peer: MakePeer
) -> None:
    process = start()
    endpoints = deployment.endpoints(process)
    peer = make_peer("peer")
    peer.connect(*endpoints)
    peer.send(peer.name, message(MessageType.CAST))
    peer.receive()
    assert process.end() == 0
    assert "passed on" not in process.output
