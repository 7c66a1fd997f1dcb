# SPDX-License-Identifier: Apache-2.0
"""The one place where sockets are made, with the options that libzmq's defaults lack."""

from __future__ import annotations

import errno
import math
import random
import uuid
from typing import Final

import zmq

from zmq_core import BindAddress, Endpoint, NodeOptions
from zmq_proxy._errors import InvalidConfiguration, ProxyError
from zmq_proxy._options import GROUP, PROXY_GROUP

__all__ = ["Socket", "SocketFactory"]

MINIMUM_LIBZMQ: Final = (4, 3, 3)
_MS: Final = 1000
_CONTROL_PATIENCE_MS: Final = 1000
# Receivers have nothing to say on a backend but the handshake and what they subscribe to.
_LONGEST_BACKEND_FRAME: Final = 4096
_BACKEND_RCVHWM: Final = 10
_BACKLOG: Final = 1024
"""Connections not yet accepted: all services of a cloud may come back at once."""
_RECONNECT_MS: Final = 100
_RECONNECT_MOST_MS: Final = 5000

Socket = zmq.Socket[bytes]


class SocketFactory:
    """Makes the sockets of one proxy, in a context of its own.

    Thread-safe; each socket may be used by one thread at a time.
    """

    def __init__(self, options: NodeOptions, address: BindAddress) -> None:
        if zmq.zmq_version_info() < MINIMUM_LIBZMQ:
            raise ProxyError(
                f"libzmq {zmq.zmq_version()} is too old: install a pyzmq with libzmq "
                f"{'.'.join(map(str, MINIMUM_LIBZMQ))} or newer"
            )
        self._options = options
        self._address = address
        self._context = zmq.Context(options.io_threads)
        self.listening: dict[str, tuple[str, int]] = {}
        """Address and port that each is bound to, by the name of the option without `_port`."""

    def pull(self) -> Socket:
        """A frontend: senders PUSH to it."""
        return self._socket(zmq.PULL)

    def router(self) -> Socket:
        """The backend of a router: it refuses at once what it cannot route, and a peer that
        comes back under its name gets what is sent to that name."""
        socket = self._backend(zmq.ROUTER)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.ROUTER_HANDOVER, 1)
        socket.set(zmq.RCVHWM, _BACKEND_RCVHWM)
        return socket

    def publisher(self, kind: int = zmq.PUB) -> Socket:
        """The backend of a publisher.  It refuses a message as a whole, at once, if one of its
        subscribers does not read, so that this can be counted."""
        socket = self._backend(kind)
        socket.set(zmq.XPUB_NODROP, 1)
        return socket

    def subscriber(self) -> Socket:
        """An XSUB that connects to publishers, again and again.

        It is always read, so that heartbeats tell whether a publisher lives.
        """
        socket = self._socket(zmq.XSUB)
        options = self._options
        socket.set(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.set(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
        socket.set(zmq.CONNECT_TIMEOUT, int(options.connect_timeout * _MS))
        socket.set(zmq.HEARTBEAT_IVL, int(options.heartbeat_interval * _MS))
        socket.set(zmq.HEARTBEAT_TIMEOUT, int(options.heartbeat_timeout * _MS))
        return socket

    def _backend(self, kind: int) -> Socket:
        socket = self._socket(kind)
        socket.set(zmq.SNDTIMEO, 0)  # one receiver that does not read holds up nobody else
        socket.set(zmq.MAXMSGSIZE, _LONGEST_BACKEND_FRAME)
        return socket

    def _socket(self, kind: int) -> Socket:
        options = self._options
        socket = self._context.socket(kind)
        silence = options.heartbeat_interval + options.heartbeat_timeout
        idle, probes = options.tcp_keepalive_idle, options.tcp_keepalive_interval
        settings: dict[int, int] = {
            zmq.LINGER: int(options.linger * _MS),
            zmq.SNDHWM: options.send_hwm,
            zmq.RCVHWM: options.recv_hwm,
            zmq.MAXMSGSIZE: options.max_message_size,
            # As with zmq_core's ROUTER: libzmq 4.3.5 aborts when its heartbeat timer meets a
            # connection that broke while back-pressure had stopped its input.  The peers'
            # heartbeats are answered all the same, and TCP finds the peers that are gone.
            zmq.HEARTBEAT_IVL: 0,
            zmq.TCP_MAXRT: int(silence * _MS),
            zmq.BACKLOG: _BACKLOG,
            zmq.HANDSHAKE_IVL: int(options.connect_timeout * _MS),
            zmq.IPV6: 1,
            zmq.TCP_KEEPALIVE: options.tcp_keepalive,
            zmq.TCP_KEEPALIVE_IDLE: math.ceil(silence) if idle == -1 else idle,
            zmq.TCP_KEEPALIVE_CNT: options.tcp_keepalive_count,
            zmq.TCP_KEEPALIVE_INTVL: (
                math.ceil(options.heartbeat_interval) if probes == -1 else probes
            ),
        }
        for option, value in settings.items():
            socket.set(option, value)
        # libzmq takes whatever does not begin with a ZMTP greeting, HTTP for one, for a peer of
        # ZMTP 1.0, and lets it stay; but only ZMTP 3 has what a domain needs. Nobody serves this
        # domain, so that peers of ZMTP 3 need no more than without.
        socket.set(zmq.ZAP_DOMAIN, b"ZMTP 3")
        return socket

    # -- connections within the process ----------------------------------------------

    def silent_peer(self, backend: Socket) -> Socket:
        """A peer of the ROUTER `backend` that gets nothing and is always there.

        A mandatory ROUTER counts as writable only while some peer is; without this
        one, messages would wait unread, not refused, until the first peer came, and
        `zmq_proxy` would spin meanwhile.
        """
        endpoint = f"inproc://{uuid.uuid4()}"
        backend.bind(endpoint)
        peer = self._context.socket(zmq.DEALER)
        peer.set(zmq.LINGER, 0)
        peer.set(zmq.ROUTING_ID, uuid.uuid4().bytes)
        peer.connect(endpoint)
        return peer

    def stuffed_peer(self, backend: Socket, topic: bytes) -> Socket:
        """A subscriber to `topic` at `backend` that never reads and has no room for more.

        So a message on that topic is one that cannot be passed on.  To be made before
        `backend` is bound to anything else.
        """
        endpoint = f"inproc://{uuid.uuid4()}"
        backend.set(zmq.SNDHWM, 1)  # which counts for what is bound after it
        backend.bind(endpoint)
        backend.set(zmq.SNDHWM, self._options.send_hwm)
        peer = self._context.socket(zmq.SUB)
        peer.set(zmq.LINGER, 0)
        peer.set(zmq.RCVHWM, 1)
        peer.subscribe(topic)
        peer.connect(endpoint)
        for _ in range(self._options.send_hwm):
            try:
                backend.send(topic)
            except zmq.Again:
                break
        return peer

    def control(self, frontend: Socket) -> Socket:
        """A PUSH to `frontend`, for commands."""
        endpoint = f"inproc://{uuid.uuid4()}"
        frontend.bind(endpoint)
        control = self._context.socket(zmq.PUSH)
        control.set(zmq.LINGER, 0)
        control.set(zmq.SNDTIMEO, _CONTROL_PATIENCE_MS)
        control.connect(endpoint)
        return control

    def capture(self) -> tuple[Socket, Socket]:
        """A PUSH, for the copies that `zmq_proxy` makes, and the PULL in which they arrive."""
        endpoint = f"inproc://{uuid.uuid4()}"
        source = self._context.socket(zmq.PULL)
        source.bind(endpoint)
        tap = self._context.socket(zmq.PUSH)
        tap.set(zmq.LINGER, 0)
        tap.connect(endpoint)
        return tap, source

    # -- addresses -------------------------------------------------------------------

    def bind(self, socket: Socket, port: int, name: str) -> str:
        """Bind to `port`, or to a free one of the range; the endpoint to tell others.

        :raises InvalidConfiguration: it cannot be bound; names the option, which is `name`.
        """
        if not port:
            port = self._bind_in_range(socket, name)
        elif not self._try_bind(socket, port, name):
            raise InvalidConfiguration(
                f"[{PROXY_GROUP}] {name}",
                f"the port {port} of {self._address.host!r} is in use; stop what holds it, choose "
                "another, or 0 for a random one",
            )
        return str(Endpoint(self._address.advertise, port))

    def _bind_in_range(self, socket: Socket, name: str) -> int:
        options = self._options
        size = options.max_port - options.min_port
        start = random.randrange(size)
        tried = min(size, options.bind_retries)
        for offset in range(tried):
            port = options.min_port + (start + offset) % size
            if self._try_bind(socket, port, name):
                return port
        raise InvalidConfiguration(
            f"[{GROUP}] rpc_zmq_min_port",
            f"ports range exceeded: {tried} of the {size} ports from {options.min_port} up to, not "
            f"including, rpc_zmq_max_port {options.max_port} were tried on "
            f"{self._address.host!r} for the {name} and all are in use; widen the range or name a "
            f"{name}",
        )

    def _try_bind(self, socket: Socket, port: int, name: str) -> bool:
        """Bind; false if the port is in use."""
        endpoint = self._address.endpoint(port)
        try:
            socket.bind(endpoint)
            self.listening[name.removesuffix("_port")] = self._address.host, port
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise InvalidConfiguration(
                f"[{PROXY_GROUP}] host",
                f"cannot bind {endpoint} for the {name}: {error.strerror}; see also "
                f"[{GROUP}] rpc_zmq_bind_address",
            ) from error
        return True

    def close(self) -> None:
        """End the context, and with it what is left of the sockets.

        Waits for what closed sockets have still to send, as long as they were told to.
        """
        self._context.destroy()
