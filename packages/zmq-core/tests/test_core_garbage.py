# SPDX-License-Identifier: Apache-2.0
"""Strangers at the door: whatever they send, the node goes on for its peers."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from zmq_core import (
    Endpoint,
    Envelope,
    Flag,
    MessageType,
    NackCode,
    Node,
    RequestTimeout,
    TargetKey,
    decode,
    encode,
)

KEY = TargetKey("openstack", "echo")
CALL = Envelope(type=MessageType.CALL, id=bytes(range(16)), key=KEY.encoded, body=b"x")


@pytest.fixture
def server(make_node: Callable[..., Node]) -> Node:
    node = make_node(max_message_size=10_000, connect_timeout=0.5)
    node.serve(KEY, lambda incoming: incoming.reply(incoming.body))
    return node


@pytest.fixture
def answers(make_node: Callable[..., Node], server: Node) -> Callable[[], bool]:
    """Whether the server still answers a legitimate peer, over a connection that lives on."""
    client = make_node()
    endpoint = server.bind()
    assert client.request(endpoint, KEY, b"first", timeout=10).body == b"first"
    (link,) = client.links.values()

    def check() -> bool:
        reply = client.request(endpoint, KEY, b"still there?", timeout=10)
        return reply.body == b"still there?" and list(client.links.values()) == [link]

    return check


@pytest.fixture
def stranger(server: Node) -> Iterator[zmq.Socket[bytes]]:
    """A DEALER of somebody who knows ZMTP but not our protocol."""
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.set(zmq.LINGER, 0)
    dealer.connect(server.bind())
    yield dealer
    dealer.close()
    context.term()


def connect(endpoint: str) -> socket.socket:
    parsed = Endpoint.parse(endpoint)
    return socket.create_connection((parsed.host, parsed.port), timeout=10)


def answer(stranger: zmq.Socket[bytes], timeout: int = 10_000) -> Envelope | None:
    """The next answer within so many milliseconds; the node's signs of life are none."""
    while stranger.poll(timeout):
        envelope = decode(stranger.recv_multipart())
        if envelope.type is not MessageType.HEARTBEAT:
            return envelope
    return None


def ask(stranger: zmq.Socket[bytes], frames: list[bytes]) -> Envelope:
    stranger.send_multipart(frames)
    found = answer(stranger)
    assert found is not None, "no answer"
    return found


def test_f24_random_frames_are_counted_and_change_nothing(
    server: Node, answers: Callable[[], bool], stranger: zmq.Socket[bytes]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(3000):
        frames = [rng.randbytes(rng.choice((0, 1, 28, 300))) for _ in range(rng.randint(1, 6))]
        stranger.send_multipart(frames)
        while (found := answer(stranger, 0)) is not None:
            assert found.type is MessageType.NACK
        if number % 500 == 0:
            assert answers()
    assert answers()
    before = server.statistics.received
    assert ask(stranger, [b"last"]).type is MessageType.NACK
    assert before > 1000
    assert server.statistics.malformed > 1000


def test_an_empty_message_of_an_interrupted_sender_is_no_news(
    server: Node,
    answers: Callable[[], bool],
    stranger: zmq.Socket[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger.send(b"")
    assert ask(stranger, encode(CALL)).type is MessageType.REPLY  # and nothing before it
    assert server.statistics.malformed == 1
    assert caplog.records == []
    assert answers()


def test_f24_mutated_messages_are_answered_or_counted_and_change_nothing(
    server: Node, answers: Callable[[], bool], stranger: zmq.Socket[bytes]
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(3000):
        frames = encode(CALL)
        for _ in range(rng.randint(1, 3)):
            which = rng.randrange(2)
            frame = bytearray(frames[which])
            frame[rng.randrange(len(frame))] = rng.randrange(256)
            frames[which] = bytes(frame)
        stranger.send_multipart(frames)
        while stranger.poll(0):
            decode(stranger.recv_multipart())
        if number % 500 == 0:
            assert answers()
    assert answers()
    assert server.statistics.malformed > 500
    assert server.statistics.unknown_key > 100


def test_other_version_is_refused_by_name(stranger: zmq.Socket[bytes]) -> None:
    header, key, body = encode(CALL)
    newer = header[:2] + b"\x02" + header[3:]
    for frames in ([newer, key, body], [newer + b"more", key, body, b"another"]):
        nack = ask(stranger, frames)
        assert nack.type is MessageType.NACK
        assert nack.nack_code is NackCode.UNSUPPORTED_VERSION
        assert nack.id == CALL.id


@pytest.mark.parametrize(("offset", "value"), [(3, 0), (3, 10), (3, 255), (5, 3)])
def test_f24_unknown_type_or_serializer_is_refused_with_its_id(
    stranger: zmq.Socket[bytes], offset: int, value: int
) -> None:
    frames = encode(CALL)
    header = bytearray(frames[0])
    header[offset] = value
    nack = ask(stranger, [bytes(header), *frames[1:]])
    assert nack.nack_code is NackCode.MALFORMED
    assert nack.id == CALL.id


@pytest.mark.parametrize("flags", [Flag.ACK_WANTED, Flag.REPEATABLE, 0xFF])
def test_a_call_has_no_answer_but_its_reply_whatever_its_flags(
    stranger: zmq.Socket[bytes], flags: int
) -> None:
    call = Envelope(type=MessageType.CALL, id=bytes(range(16)), key=KEY.encoded, flags=flags)
    probe = Envelope(type=MessageType.PROBE, id=b"behind the call.")
    assert ask(stranger, encode(call)).type is MessageType.REPLY
    assert ask(stranger, encode(probe)).id == probe.id  # and nothing before it


def test_answers_sent_to_the_listening_side_are_dropped_and_counted(
    server: Node,
    answers: Callable[[], bool],
    stranger: zmq.Socket[bytes],
    until: Callable[..., None],
) -> None:
    for kind in (MessageType.REPLY, MessageType.ACK, MessageType.NACK, MessageType.HEARTBEAT):
        stranger.send_multipart(encode(Envelope(type=kind, id=bytes(16))))
    until(lambda: server.statistics.misdirected == 4)
    assert answers()


def test_garbage_among_others_messages_costs_none_of_them(
    make_node: Callable[..., Node], server: Node, stranger: zmq.Socket[bytes]
) -> None:
    client = make_node()
    client.request(server.bind(), KEY, b"", timeout=10)
    garbage = [encode(Envelope(type=MessageType.CALL, id=bytes(16)))[0], b"", b""]
    for number in range(300):
        stranger.send_multipart(garbage)
        stranger.send_multipart([b"", b""])
        body = b"%d" % number
        assert client.request(server.bind(), KEY, body, timeout=10).body == body


def test_f24_oversize_frame_ends_the_connection_of_its_sender_only(
    server: Node, answers: Callable[[], bool]
) -> None:
    context = zmq.Context()
    with context.socket(zmq.DEALER) as rude:
        rude.set(zmq.LINGER, 0)
        rude.set(zmq.RECONNECT_IVL, -1)
        monitor = rude.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        rude.connect(server.bind())
        rude.send_multipart([b"x" * 20_000])
        assert monitor.poll(10_000)
        rude.disable_monitor()
        monitor.close()
    context.term()
    assert answers()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\xff" + bytes(8) + b"\x7f\x03" + bytes(53),
        b"\xff" * 1000,
        b"\0" * 1000,
        b"\x01\x00" * 1000,
    ],
)
def test_speaker_of_another_protocol_is_hung_up_on(
    server: Node, answers: Callable[[], bool], until: Callable[..., None], said: bytes
) -> None:
    files = len(os.listdir("/proc/self/fd"))
    with connect(server.bind()) as web:
        web.sendall(said)
        assert answers()
        web.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while web.recv(4096):  # till the end of the connection
                continue
    until(lambda: len(os.listdir("/proc/self/fd")) <= files)
    assert answers()


def test_random_bytes_on_the_port_do_no_harm(
    server: Node, answers: Callable[[], bool], until: Callable[..., None]
) -> None:
    files = len(os.listdir("/proc/self/fd"))
    rng = random.Random(4711)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
    for number in range(200):
        with connect(server.bind()) as scanner:
            if number % 2:
                scanner.sendall(greeting)
            scanner.sendall(rng.randbytes(rng.randint(1, 400)))
    assert answers()
    until(lambda: len(os.listdir("/proc/self/fd")) <= files)


def test_two_hundred_connections_held_open_are_let_go_of(
    server: Node, answers: Callable[[], bool], until: Callable[..., None]
) -> None:
    files = len(os.listdir("/proc/self/fd"))
    held = [connect(server.bind()) for _ in range(200)]
    assert answers()
    # Half of the descriptors are ours; the server's go once the handshake's time is over.
    until(lambda: len(os.listdir("/proc/self/fd")) <= files + len(held))
    assert answers()
    for connection in held:
        connection.close()
    until(lambda: len(os.listdir("/proc/self/fd")) <= files)


def test_log_of_refusals_does_not_grow_with_the_strangers_imagination(
    server: Node, stranger: zmq.Socket[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.DEBUG):
        for number in range(1000):
            key = TargetKey("invented", f"topic-{number}").encoded
            call = Envelope(type=MessageType.CALL, id=bytes(16), key=key)
            assert ask(stranger, encode(call)).nack_code is NackCode.UNKNOWN_KEY
    assert server.statistics.unknown_key == 1000
    intervals = 1 + (time.monotonic() - began) // 10
    assert len(caplog.records) <= 110 * intervals


def test_replies_that_are_garbage_are_counted_and_the_timeout_holds(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    client = make_node()
    context = zmq.Context()
    with context.socket(zmq.ROUTER) as odd:
        port = odd.bind_to_random_port("tcp://127.0.0.1")
        endpoint = f"tcp://127.0.0.1:{port}"
        client.send(endpoint, KEY, b"", timeout=5)
        assert odd.poll(5000)
        peer = odd.recv_multipart()[0]
        header, *_ = encode(CALL)
        for frames in ([b""], [b"x"] * 6, [header], [header[:2] + b"\x05" + header[3:], b"", b""]):
            odd.send_multipart([peer, *frames])
        until(lambda: client.statistics.malformed == 4)
        odd.send_multipart([peer, *encode(Envelope(type=MessageType.ACK, id=bytes(16)))])
        until(lambda: client.statistics.late_replies == 1)
        client.close()
    context.term()


def test_a_request_that_comes_back_is_no_answer(make_node: Callable[..., Node]) -> None:
    client = make_node()
    context = zmq.Context()
    with context.socket(zmq.ROUTER) as mirror:
        mirror.set(zmq.LINGER, 0)
        port = mirror.bind_to_random_port("tcp://127.0.0.1")
        reflect = threading.Thread(target=lambda: mirror.send_multipart(mirror.recv_multipart()))
        reflect.start()
        with pytest.raises(RequestTimeout):
            client.request(f"tcp://127.0.0.1:{port}", KEY, b"x", timeout=1)
        reflect.join()
    context.term()
    assert client.statistics.misdirected == 1
