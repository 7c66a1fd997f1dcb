# SPDX-License-Identifier: Apache-2.0
"""Peers of a proxy that keep to no rules, on the level of ZMTP and of TCP."""

from __future__ import annotations

import itertools
import select
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import zmq

from zmq_core import Envelope, MessageType, ProxyAddress, TargetKey, decode, encode

KEY: Final = TargetKey("openstack", "echo")
NOBODY: Final = b"nobody of that name"

_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
_MORE: Final = 0x01
_LONG: Final = 0x02
_COMMAND: Final = 0x04
_ids = itertools.count(1)


def message(kind: MessageType = MessageType.CALL, body: bytes = b"") -> Envelope:
    """A message with an id of its own."""
    return Envelope(type=kind, id=next(_ids).to_bytes(16, "big"), key=KEY.encoded, body=body)


class Stranger:
    """A PUSH to a proxy's frontend and a named DEALER to its backend, for any frames."""

    def __init__(self, proxy: ProxyAddress, name: bytes = b"a stranger") -> None:
        self.name = name
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.push = self._context.socket(zmq.PUSH)
        self.dealer = self._context.socket(zmq.DEALER)
        self.dealer.set(zmq.ROUTING_ID, name)
        for own in (self.push, self.dealer):
            own.set(zmq.LINGER, 0)
            own.set(zmq.SNDTIMEO, 20_000)
        self.push.connect(proxy.frontend)
        self.dealer.connect(proxy.backend)

    def send(self, to: bytes, frames: Sequence[bytes]) -> None:
        """Send `frames` to the peer named `to`."""
        self.push.send_multipart([to, self.name, *frames])

    def settle(self) -> None:
        """Return when the proxy has dealt with all that was pushed before."""
        last = message()
        while True:
            self.send(NOBODY, encode(last))  # refused; not told as long as we are not connected
            while self.dealer.poll(200):
                if self.receive().id == last.id:
                    return

    def receive(self) -> Envelope:
        """The next message that the proxy or somebody through it sends."""
        assert self.dealer.poll(10_000), "nothing came"
        return decode(self.dealer.recv_multipart()[1:])

    def close(self) -> None:
        """Let go of everything."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def frame(body: bytes, *, more: bool, claimed: int | None = None) -> bytes:
    """One ZMTP frame, or its beginning, if it claims to be longer than `body`."""
    length = len(body) if claimed is None else claimed
    return struct.pack(">BQ", _LONG | (_MORE if more else 0), length) + body


def dial(port: int, receive_buffer: int = 0) -> socket.socket:
    """A TCP connection on which nothing was said yet."""
    connection = socket.socket()
    connection.settimeout(10)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", port))
    return connection


def handshake(kind: bytes, name: bytes = b"") -> bytes:
    """What a socket of type `kind` says at first."""
    properties = b"".join(
        bytes([len(key)]) + key + struct.pack(">I", len(value)) + value
        for key, value in ((b"Socket-Type", kind), (b"Identity", name))
    )
    ready = b"\x05READY" + properties
    return _GREETING + bytes([_COMMAND, len(ready)]) + ready


def shake_hands(
    port: int, kind: bytes, name: bytes = b"", receive_buffer: int = 0
) -> socket.socket:
    """A TCP connection after the handshake."""
    connection = dial(port, receive_buffer)
    connection.sendall(handshake(kind, name))
    # Theirs, since whoever goes on before is cut off.
    _receive(connection, len(_GREETING))
    _, length = _receive(connection, 2)
    _receive(connection, length)
    return connection


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionResetError("cut off during the handshake")
        received += part
    return received


def was_cut_off(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection, whatever lies unread on it."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
