# SPDX-License-Identifier: Apache-2.0
"""Who reads a link: the caller when it is alone, the I/O thread when it is not, and the change."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from zmq_core import Incoming, Node, PeerLost, RequestTimeout, TargetKey, _link
from zmq_core._link import Link
from zmq_core._sockets import Socket, events_of

KEY = TargetKey("openstack", "topic")


@pytest.fixture
def asked() -> list[Incoming]:
    return []


@pytest.fixture
def endpoint(make_node: Callable[..., Node], asked: list[Incoming]) -> str:
    """A server that answers "now" at once and keeps all else in `asked`."""
    server = make_node()

    def handle(incoming: Incoming) -> None:
        if incoming.body == b"now":
            incoming.reply(b"now")
        else:
            asked.append(incoming)

    server.serve(KEY, handle)
    return server.bind()


@pytest.fixture
def client(make_node: Callable[..., Node], endpoint: str) -> Node:
    node = make_node()
    node.request(endpoint, KEY, b"now", timeout=10)
    return node


@pytest.fixture
def link(client: Node) -> Link:
    (link,) = client.links.values()
    return link


class Asking(threading.Thread):
    """A thread with one request out."""

    def __init__(self, client: Node, endpoint: str, body: bytes, timeout: float = 30) -> None:
        super().__init__()
        self._ask = (client, endpoint, body, timeout)
        self.answer: bytes | Exception | None = None
        self.start()

    def run(self) -> None:
        client, endpoint, body, timeout = self._ask
        try:
            self.answer = client.request(endpoint, KEY, body, timeout=timeout).body
        except (RequestTimeout, PeerLost) as error:
            self.answer = error


@pytest.fixture
def ask(client: Node, endpoint: str) -> Iterator[Callable[..., Asking]]:
    threads: list[Asking] = []

    def start(body: bytes, timeout: float = 30) -> Asking:
        thread = Asking(client, endpoint, body, timeout)
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.join()


def reply_to(asked: list[Incoming], body: bytes) -> None:
    (incoming,) = [incoming for incoming in asked if incoming.body == body]
    incoming.reply(body)


def test_lone_caller_reads_for_itself_and_leaves_the_reading_to_the_io_thread_after(
    link: Link, ask: Callable[..., Asking], asked: list[Incoming], until: Callable[..., None]
) -> None:
    def read_by_caller() -> bool:
        return link._read_by_caller

    assert not read_by_caller()
    lone = ask(b"a")
    until(lambda: asked and read_by_caller())  # it is noted a moment after the message has gone
    reply_to(asked, b"a")
    lone.join()
    assert lone.answer == b"a"
    assert not read_by_caller()


def test_second_caller_is_answered_by_the_first_ones_reading(
    link: Link, ask: Callable[..., Asking], asked: list[Incoming], until: Callable[..., None]
) -> None:
    first = ask(b"first")
    until(lambda: len(asked) == 1)
    second = ask(b"second")
    until(lambda: len(asked) == 2)
    reply_to(asked, b"second")
    second.join()
    assert second.answer == b"second"
    assert first.is_alive()
    assert link._read_by_caller
    reply_to(asked, b"first")
    first.join()
    assert first.answer == b"first"


def test_second_caller_is_answered_by_the_io_thread_once_the_first_has_left(
    link: Link, ask: Callable[..., Asking], asked: list[Incoming], until: Callable[..., None]
) -> None:
    first = ask(b"first")
    until(lambda: len(asked) == 1)
    second = ask(b"second")
    until(lambda: len(asked) == 2)
    reply_to(asked, b"first")
    first.join()
    assert not link._read_by_caller
    assert second.is_alive()
    reply_to(asked, b"second")
    second.join()
    assert second.answer == b"second"


def test_reader_that_times_out_hands_over_to_the_io_thread(
    link: Link, ask: Callable[..., Asking], asked: list[Incoming], until: Callable[..., None]
) -> None:
    first = ask(b"first", 0.3)
    until(lambda: len(asked) == 1)
    second = ask(b"second")
    until(lambda: len(asked) == 2)
    first.join()
    assert isinstance(first.answer, RequestTimeout)
    reply_to(asked, b"second")
    second.join()
    assert second.answer == b"second"


def test_follower_that_times_out_leaves_the_reader_alone(
    ask: Callable[..., Asking], asked: list[Incoming], until: Callable[..., None]
) -> None:
    first = ask(b"first")
    until(lambda: len(asked) == 1)
    second = ask(b"second", 0.2)
    second.join()
    assert isinstance(second.answer, RequestTimeout)
    reply_to(asked, b"first")
    first.join()
    assert first.answer == b"first"


def test_both_answers_in_one_batch_reach_both_callers(
    ask: Callable[..., Asking], asked: list[Incoming], until: Callable[..., None]
) -> None:
    for round_ in range(100):
        bodies = [b"%d/%d" % (round_, number) for number in range(3)]
        threads = [ask(body) for body in bodies]
        until(lambda expected=3 * (round_ + 1): len(asked) == expected)
        for body in bodies:
            reply_to(asked, body)
        for thread in threads:
            thread.join()
        assert [thread.answer for thread in threads] == bodies


def test_casts_of_other_threads_do_not_swallow_the_readers_wake_up(
    client: Node, endpoint: str, ask: Callable[..., Asking]
) -> None:
    turns = threading.Semaphore(0)

    def cast() -> None:
        for _ in range(300):
            turns.acquire()
            for _ in range(5):
                client.send(endpoint, KEY, b"now", timeout=10)

    caster = threading.Thread(target=cast)
    caster.start()
    for _ in range(300):
        turns.release()
        assert client.request(endpoint, KEY, b"now", timeout=10).body == b"now"
    caster.join()


def test_end_of_the_connection_wakes_reader_and_followers(
    link: Link, ask: Callable[..., Asking], asked: list[Incoming], until: Callable[..., None]
) -> None:
    threads = [ask(b"%d" % number) for number in range(4)]
    until(lambda: len(asked) == 4)
    link.close("ended by the test")
    for thread in threads:
        thread.join()
        assert isinstance(thread.answer, PeerLost)


class Interrupt(BaseException):
    """What a signal handler raises in the waiting thread, as Ctrl-C does."""


@pytest.mark.parametrize("others", [0, 1])
def test_interrupted_wait_leaves_the_link_usable(
    client: Node,
    endpoint: str,
    link: Link,
    ask: Callable[..., Asking],
    asked: list[Incoming],
    until: Callable[..., None],
    others: int,
) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise Interrupt

    def request_interrupted() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        client.request(endpoint, KEY, b"never", timeout=30)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for round_ in range(20):
            kept = [ask(b"kept %d %d" % (round_, number)) for number in range(others)]
            until(
                lambda count=others * (round_ + 1): (
                    sum(i.body[:4] == b"kept" for i in asked) == count
                )
            )
            with pytest.raises(Interrupt):
                request_interrupted()
            assert client.request(endpoint, KEY, b"now", timeout=10).body == b"now"
            for number, thread in enumerate(kept):
                reply_to(asked, b"kept %d %d" % (round_, number))
                thread.join()
                assert thread.answer == b"kept %d %d" % (round_, number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert client.links[endpoint] is link
    assert not link._read_by_caller
    abandoned = [incoming for incoming in asked if incoming.body == b"never"]
    for incoming in abandoned:
        incoming.reply(b"late")
    until(lambda: client.statistics.late_replies == len(abandoned))


def test_a_handler_that_raises_when_the_answer_has_come_leaves_the_link_usable(
    client: Node, endpoint: str, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = link._outstanding.forget

    def interrupted(message_id: bytes) -> None:
        monkeypatch.setattr(link._outstanding, "forget", forget)
        raise Interrupt

    for _ in range(3):
        monkeypatch.setattr(link._outstanding, "forget", interrupted)
        with pytest.raises(Interrupt):
            client.request(endpoint, KEY, b"now", timeout=10)
    assert not link._read_by_caller
    assert client.request(endpoint, KEY, b"now", timeout=10).body == b"now"


def test_a_handler_that_raises_where_the_answers_of_others_are_read_loses_none(
    client: Node,
    endpoint: str,
    link: Link,
    ask: Callable[..., Asking],
    asked: list[Incoming],
    until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    def interrupted(socket: Socket) -> int:
        nonlocal looks
        looks += 1
        if looks == 5:
            monkeypatch.undo()
            raise Interrupt
        return events_of(socket)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(client.request, endpoint, KEY, b"reader", timeout=30)
        until(lambda: link._read_by_caller)
        others = [ask(b"%d" % number) for number in range(10)]
        until(lambda: len(asked) == 1 + len(others))
        with link._lock:  # so that many are there when they are read
            monkeypatch.setattr(_link, "events_of", interrupted)
            for number in range(len(others)):
                reply_to(asked, b"%d" % number)
        with pytest.raises(Interrupt):
            reader.result()
        for number, thread in enumerate(others):
            thread.join()
            assert thread.answer == b"%d" % number
    assert not link._read_by_caller


def test_lone_caller_costs_no_descriptor_per_request(
    client: Node, endpoint: str, until: Callable[..., None]
) -> None:
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        client.request(endpoint, KEY, b"now", timeout=10)
    assert len(os.listdir("/proc/self/fd")) <= files + 1


def test_timeout_is_due_for_reader_and_follower_alike(
    ask: Callable[..., Asking], asked: list[Incoming], until: Callable[..., None]
) -> None:
    started = time.monotonic()
    threads = [ask(b"%d" % number, 0.4) for number in range(3)]
    for thread in threads:
        thread.join()
        assert isinstance(thread.answer, RequestTimeout)
    assert 0.4 <= time.monotonic() - started < 1
