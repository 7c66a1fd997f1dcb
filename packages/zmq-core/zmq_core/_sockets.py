# SPDX-License-Identifier: Apache-2.0
"""The one factory of contexts and sockets, with the options that libzmq's defaults lack."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from zmq_core._errors import CoreError, SocketLimitReached
from zmq_core._options import NodeOptions
from zmq_core._waiting import native_select, run_blocking

__all__ = [
    "MINIMUM_LIBZMQ",
    "NOTHING",
    "POLLIN",
    "POLLOUT",
    "Socket",
    "SocketFactory",
    "events_of",
    "next_event",
    "receive_whole",
    "send_whole",
]

MINIMUM_LIBZMQ: Final = (4, 3, 3)
_MS: Final = 1000
_NO_RECONNECT: Final = -1
_BACKLOG: Final = 1024
"""Connections not yet accepted: all services of a cloud may come back at once."""
_MONITORED: Final = int(
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

# Plain integers: arithmetic with pyzmq's flag classes costs more than the calls themselves.
POLLIN: Final = int(zmq.POLLIN)
POLLOUT: Final = int(zmq.POLLOUT)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_NOBLOCK_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_RCVMORE: Final = int(zmq.RCVMORE)

NOTHING: Final = [b""]
"""What a peer gets when the sender was interrupted before the first frame; see `send_whole`."""

Socket = zmq.Socket[bytes]


# Descriptors that libzmq and the node's own thread need to start, and a connection to live.
_ROOM_TO_START: Final = 16
_ROOM_FOR_A_SOCKET: Final = 5


def _require_descriptors(number: int) -> None:
    """Raise SocketLimitReached unless that many descriptors can be opened.

    Asked before libzmq is, which ends the process when it finds none for the
    epoll sets of its threads, and says nothing when it finds none to connect with.
    """
    try:
        # Objects that close themselves: the handler of a signal may raise at any moment.
        [native_select().epoll() for _ in range(number)]
    except OSError as error:
        raise SocketLimitReached(
            "no descriptor left for a ZeroMQ socket: raise the limit of open files "
            "(ulimit -n, or LimitNOFILE= of the systemd unit)"
        ) from error


class SocketFactory:
    """Makes every socket of a node, all with finite queues, times and sizes.

    Thread-safe.  The sockets are not: each has a lock beside it that its user
    holds for every call, and is closed by the reactor's thread.

    :raises SocketLimitReached: too few descriptors are left; from every method, too.
    """

    def __init__(self, options: NodeOptions, identity: bytes) -> None:
        if zmq.zmq_version_info() < MINIMUM_LIBZMQ:
            raise CoreError(
                f"libzmq {zmq.zmq_version()} is too old: install a pyzmq with libzmq "
                f"{'.'.join(map(str, MINIMUM_LIBZMQ))} or newer"
            )
        _require_descriptors(_ROOM_TO_START)
        self._options = options
        self._identity = identity
        self._monitors = itertools.count()
        self._context = zmq.Context(options.io_threads)
        self._context.set(zmq.MAX_SOCKETS, self._context.get(zmq.SOCKET_LIMIT))
        self._context.socket(zmq.PAIR).close()  # libzmq starts its threads for the first socket

    def router(self) -> Socket:
        """A listening ROUTER: it refuses to drop what it cannot route, and lets a
        restarted peer take its routing id back.

        libzmq sends no heartbeats on it.  While a listener's queue is full nothing
        is read from the connections, so neither are the answers to heartbeats:
        judging a peer by them would cut those that wait for room and lose what
        they have sent; and when such a connection breaks, libzmq's next heartbeat
        on it ends the process (assertion `!_io_error`, 4.3.5).  `Frontend` gives
        signs of life instead, and TCP finds the peers that are gone.
        """
        socket = self._socket(zmq.ROUTER)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.ROUTER_HANDOVER, 1)
        # libzmq takes whatever does not begin with a ZMTP greeting, HTTP for one, for a peer of
        # ZMTP 1.0, and lets it stay; but only ZMTP 3 has what a domain needs. Nobody serves this
        # domain, so that peers of ZMTP 3 need no more than without.
        socket.set(zmq.ZAP_DOMAIN, b"ZMTP 3")
        socket.set(zmq.BACKLOG, _BACKLOG)
        self._leave_to_tcp(socket)
        return socket

    def _leave_to_tcp(self, socket: Socket) -> None:
        """Have TCP find the peers that are gone, instead of ZMTP's heartbeats."""
        socket.set(zmq.HEARTBEAT_IVL, 0)
        socket.set(zmq.TCP_MAXRT, int(self._silence() * _MS))
        if self._options.tcp_keepalive_idle == -1:
            socket.set(zmq.TCP_KEEPALIVE_IDLE, math.ceil(self._silence()))
        if self._options.tcp_keepalive_interval == -1:
            socket.set(zmq.TCP_KEEPALIVE_INTVL, math.ceil(self._options.heartbeat_interval))

    def dealer(self) -> Socket:
        """A DEALER for one connection to one peer; a lost one is replaced, not reconnected."""
        return self._connecting(zmq.DEALER)

    def push(self) -> Socket:
        """A PUSH for one connection to a proxy's frontend."""
        socket = self._connecting(zmq.PUSH)
        socket.set(zmq.IMMEDIATE, int(self._options.immediate))
        return socket

    def inlet(self) -> Socket:
        """A DEALER for one connection to a proxy's backend, from which messages come.

        Without heartbeats, as `router`: one whose messages this process reads too
        slowly would be taken for dead, and they would be lost.
        """
        socket = self._connecting(zmq.DEALER)
        self._leave_to_tcp(socket)
        return socket

    def subscriber(self) -> Socket:
        """A SUB for one connection to a publisher's backend, without heartbeats as `inlet`."""
        socket = self._connecting(zmq.SUB)
        self._leave_to_tcp(socket)
        return socket

    def _connecting(self, kind: int) -> Socket:
        """A socket for one connection.

        Without ZMQ_IMMEDIATE where anything comes in: libzmq 4.3.5 would throw away what was
        not read when the connection ends, and end the process if that happens between two
        frames (assertion `!_more`).  Who sends looks at the connection's state instead.
        """
        socket = self._socket(kind)
        socket.set(zmq.CONNECT_TIMEOUT, int(self._options.connect_timeout * _MS))
        socket.set(zmq.RECONNECT_IVL, _NO_RECONNECT)
        return socket

    def _silence(self) -> float:
        """Seconds after which a silent peer is lost."""
        return self._options.heartbeat_interval + self._options.heartbeat_timeout

    def monitor(self, socket: Socket, events: int = _MONITORED) -> Socket:
        """A PAIR socket from which the connection events of `socket` are read."""
        address = f"inproc://monitor-{next(self._monitors)}"
        socket.monitor(address, events)
        pair = self._context.socket(zmq.PAIR)
        pair.set(zmq.LINGER, 0)
        pair.connect(address)
        return pair

    def close(self) -> None:
        """End the context, after at most `linger` seconds, when nobody uses a socket any more.

        Closes what a signal handler that raises has left half made; ending the context
        would wait for it for ever.
        """
        run_blocking(self._context.destroy)

    def _socket(self, kind: int) -> Socket:
        _require_descriptors(_ROOM_FOR_A_SOCKET)
        options = self._options
        socket = self._context.socket(kind)
        settings: dict[int, int | bytes] = {
            zmq.ROUTING_ID: self._identity,
            zmq.LINGER: int(options.linger * _MS),
            zmq.SNDHWM: options.send_hwm,
            zmq.RCVHWM: options.recv_hwm,
            zmq.MAXMSGSIZE: options.max_message_size,
            zmq.HEARTBEAT_IVL: int(options.heartbeat_interval * _MS),
            zmq.HEARTBEAT_TIMEOUT: int(options.heartbeat_timeout * _MS),
            zmq.HANDSHAKE_IVL: int(options.connect_timeout * _MS),
            zmq.IPV6: 1,
            zmq.TCP_KEEPALIVE: options.tcp_keepalive,
            zmq.TCP_KEEPALIVE_IDLE: options.tcp_keepalive_idle,
            zmq.TCP_KEEPALIVE_CNT: options.tcp_keepalive_count,
            zmq.TCP_KEEPALIVE_INTVL: options.tcp_keepalive_interval,
        }
        for option, value in settings.items():
            socket.set(option, value)
        return socket


def send_whole(socket: Socket, frames: Sequence[bytes]) -> bool:
    """Send a message without blocking; false if the queue is full.

    An asynchronous exception (a signal handler that raises) between two frames
    would make the next message a continuation of this one, so the message is
    then ended by an empty frame: the peer refuses the fragment, and later
    messages are whole.

    :raises zmq.ZMQError: what libzmq refuses, such as an unknown peer on a ROUTER.
    """
    send = socket.send
    try:
        for frame in frames[:-1]:
            send(frame, _NOBLOCK_MORE)
        send(frames[-1], _NOBLOCK)
    except zmq.Again:
        return False
    except zmq.ZMQError:
        raise
    except BaseException:
        with contextlib.suppress(zmq.ZMQError):  # the connection went
            send(b"", _NOBLOCK)
        raise
    return True


def events_of(socket: Socket) -> int:
    """ZMQ_EVENTS: what can be done now.

    Asking also takes in what libzmq's I/O threads have reported, and so rearms the
    edge-triggered ZMQ_FD: nothing that came meanwhile is overlooked.
    """
    return int(socket.get(_EVENTS))


def receive_whole(socket: Socket) -> list[bytes]:
    """One message that is known to be there, as all its frames."""
    receive, get = socket.recv, socket.get
    frames = [receive(_NOBLOCK)]
    while get(_RCVMORE):
        frames.append(receive(_NOBLOCK))
    return frames


def next_event(monitor: Socket) -> tuple[int, int] | None:
    """The next connection event that a monitor has to tell, with its value."""
    if not events_of(monitor) & POLLIN:
        return None
    message = parse_monitor_message(receive_whole(monitor))
    return int(message["event"]), int(message["value"])
