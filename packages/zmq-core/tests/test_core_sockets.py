# SPDX-License-Identifier: Apache-2.0
"""What the one factory of sockets sets, read back from libzmq."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, overload

import pytest
import zmq

from zmq_core import NodeOptions
from zmq_core._identity import default_identity
from zmq_core._sockets import Socket, SocketFactory, receive_whole, send_whole

OPTIONS = NodeOptions(
    linger=1.5,
    send_hwm=11,
    recv_hwm=12,
    max_message_size=12345,
    connect_timeout=2.5,
    heartbeat_interval=0.5,
    heartbeat_timeout=1.25,
    tcp_keepalive_idle=60,
    tcp_keepalive_count=5,
    tcp_keepalive_interval=7,
)


@pytest.fixture
def factory(nothing_is_left: None) -> Iterator[SocketFactory]:
    factory = SocketFactory(OPTIONS, b"host/1/role/ab")
    yield factory
    factory.close()


@pytest.fixture
def dealer(factory: SocketFactory) -> Iterator[Socket]:
    socket = factory.dealer()
    yield socket
    socket.close(0)


@pytest.fixture
def router(factory: SocketFactory) -> Iterator[Socket]:
    socket = factory.router()
    yield socket
    socket.close(0)


BOTH = {
    "ROUTING_ID": b"host/1/role/ab",
    "LINGER": 1500,
    "SNDHWM": 11,
    "RCVHWM": 12,
    "MAXMSGSIZE": 12345,
    "HANDSHAKE_IVL": 2500,
    "IPV6": 1,
    "TCP_KEEPALIVE": 1,
    "TCP_KEEPALIVE_IDLE": 60,
    "TCP_KEEPALIVE_CNT": 5,
    "TCP_KEEPALIVE_INTVL": 7,
}


@pytest.mark.parametrize("name", BOTH)
def test_option_is_set_on_both_kinds_of_socket(dealer: Socket, router: Socket, name: str) -> None:
    option = getattr(zmq, name)
    assert dealer.get(option) == router.get(option) == BOTH[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMMEDIATE", 0),
        ("CONNECT_TIMEOUT", 2500),
        ("HEARTBEAT_IVL", 500),
        ("HEARTBEAT_TIMEOUT", 1250),
        ("HEARTBEAT_TTL", 0),
        ("RECONNECT_IVL", -1),
    ],
)
def test_connecting_socket_is_lost_with_its_connection_and_does_not_reconnect(
    dealer: Socket, name: str, value: int
) -> None:
    assert dealer.get(getattr(zmq, name)) == value


@pytest.mark.parametrize(("name", "value"), [("HEARTBEAT_IVL", 0), ("TCP_MAXRT", 1750)])
def test_listening_socket_leaves_the_judgement_of_peers_to_tcp(
    router: Socket, name: str, value: int
) -> None:
    assert router.get(getattr(zmq, name)) == value


def test_listening_socket_derives_keepalive_from_the_heartbeat_unless_it_is_set() -> None:
    factory = SocketFactory(NodeOptions(heartbeat_interval=1.2, heartbeat_timeout=3), b"x")
    with factory.router() as router, factory.dealer() as dealer:
        assert router.get(zmq.TCP_KEEPALIVE_IDLE) == 5
        assert router.get(zmq.TCP_KEEPALIVE_INTVL) == 2
        assert dealer.get(zmq.TCP_KEEPALIVE_IDLE) == -1
    factory.close()


def test_listening_socket_refuses_to_drop_what_it_cannot_route(router: Socket) -> None:
    with pytest.raises(zmq.ZMQError, match=r"[Uu]nreachable|No route"):
        send_whole(router, [b"nobody", b"x"])


def test_f09_peer_that_comes_back_takes_its_routing_id_over(
    factory: SocketFactory, router: Socket
) -> None:
    port = router.bind_to_random_port("tcp://127.0.0.1")
    for body in (b"first", b"second"):
        dealer = factory.dealer()
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.poll(5000, zmq.POLLOUT)
        assert send_whole(dealer, [body])
        assert router.poll(5000)
        assert receive_whole(router) == [b"host/1/role/ab", body]
        assert send_whole(router, [b"host/1/role/ab", b"to " + body])
        assert dealer.poll(5000)
        assert receive_whole(dealer) == [b"to " + body]
        if body == b"first":
            old = dealer
        else:
            assert not old.poll(0)
            old.close(0)
            dealer.close(0)


@pytest.mark.parametrize("immediate", [True, False])
def test_immediate_is_for_sockets_that_only_send(nothing_is_left: None, immediate: bool) -> None:
    factory = SocketFactory(NodeOptions(immediate=immediate), b"x")
    with factory.push() as push, factory.inlet() as inlet, factory.subscriber() as subscriber:
        assert push.get(zmq.IMMEDIATE) == immediate
        assert inlet.get(zmq.IMMEDIATE) == subscriber.get(zmq.IMMEDIATE) == 0
    factory.close()


def test_routing_id_tells_host_process_and_role() -> None:
    host, pid, role, unique = default_identity("cinder-volume").split("/")
    assert (host, int(pid), role) == (os.uname().nodename, os.getpid(), "cinder-volume")
    assert len(unique) == 6
    assert default_identity("r") != default_identity("r")


class Interrupted(BaseException):
    """What a signal handler may raise anywhere."""


class Frames(Sequence[bytes]):
    """Frames of which the second is never reached."""

    def __len__(self) -> int:
        return 3

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._interrupted()

    def _interrupted(self) -> Iterator[bytes]:
        yield b"begun"
        raise Interrupted


def test_interruption_between_two_frames_leaves_later_messages_whole(
    dealer: Socket, router: Socket
) -> None:
    dealer.connect(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
    dealer.poll(5000, zmq.POLLOUT)
    with pytest.raises(Interrupted):
        send_whole(dealer, Frames())
    assert send_whole(dealer, [b"a", b"b"])
    assert router.poll(5000)
    assert receive_whole(router)[1:] == [b"begun", b""]
    assert router.poll(5000)
    assert receive_whole(router)[1:] == [b"a", b"b"]


def test_interruption_of_a_send_without_connection_is_still_the_interruption(
    dealer: Socket,
) -> None:
    class NotYet(Frames):
        def _interrupted(self) -> Iterator[bytes]:
            raise Interrupted

    with pytest.raises(Interrupted):
        send_whole(dealer, NotYet())


def test_full_or_missing_connection_takes_no_part_of_a_message(dealer: Socket) -> None:
    assert not send_whole(dealer, [b"a", b"b"])


def test_old_libzmq_is_refused_with_the_version_that_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 2, 5))
    with pytest.raises(Exception, match=r"4\.3\.3 or newer"):
        SocketFactory(OPTIONS, b"x")
