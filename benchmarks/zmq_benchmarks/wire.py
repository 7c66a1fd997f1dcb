# SPDX-License-Identifier: Apache-2.0
"""ZMTP over plain TCP sockets: peers so cheap that what they talk to is what is measured.

They greet as ZMTP 3.0 does, without encryption, and never send heartbeats.
"""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Sequence
from typing import Final

from zmq_benchmarks.errors import BenchmarkError

__all__ = ["allow_open_files", "connect", "encode_message", "subscribe"]

_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_MORE, _LONG, _COMMAND = 1, 2, 4
_SHORTEST_LONG: Final = 256
_TIMEOUT: Final = 30.0
"""Seconds in which the other side greets."""


def connect(endpoint: str, kind: str, identity: bytes = b"") -> socket.socket:
    """A blocking connection to `endpoint` (tcp://host:port), as a socket of `kind`."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    made = socket.create_connection((host, int(port)), _TIMEOUT)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.sendall(_GREETING)
    _read(made, len(_GREETING))
    ready = b"\x05READY" + _property(b"Socket-Type", kind.encode())
    if identity:
        ready += _property(b"Identity", identity)
    made.sendall(_frame(ready, _COMMAND))
    _, size = _read(made, 2)
    _read(made, size)
    made.settimeout(None)
    return made


def subscribe(connection: socket.socket, topic: bytes) -> None:
    """Have what begins with `topic` come in; nothing says when the other side knows."""
    connection.sendall(encode_message([b"\1" + topic]))


def encode_message(frames: Sequence[bytes]) -> bytes:
    """The octets of a message on the wire."""
    last = len(frames) - 1
    return b"".join(_frame(each, _MORE if at < last else 0) for at, each in enumerate(frames))


def allow_open_files(count: int) -> None:
    """Let this process, and those that it starts, have so many files open.

    :raises BenchmarkError: the system does not let it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise BenchmarkError(
            f"{count} open files are needed, and {hard} is the most that this process may allow "
            f"itself: raise the limit (ulimit -Hn {count}), or ask for fewer connections"
        )
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + struct.pack(">I", len(value)) + value


def _frame(content: bytes, flags: int) -> bytes:
    if len(content) < _SHORTEST_LONG:
        return bytes([flags, len(content)]) + content
    return bytes([flags | _LONG]) + struct.pack(">Q", len(content)) + content


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("the other side ended the connection while greeting")
        data += more
    return data
