# SPDX-License-Identifier: Apache-2.0
"""The one place where the proxy's sockets are made, with the options that libzmq's defaults lack.

Two of them face the network.  Senders PUSH to the frontend; receivers connect a
DEALER, whose routing id is their name, to the backend, which only sends.
"""

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
from zmq_proxy._settings import Settings

__all__ = ["Socket", "Sockets"]

MINIMUM_LIBZMQ: Final = (4, 3, 3)
_MS: Final = 1000
_CONTROL_PATIENCE_MS: Final = 1000
# Receivers have nothing to say on the backend but the handshake.
_LONGEST_BACKEND_FRAME: Final = 4096
_BACKEND_RCVHWM: Final = 10

Socket = zmq.Socket[bytes]


class Sockets:
    """The bound sockets of one proxy and their context.

    Each socket may be used by one thread at a time; `control` is for the thread
    that steers, the others are for the one that forwards.

    :raises InvalidConfiguration: a port or address cannot be bound; names the option.
    """

    def __init__(self, settings: Settings) -> None:
        if zmq.zmq_version_info() < MINIMUM_LIBZMQ:
            raise ProxyError(
                f"libzmq {zmq.zmq_version()} is too old: install a pyzmq with libzmq "
                f"{'.'.join(map(str, MINIMUM_LIBZMQ))} or newer"
            )
        options = settings.sockets
        self.secret = uuid.uuid4().bytes + uuid.uuid4().bytes
        """The name of no peer: what goes there is for the forwarding thread itself."""
        self._context = zmq.Context(options.io_threads)
        try:
            self.frontend = self._listening(zmq.PULL, options)
            self.backend = self._router(options)
            frontend_port = _bind(
                self.frontend, settings.address, settings.frontend_port, "frontend_port", options
            )
            backend_port = _bind(
                self.backend, settings.address, settings.backend_port, "backend_port", options
            )
            self._companion = self._connect_companion()
            self.control = self._connect_control()
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.frontend_endpoint = str(Endpoint(settings.address.advertise, frontend_port))
        self.backend_endpoint = str(Endpoint(settings.address.advertise, backend_port))

    def _router(self, options: NodeOptions) -> Socket:
        """The backend: it refuses at once what it cannot route, and a peer that comes back
        under its name gets what is sent to that name."""
        socket = self._listening(zmq.ROUTER, options)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.ROUTER_HANDOVER, 1)
        socket.set(zmq.SNDTIMEO, 0)  # one receiver that does not read holds up nobody else
        socket.set(zmq.MAXMSGSIZE, _LONGEST_BACKEND_FRAME)
        socket.set(zmq.RCVHWM, _BACKEND_RCVHWM)
        return socket

    def _listening(self, kind: int, options: NodeOptions) -> Socket:
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
            zmq.HANDSHAKE_IVL: int(options.connect_timeout * _MS),
            zmq.IPV6: 1,
            zmq.TCP_KEEPALIVE: int(options.tcp_keepalive),
            zmq.TCP_KEEPALIVE_IDLE: math.ceil(silence) if idle == -1 else idle,
            zmq.TCP_KEEPALIVE_CNT: options.tcp_keepalive_count,
            zmq.TCP_KEEPALIVE_INTVL: (
                math.ceil(options.heartbeat_interval) if probes == -1 else probes
            ),
        }
        for option, value in settings.items():
            socket.set(option, value)
        return socket

    def _connect_companion(self) -> Socket:
        """A peer of the backend that gets nothing and is always there.

        A mandatory ROUTER counts as writable only while some peer is; without this
        one, messages would wait unread, not refused, until the first peer came, and
        `zmq_proxy` would spin meanwhile.
        """
        self.backend.bind("inproc://backend")
        companion = self._context.socket(zmq.DEALER)
        companion.set(zmq.LINGER, 0)
        companion.set(zmq.ROUTING_ID, uuid.uuid4().bytes)
        companion.connect("inproc://backend")
        return companion

    def _connect_control(self) -> Socket:
        self.frontend.bind("inproc://frontend")
        control = self._context.socket(zmq.PUSH)
        control.set(zmq.LINGER, 0)
        control.set(zmq.SNDTIMEO, _CONTROL_PATIENCE_MS)
        control.connect("inproc://frontend")
        return control

    def close_data(self, linger: float) -> None:
        """Close what the forwarding thread uses; `close` then waits at most `linger` seconds
        for what the backend has not sent yet."""
        self.frontend.close(0)
        self.backend.close(int(linger * _MS))
        self._companion.close(0)

    def close(self) -> None:
        """Close the rest and end the context."""
        self.control.close(0)
        self._context.term()


def _bind(socket: Socket, address: BindAddress, port: int, name: str, options: NodeOptions) -> int:
    """Bind to `port`, or to a free one of the range; returns the port that was bound."""
    if port:
        if not _try_bind(socket, address.endpoint(port), name):
            raise InvalidConfiguration(
                f"[{PROXY_GROUP}] {name}",
                f"the port {port} of {address.host!r} is in use; stop what holds it, choose "
                "another, or 0 for a random one",
            )
        return port
    size = options.max_port - options.min_port
    start = random.randrange(size)
    tried = min(size, options.bind_retries)
    for offset in range(tried):
        port = options.min_port + (start + offset) % size
        if _try_bind(socket, address.endpoint(port), name):
            return port
    raise InvalidConfiguration(
        f"[{GROUP}] rpc_zmq_min_port",
        f"ports range exceeded: {tried} of the {size} ports from {options.min_port} up to, not "
        f"including, rpc_zmq_max_port {options.max_port} were tried on {address.host!r} for the "
        f"{name} and all are in use; widen the range or name a {name}",
    )


def _try_bind(socket: Socket, endpoint: str, name: str) -> bool:
    """Bind; false if the port is in use."""
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise InvalidConfiguration(
            f"[{PROXY_GROUP}] host",
            f"cannot bind {endpoint} for the {name}: {error.strerror}; see also "
            f"[{GROUP}] rpc_zmq_bind_address",
        ) from error
    return True
