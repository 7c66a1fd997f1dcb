# SPDX-License-Identifier: Apache-2.0
"""Peers of a newer protocol version among those of this one: F25."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest
import zmq
from oslo_messaging import MessagingTimeout

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.traffic import client
from zmq_core import Envelope, MessageType, NackCode, Serializer, TargetKey, decode, encode
from zmq_matchmaker import Key, Record, Role
from zmq_oslo_driver.serialization import Request

KEY = Key(Role.LISTENER, "openstack", "work")
VERSION = 2
"""Where the version stands in a header."""


class NewerServer:
    """Speaks the next version, and if `older` this one, as docs/protocol.md asks of it."""

    def __init__(self, *, older: bool) -> None:
        self.refused = 0
        self._older = older
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, 0)
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self.record = Record(endpoint=f"tcp://127.0.0.1:{port}", node=f"newer {older}")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            if self._router.poll(50):
                peer, *frames = self._router.recv_multipart()
                self._router.send_multipart([peer, *encode(self._answer(decode(frames)))])

    def _answer(self, message: Envelope) -> Envelope:
        if self._older:
            body = Serializer.JSON, b'"newer"'
            return Envelope(type=MessageType.REPLY, id=message.id, serializer=body[0], body=body[1])
        self.refused += 1
        code = NackCode.UNSUPPORTED_VERSION
        return Envelope(type=MessageType.NACK, id=message.id, code=code)

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._context.destroy()


@pytest.fixture
def make_newer() -> Iterator[Callable[..., NewerServer]]:
    made: list[NewerServer] = []

    def make(*, older: bool) -> NewerServer:
        made.append(NewerServer(older=older))
        return made[-1]

    yield make
    for server in made:
        server.close()


def test_f25_while_servers_are_upgraded_first_each_client_is_served_by_one_that_speaks_with_it(
    cloud: Cloud, make_newer: Callable[..., NewerServer], caplog: pytest.LogCaptureFixture
) -> None:
    only_newer, both = make_newer(older=False), make_newer(older=True)
    old = cloud.service("old")
    transport = cloud.transport()
    directory = transport._driver._use().directory
    directory.announce([(KEY, only_newer.record)])
    caller = client(transport)
    answers = {caller.call({}, "whoami")[0] for _ in range(12)}
    assert answers == {"old"}
    assert only_newer.refused > 0
    directory.announce([(KEY, both.record)])
    wait_until(
        lambda: {str(caller.call({}, "whoami")) for _ in range(4)} >= {"newer"}, "it is used"
    )
    directory.withdraw([(KEY, both.record)])
    old.stop()
    with pytest.raises(MessagingTimeout, match=r"refused \(unsupported version\)"):
        caller.prepare(timeout=2).call({}, "whoami")
    with caplog.at_level(logging.WARNING):
        caller.cast({}, "note", text="lost")
        wait_until(lambda: "it is lost" in caplog.text, "a loss is said to be one")


def test_f25_a_client_that_is_upgraded_first_is_refused_by_name_and_goes_on_in_the_old_version(
    cloud: Cloud,
) -> None:
    cloud.service("old")
    transport = cloud.transport()
    caller = client(transport)
    assert caller.call({}, "noted") == []
    [record] = transport._driver._use().directory.lookup(KEY, 5)
    request = Request({}, {"method": "note", "args": {"text": "once"}})
    call = Envelope(
        type=MessageType.CALL,
        id=bytes(range(16)),
        key=TargetKey("openstack", "work").encoded,
        body=request.dump(Serializer.JSON),
        serializer=Serializer.JSON,
    )
    header, *rest = encode(call)
    newer = bytearray(header)
    newer[VERSION] += 1
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.LINGER, 0)
        dealer.connect(record.endpoint)
        for first, kind in (
            (bytes(newer) + b"longer", MessageType.NACK),
            (header, MessageType.REPLY),
        ):
            dealer.send_multipart([first, *rest])
            assert dealer.poll(10_000), "no answer"
            answer = decode(dealer.recv_multipart())
            assert (answer.type, answer.id) == (kind, call.id)
            if kind is MessageType.NACK:
                assert answer.nack_code is NackCode.UNSUPPORTED_VERSION
    context.term()
    assert caller.call({}, "noted") == ["once"]
