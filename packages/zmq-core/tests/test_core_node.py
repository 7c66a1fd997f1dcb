# SPDX-License-Identifier: Apache-2.0
"""Nodes over real sockets: each pattern does what it promises."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from zmq_core import (
    NOTIFICATIONS,
    ConfigurationError,
    Endpoint,
    Envelope,
    Incoming,
    MessageTooLarge,
    MessageType,
    NackCode,
    Node,
    Refused,
    RequestTimeout,
    Serializer,
    TargetKey,
)
from zmq_core._envelope import Flag

KEY = TargetKey("openstack", "topic", "server")
TOLERANCE = 0.4


def echo(incoming: Incoming) -> bool:
    return incoming.reply(incoming.body)


def test_request_brings_the_reply_with_its_serializer(make_node: Callable[..., Node]) -> None:
    server, client = make_node(), make_node()
    seen: list[Incoming] = []

    def handle(incoming: Incoming) -> None:
        seen.append(incoming)
        incoming.reply(b"out", serializer=Serializer.MSGPACK)

    server.serve(KEY, handle)
    reply = client.request(server.bind(), KEY, b"in", timeout=5, serializer=Serializer.JSON)
    assert reply.type is MessageType.REPLY
    assert (reply.body, reply.serializer) == (b"out", Serializer.MSGPACK)
    assert not reply.flags & Flag.FAILED
    (incoming,) = seen
    assert incoming.key == KEY
    assert incoming.peer == client.identity.encode()
    assert incoming.envelope.serializer is Serializer.JSON
    assert 4.5 < incoming.envelope.ttl <= 5


def test_failed_reply_is_marked(make_node: Callable[..., Node]) -> None:
    server = make_node()
    server.serve(KEY, lambda incoming: incoming.reply(b"why", failed=True))
    reply = server.request(server.bind(), KEY, b"", timeout=5)
    assert reply.flags & Flag.FAILED
    assert reply.body == b"why"


def test_node_may_call_itself_and_listen_on_many_keys(make_node: Callable[..., Node]) -> None:
    node = make_node()

    def handle(incoming: Incoming) -> None:
        incoming.release()
        echo(incoming)

    node.listen([TargetKey("e", "a"), TargetKey("e", "b")], handle)
    for topic in ("a", "b"):
        key = TargetKey("e", topic)
        assert node.request(node.bind(), key, topic.encode(), timeout=5).body == topic.encode()


def test_cast_arrives_in_the_order_of_sending(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(), make_node()
    got: list[bytes] = []
    server.serve(KEY, lambda incoming: got.append(incoming.body))
    sent = [b"%d" % number for number in range(500)]
    for body in sent:
        client.send(server.bind(), KEY, body, timeout=5)
    until(lambda: len(got) == 500)
    assert got == sent


def test_fanout_reaches_every_listener_of_the_topic_once(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(), make_node()
    got: Counter[int] = Counter()

    def listener(number: int) -> Callable[[Incoming], None]:
        return lambda incoming: got.update([number])

    for number in range(3):
        server.serve(KEY, listener(number))
    server.serve(TargetKey("openstack", "other"), listener(99))
    for _ in range(10):
        client.send(server.bind(), KEY, b"", timeout=5, kind=MessageType.FANOUT)
    until(lambda: got.total() == 30)
    client.send(server.bind(), KEY, b"", timeout=5, acknowledged=True)
    assert got[0] >= 10 <= got[1] <= 11
    assert got[99] == 0
    assert got.total() == 31


def test_listeners_of_one_key_take_turns(make_node: Callable[..., Node]) -> None:
    server = make_node()

    def listener(name: bytes) -> Callable[[Incoming], bool]:
        return lambda incoming: incoming.reply(name)

    for name in (b"a", b"b", b"c"):
        server.serve(KEY, listener(name))
    replies = Counter(server.request(server.bind(), KEY, b"", timeout=5).body for _ in range(30))
    assert replies == {b"a": 10, b"b": 10, b"c": 10}


def test_full_listener_passes_its_turn_to_one_with_room(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server = make_node()
    stuck: list[Incoming] = []
    free: list[bytes] = []
    server.listen(KEY, stuck.append, backlog=1)
    server.serve(KEY, lambda incoming: free.append(incoming.body))
    for _ in range(20):
        server.send(server.bind(), KEY, b"", timeout=5)
    until(lambda: len(stuck) + len(free) == 20)
    assert len(stuck) == 1


def test_request_for_a_key_that_nobody_listens_on_is_refused(
    make_node: Callable[..., Node],
) -> None:
    server, client = make_node(), make_node()
    with pytest.raises(Refused, match="unknown key") as caught:
        client.request(server.bind(), KEY, b"", timeout=5)
    assert caught.value.code is NackCode.UNKNOWN_KEY
    assert caught.value.endpoint == server.bind()
    assert server.statistics.unknown_key == 1
    assert client.statistics.nacks_received == 1


@pytest.mark.parametrize(
    ("listening", "asked"),
    [
        (("nova", "compute", ""), ("neutron", "compute", "")),
        (("nova", "compute-x", ""), ("nova", "compute", "")),
        (("nova", "compute", ""), ("nova", "compute", "h1")),
        (("o", "cinder-volume", "host@lvm"), ("o", "cinder-volume.host@lvm", "host")),
        (("o", "a/b", ""), ("o", "a", "b")),
        (("o", "tópico", "säule"), ("o", "topico", "saule")),
    ],
)
def test_message_for_one_key_never_reaches_the_listener_of_another(
    make_node: Callable[..., Node],
    listening: tuple[str, str, str],
    asked: tuple[str, str, str],
) -> None:
    node = make_node()
    node.serve(TargetKey(*listening), lambda incoming: incoming.reply(b"right"))
    assert node.request(node.bind(), TargetKey(*listening), b"", timeout=5).body == b"right"
    with pytest.raises(Refused):
        node.request(node.bind(), TargetKey(*asked), b"", timeout=5)


def test_call_is_refused_by_a_listener_of_notifications_only(
    make_node: Callable[..., Node],
) -> None:
    node = make_node()
    got: list[Incoming] = []
    node.listen(KEY, got.append, types=NOTIFICATIONS)
    with pytest.raises(Refused):
        node.request(node.bind(), KEY, b"", timeout=5)
    node.send(node.bind(), KEY, b"n", timeout=5, kind=MessageType.NOTIFY, acknowledged=True)
    assert [incoming.body for incoming in got] == [b"n"]


@pytest.mark.parametrize("kind", [MessageType.CAST, MessageType.NOTIFY])
def test_refused_message_comes_back_whole_to_its_sender(
    make_node: Callable[..., Node], until: Callable[..., None], kind: MessageType
) -> None:
    back: list[tuple[str, Envelope]] = []
    server = make_node()
    client = make_node(returned=lambda endpoint, envelope: back.append((endpoint, envelope)))
    client.send(server.bind(), KEY, b"body", timeout=5, kind=kind, serializer=Serializer.JSON)
    until(lambda: back)
    ((endpoint, envelope),) = back
    assert endpoint == server.bind()
    assert envelope.type is kind
    assert (envelope.key, envelope.body) == (KEY.encoded, b"body")
    assert envelope.serializer is Serializer.JSON


def test_returned_message_may_be_sent_on_from_where_it_is_told(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    got: list[bytes] = []

    def send_elsewhere(endpoint: str, envelope: Envelope) -> None:
        client.send(endpoint, other, envelope.body, timeout=0)

    server, client = make_node(), make_node(returned=send_elsewhere)
    other = TargetKey("openstack", "other")
    server.serve(other, lambda incoming: got.append(incoming.body))
    client.send(server.bind(), KEY, b"twice", timeout=5)
    until(lambda: got == [b"twice"])


def test_failing_taker_of_returned_messages_does_no_harm_to_requests(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    called = []

    def fail(endpoint: str, envelope: Envelope) -> None:
        called.append(endpoint)
        raise LookupError("a bug of the application")

    server, client = make_node(), make_node(returned=fail)
    server.serve(KEY, echo)
    for _ in range(20):
        client.send(server.bind(), TargetKey("openstack", "nobody"), b"", timeout=5)
        assert client.request(server.bind(), KEY, b"x", timeout=5).body == b"x"
    until(lambda: len(called) == 20)


def test_refused_message_that_nobody_takes_back_is_logged(
    make_node: Callable[..., Node], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    node.send(node.bind(), KEY, b"secret", timeout=5)
    until(lambda: "is dropped" in caplog.text)
    assert "topic 'topic'" in caplog.text
    assert "secret" not in caplog.text


def test_refused_acknowledged_send_is_an_error_of_the_send(make_node: Callable[..., Node]) -> None:
    node = make_node()
    with pytest.raises(Refused):
        node.send(node.bind(), KEY, b"", timeout=5, acknowledged=True)


def test_timeout_comes_when_it_is_due(make_node: Callable[..., Node]) -> None:
    server, client = make_node(), make_node()
    server.serve(KEY, lambda incoming: None)
    for timeout in (0.5, 1.0):
        started = time.monotonic()
        with pytest.raises(RequestTimeout, match="no reply") as caught:
            client.request(server.bind(), KEY, b"", timeout=timeout)
        waited = time.monotonic() - started
        assert timeout <= waited < timeout + TOLERANCE
        assert not caught.value.silent


def test_late_reply_is_dropped_and_counted(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(), make_node()
    asked: list[Incoming] = []
    server.serve(KEY, asked.append)
    with pytest.raises(RequestTimeout):
        client.request(server.bind(), KEY, b"", timeout=0.5)
    asked[0].reply(b"late")
    until(lambda: client.statistics.late_replies == 1)


def test_second_reply_to_one_request_is_dropped_and_counted(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    node = make_node()
    node.serve(KEY, lambda incoming: [echo(incoming), echo(incoming)])
    assert node.request(node.bind(), KEY, b"x", timeout=5).body == b"x"
    until(lambda: node.statistics.late_replies == 1)


def test_heartbeats_keep_a_monitored_request_alive(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(), make_node()
    asked: list[Incoming] = []
    server.serve(KEY, asked.append)

    def work() -> None:
        until(lambda: asked)
        end = time.monotonic() + 1.2
        stopped = threading.Event()
        while time.monotonic() < end:
            asked[0].heartbeat()
            stopped.wait(0.1)
        asked[0].reply(b"done")

    worker = threading.Thread(target=work)
    worker.start()
    reply = client.request(server.bind(), KEY, b"", timeout=20, monitor=0.5)
    worker.join()
    assert reply.body == b"done"


def test_silence_ends_a_monitored_request_at_the_right_time(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    server, client = make_node(), make_node()
    last_sign = 0.0

    def one_sign(incoming: Incoming) -> None:
        nonlocal last_sign
        last_sign = time.monotonic()
        incoming.heartbeat()

    server.serve(KEY, one_sign)
    with pytest.raises(RequestTimeout, match="no heartbeat") as caught:
        client.request(server.bind(), KEY, b"", timeout=20, monitor=0.5)
    assert caught.value.silent
    assert 0.5 <= time.monotonic() - last_sign < 0.5 + TOLERANCE


def test_a_monitored_request_needs_no_sign_of_life_before_it_is_sent(
    make_node: Callable[..., Node],
) -> None:
    server, client = make_node(), make_node()
    server.serve(KEY, echo)
    port = Endpoint.parse(server.bind()).port

    def connect_slowly() -> None:
        incoming, _ = door.accept()
        time.sleep(0.8)  # longer than the monitor's time: what is under test
        with incoming, socket.create_connection(("127.0.0.1", port)) as outgoing:
            back = threading.Thread(target=pass_on, args=(outgoing, incoming))
            back.start()
            pass_on(incoming, outgoing)
            back.join()

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=connect_slowly)
        thread.start()
        endpoint = f"tcp://127.0.0.1:{door.getsockname()[1]}"
        reply = client.request(endpoint, KEY, b"x", timeout=20, monitor=0.4)
        client.close()
        thread.join()
    assert reply.body == b"x"


def test_heartbeats_do_not_extend_the_deadline(make_node: Callable[..., Node]) -> None:
    server, client = make_node(), make_node()
    server.serve(KEY, lambda incoming: incoming.heartbeat())
    with pytest.raises(RequestTimeout) as caught:
        client.request(server.bind(), KEY, b"", timeout=0.6, monitor=10)
    assert not caught.value.silent


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e9, 3e6])
def test_longest_timeouts_work(make_node: Callable[..., Node], timeout: float | None) -> None:
    node = make_node()
    node.serve(KEY, lambda incoming: threading.Timer(0.05, echo, [incoming]).start())
    assert node.request(node.bind(), KEY, b"x", timeout=timeout).body == b"x"
    node.send(node.bind(), KEY, b"x", timeout=timeout, acknowledged=True)


def test_request_without_time_for_it_tells_the_receiver_so(make_node: Callable[..., Node]) -> None:
    node = make_node()
    seen: list[float] = []
    node.serve(KEY, lambda incoming: seen.append(incoming.envelope.ttl))
    node.send(node.bind(), KEY, b"", timeout=5, acknowledged=True)
    with pytest.raises(RequestTimeout):
        node.request(node.bind(), KEY, b"", timeout=0)
    node.send(node.bind(), KEY, b"", timeout=5, acknowledged=True)
    assert seen == [0.0, 0.001, 0.0]


def test_sixteen_threads_get_their_own_answers(make_node: Callable[..., Node]) -> None:
    server, client = make_node(), make_node()
    server.serve(KEY, echo)
    endpoint = server.bind()
    wrong: list[bytes] = []

    def ask(thread: int) -> None:
        for number in range(150):
            body = b"%d/%d" % (thread, number)
            if client.request(endpoint, KEY, body, timeout=30).body != body:
                wrong.append(body)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert server.statistics.received == 16 * 150
    assert client.statistics.late_replies == 0


def test_64_mebibytes_go_both_ways(make_node: Callable[..., Node]) -> None:
    server, client = make_node(), make_node()
    server.serve(KEY, echo)
    body = b"0123456789abcdef" * (4 * 2**20)
    assert client.request(server.bind(), KEY, body, timeout=60).body == body


def test_body_of_the_largest_size_passes_and_one_byte_more_is_refused_here(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(max_message_size=5000)
    node.serve(KEY, echo)
    assert len(node.request(node.bind(), KEY, b"x" * 5000, timeout=5).body) == 5000
    with pytest.raises(MessageTooLarge, match="5001 bytes exceeds max_message_size 5000"):
        node.request(node.bind(), KEY, b"x" * 5001, timeout=5)
    with pytest.raises(MessageTooLarge):
        node.send(node.bind(), KEY, b"x" * 5001, timeout=5)


def test_reply_that_is_too_large_is_an_error_of_the_replier_and_harms_nobody(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(max_message_size=5000)
    errors: list[MessageTooLarge] = []

    def handle(incoming: Incoming) -> None:
        try:
            incoming.reply(b"x" * 5001)
        except MessageTooLarge as error:
            errors.append(error)
            incoming.reply(b"too large", failed=True)

    node.serve(KEY, handle)
    assert node.request(node.bind(), KEY, b"", timeout=5).body == b"too large"
    assert len(errors) == 1


def test_exception_in_a_listener_is_logged_and_counted_and_costs_no_other_message(
    make_node: Callable[..., Node], until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    server, client = make_node(), make_node()
    got: list[bytes] = []

    def handle(incoming: Incoming) -> None:
        if incoming.body.endswith(b"7"):
            raise ZeroDivisionError("a bug of the application")
        got.append(incoming.body)
        incoming.release()

    listening = server.listen(KEY, handle, backlog=20)
    for number in range(300):
        client.send(server.bind(), KEY, b"%d" % number, timeout=5)
    until(lambda: len(got) == 270)
    until(lambda: listening.waiting == 0)
    assert server.statistics.handler_failures == 30
    assert "a bug of the application" in caplog.text
    assert caplog.text.count("a listener failed") < 30


def test_backlog_must_be_positive(make_node: Callable[..., Node]) -> None:
    with pytest.raises(ConfigurationError, match="backlog"):
        make_node().listen(KEY, lambda incoming: None, backlog=0)


def test_closed_listener_refuses_and_the_others_go_on(make_node: Callable[..., Node]) -> None:
    node = make_node()
    first = node.serve(KEY, echo)
    second = node.serve(TargetKey("openstack", "other"), echo)
    first.close()
    first.close()
    with pytest.raises(Refused):
        node.request(node.bind(), KEY, b"", timeout=5)
    assert node.request(node.bind(), TargetKey("openstack", "other"), b"x", timeout=5).body == b"x"
    second.close()


def test_messages_that_waited_for_room_are_refused_when_their_listener_closes(
    make_node: Callable[..., Node], until: Callable[..., None]
) -> None:
    back: list[bytes] = []
    server = make_node()
    client = make_node(returned=lambda _, envelope: back.append(envelope.body))
    got: list[Incoming] = []
    listening = server.listen(KEY, got.append, backlog=1)
    for body in (b"1", b"2", b"3"):
        client.send(server.bind(), KEY, body, timeout=5)
    until(lambda: server.statistics.received >= 2)
    listening.close()
    until(lambda: sorted(back) == [b"2", b"3"])
    assert [incoming.body for incoming in got] == [b"1"]


def test_connections_made_ahead_serve_later_requests(make_node: Callable[..., Node]) -> None:
    server, client = make_node(), make_node()
    server.serve(KEY, echo)
    client.connect([server.bind(), "tcp://no-such-host.invalid:1"])
    assert client.request(server.bind(), KEY, b"x", timeout=5).body == b"x"


def test_ids_never_repeat(make_node: Callable[..., Node]) -> None:
    one, other = make_node(), make_node()
    ids = {node.new_id() for node in (one, other) for _ in range(1000)}
    assert len(ids) == 2000
    assert {len(id_) for id_ in ids} == {16}
