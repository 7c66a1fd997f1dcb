# SPDX-License-Identifier: Apache-2.0
"""Messages through a real proxy, between real peers."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from zmq_core import Envelope, MessageType, NackCode, TargetKey, encode

MakePeer = Callable[[str], Any]

KEY = TargetKey("openstack", "echo").encoded


def call(number: int, body: bytes, kind: MessageType = MessageType.CALL) -> Envelope:
    """A message with the id `number`."""
    return Envelope(type=kind, id=number.to_bytes(16, "big"), key=KEY, body=body)


def test_a_call_and_its_reply_cross_the_proxy_with_the_frames_of_a_direct_connection(
    deployment: Any, make_peer: MakePeer
) -> None:
    endpoints = deployment.endpoints(deployment.start())
    client, server = make_peer("host-1/10/client"), make_peer("host-2/20/server")
    client.connect(*endpoints)
    server.connect(*endpoints)
    request = call(1, b"question")

    client.send(server.name, request)
    assert server.dealer.recv_multipart() == [client.name, *encode(request)]

    server.send(client.name, call(1, b"answer", MessageType.REPLY))
    sender, reply = client.receive()
    assert (sender, reply.type, reply.body) == (server.name, MessageType.REPLY, b"answer")


@pytest.mark.parametrize("size", [0, 1, 65536, 32 * 2**20])
def test_bodies_arrive_intact(deployment: Any, make_peer: MakePeer, size: int) -> None:
    endpoints = deployment.endpoints(deployment.start())
    peer = make_peer("peer")
    peer.connect(*endpoints)
    body = os.urandom(size)
    peer.send(peer.name, call(1, body))
    assert peer.receive(30)[1].body == body


def test_each_of_many_peers_gets_what_is_sent_to_it_in_order(
    deployment: Any, make_peer: MakePeer
) -> None:
    endpoints = deployment.endpoints(deployment.start())
    peers = [make_peer(f"peer-{number}") for number in range(30)]
    for peer in peers:
        peer.connect(*endpoints)
    dice = random.Random(4)
    sent: dict[bytes, list[tuple[bytes, bytes]]] = {peer.name: [] for peer in peers}
    sender = peers[0]
    for number in range(3000):
        receiver = dice.choice(peers)
        body = f"{number} for ".encode() + receiver.name
        sender.send(receiver.name, call(number, body))
        sent[receiver.name].append((sender.name, body))
    for peer in peers:
        received = [peer.receive() for _ in sent[peer.name]]
        assert [(sender, envelope.body) for sender, envelope in received] == sent[peer.name]
        assert not peer.dealer.poll(0)


def test_the_sender_of_a_call_to_nobody_is_told_at_once(
    deployment: Any, make_peer: MakePeer
) -> None:
    endpoints = deployment.endpoints(deployment.start())
    peer = make_peer("peer")
    peer.connect(*endpoints)
    peer.send(b"nobody", call(7, b"lost?"))
    sender, nack = peer.receive()
    assert b"/proxy/" in sender
    assert (nack.type, nack.id) == (MessageType.NACK, call(7, b"").id)
    assert nack.nack_code is NackCode.UNROUTABLE
    assert nack.subject == MessageType.CALL


def test_a_cast_to_nobody_comes_back_whole(deployment: Any, make_peer: MakePeer) -> None:
    endpoints = deployment.endpoints(deployment.start())
    peer = make_peer("peer")
    peer.connect(*endpoints)
    cast = call(8, b"keep me", MessageType.CAST)
    peer.send(b"nobody", cast)
    assert peer.receive()[1].returned() == cast


def test_a_receiver_that_does_not_read_holds_up_nobody_else_and_loses_nothing_silently(
    deployment: Any, make_peer: MakePeer
) -> None:
    endpoints = deployment.endpoints(deployment.start())
    client, server, stuck = make_peer("client"), make_peer("server"), make_peer("stuck")
    for option in (zmq.RCVHWM, zmq.SNDHWM):
        client.dealer.set(option, 100_000)
        client.push.set(option, 100_000)
    stuck.dealer.set(zmq.RCVHWM, 1)
    stuck.dealer.set(zmq.RCVBUF, 4096)
    for peer in (client, server, stuck):
        peer.connect(*endpoints)
    count = 3000
    for number in range(count):
        client.send(stuck.name, call(number, bytes(20_000)))
    client.send(server.name, call(count, b"urgent"))
    assert server.receive()[1].body == b"urgent"

    refused: set[bytes] = set()
    accepted: set[bytes] = set()
    while len(refused) + len(accepted) < count:
        if client.dealer.poll(100):
            sender, nack = client.receive()
            assert b"/proxy/" in sender
            assert nack.type is MessageType.NACK
            assert nack.nack_code is NackCode.QUEUE_FULL
            refused.add(nack.id)
        else:
            while stuck.dealer.poll(100):
                accepted.add(stuck.receive()[1].id)
    assert refused
    assert len(accepted) >= 900  # about what the queue in the proxy holds
    assert not refused & accepted


def test_a_peer_that_returns_under_its_name_gets_what_is_sent_to_that_name(
    deployment: Any, make_peer: MakePeer
) -> None:
    endpoints = deployment.endpoints(deployment.start())
    client = make_peer("client")
    client.connect(*endpoints)
    for generation in range(20):
        server = make_peer("server")
        server.connect(*endpoints)
        client.send(server.name, call(generation, b"for you"))
        assert server.receive()[0] == client.name
        server.push.close()
        server.dealer.close()


def test_garbage_on_the_frontend_does_not_stop_the_proxy(
    deployment: Any, make_peer: MakePeer
) -> None:
    process = deployment.start()
    endpoints = deployment.endpoints(process)
    peer = make_peer("peer")
    peer.connect(*endpoints)
    dice = random.Random(24)
    for _ in range(5000):
        frames = [
            dice.randbytes(dice.choice((0, 1, 4, 28, 300))) for _ in range(dice.randint(1, 7))
        ]
        peer.push.send_multipart(frames)
    for frames in ([b""], [b"", b""], [b"nobody"], [b"nobody", b"", *encode(call(1, b""))]):
        peer.push.send_multipart(frames)
    with socket.create_connection(("127.0.0.1", int(endpoints[0].rpartition(":")[2]))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        peer.send(peer.name, call(2, b"still there?"))
        assert peer.receive()[1].body == b"still there?"
    assert process.output.count("dropped a message") < 10, "the log can be flooded"


def test_what_a_peer_sends_to_the_backend_is_thrown_away_and_costs_no_lasting_work(
    deployment: Any, make_peer: MakePeer, until: Callable[..., None]
) -> None:
    process = deployment.start()
    endpoints = deployment.endpoints(process)
    peer = make_peer("peer")
    peer.connect(*endpoints)
    for _ in range(100):
        peer.dealer.send(b"nothing is read here")
    until(lambda: "sent to the backend port" in process.output)

    def processor_time() -> int:
        with open(f"/proc/{process.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def at_rest() -> bool:
        before = processor_time()
        peer.dealer.poll(300)  # nothing comes: it only lets time pass
        return processor_time() - before < 10 * os.sysconf("SC_CLK_TCK") // 100

    until(at_rest, 20)
    peer.send(peer.name, call(3, b"forwarded"))
    assert peer.receive()[1].body == b"forwarded"


def test_an_idle_proxy_uses_no_processor_time_even_before_the_first_peer(
    deployment: Any, make_peer: MakePeer
) -> None:
    process = deployment.start()
    frontend, _ = deployment.endpoints(process)
    peer = make_peer("peer")
    peer.push.connect(frontend)
    peer.send(b"nobody", call(1, b"first"))

    def processor_time() -> int:
        with open(f"/proc/{process.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = processor_time()
    assert not peer.dealer.poll(1000)
    assert processor_time() - before < 0.3 * os.sysconf("SC_CLK_TCK")
    assert "refused a CALL" in process.output
