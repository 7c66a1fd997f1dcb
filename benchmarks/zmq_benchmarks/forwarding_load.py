# SPDX-License-Identifier: Apache-2.0
"""Many senders, or many receivers, in one process: plain sockets, and messages made beforehand.

Started as `python -m zmq_benchmarks.forwarding_load CONFIG`.  Receivers count octets,
and grant a credit for each batch that has arrived, through a FIFO that senders read;
so no more than a window of messages is under way.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from zmq_benchmarks.protocol import Ready
from zmq_benchmarks.wire import connect, encode_message
from zmq_core import Envelope, MessageType, TargetKey, encode

__all__ = ["BATCH", "Count", "LoadConfig", "Received", "Send", "Sent", "main", "message"]

BATCH: Final = 50
"""Messages that are sent at once, and credits are granted for."""
_BODY: Final = bytes(400)
_KEY: Final = TargetKey("openstack", "benchmark", "server")
_SILENCE: Final = 1.0
"""Seconds without a credit after which what is under way counts as lost."""
_BUFFER: Final = 2**20


class LoadConfig(msgspec.Struct, frozen=True):
    """So many connections to `endpoint`, as sockets of `kind`."""

    sending: bool
    endpoint: str
    kind: str
    connections: int
    receivers: int
    """That messages are addressed to, in turn."""
    size: int
    """Octets of a message as a receiver gets it."""
    credits: str
    """The FIFO's path."""


class Send(msgspec.Struct, frozen=True, tag=True):
    """Send for so many seconds, or so many messages, whichever ends first."""

    seconds: float
    messages: int
    window: int
    """Messages that may be under way."""


class Count(msgspec.Struct, frozen=True, tag=True):
    """Say what has arrived; with `forget`, begin anew."""

    forget: bool = False


class Sent(msgspec.Struct, frozen=True):
    """How many messages were sent."""

    count: int


class Received(msgspec.Struct, frozen=True):
    """How many messages have arrived, and the seconds from the first to the last."""

    count: int
    seconds: float


def message(receiver: int) -> list[bytes]:
    """The frames of a message, as senders send it."""
    envelope = Envelope(type=MessageType.CAST, id=bytes(16), key=_KEY.encoded, body=_BODY, ttl=60)
    return [_name(receiver), b"host-2/2000/client", *encode(envelope)]


def _name(receiver: int) -> bytes:
    return b"host-1/%05d/server" % receiver


class _Senders:
    def __init__(self, config: LoadConfig, credit: int) -> None:
        self._credit = credit
        self._turn = 0
        self._batches = []
        for number in range(config.connections):
            receivers = [(number + each) % config.receivers for each in range(BATCH)]
            batch = b"".join(encode_message(message(each)) for each in receivers)
            self._batches.append((connect(config.endpoint, config.kind), batch))

    def send(self, command: Send) -> Sent:
        self._granted(0.0)  # for what was under way before
        clock, batches = time.monotonic, self._batches
        end, last = clock() + command.seconds, command.messages // BATCH
        allowed, sent = command.window // BATCH, 0
        while sent < last and clock() < end:
            if sent == allowed:
                granted = self._granted(_SILENCE)
                if not granted:
                    break
                allowed += granted
            self._turn = (self._turn + 1) % len(batches)
            connection, batch = batches[self._turn]
            connection.sendall(batch)
            sent += 1
        return Sent(sent * BATCH)

    def _granted(self, patience: float) -> int:
        """Batches that have arrived since this was asked last."""
        if not select.select([self._credit], [], [], patience)[0]:
            return 0
        return len(os.read(self._credit, _BUFFER))


class _Receivers:
    def __init__(self, config: LoadConfig, credit: int) -> None:
        self._credit = credit
        self._size = config.size
        self._octets = self._begin = 0
        self._first = self._last = 0.0
        self._connections: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        for number in range(config.connections):
            made = connect(config.endpoint, config.kind, _name(number))
            self._connections[made.fileno()] = made
            self._poll.register(made, select.EPOLLIN)
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        buffer = bytearray(_BUFFER)
        octets, granted, per_credit = 0, 0, self._size * BATCH
        read = {number: each.recv_into for number, each in self._connections.items()}
        while True:
            for number, _ in self._poll.poll():
                got = read[number](buffer)
                if not got:
                    self._poll.unregister(number)
                octets += got
            if octets == self._octets:
                continue
            self._last = time.monotonic()
            if self._octets == self._begin:
                self._first = self._last
            self._octets = octets
            if octets // per_credit > granted:
                os.write(self._credit, bytes(octets // per_credit - granted))
                granted = octets // per_credit

    def count(self, command: Count) -> Received:
        if command.forget:
            self._begin = self._octets
        octets = self._octets - self._begin
        return Received(octets // self._size, self._last - self._first if octets else 0.0)


def main(arguments: list[str]) -> None:
    """Obey until the standard input ends."""
    config = msgspec.json.decode(arguments[0], type=LoadConfig)
    # Both ways, so that neither side waits for the other to open it.
    credit = os.open(config.credits, os.O_RDWR)
    obey: Callable[[bytes], msgspec.Struct]
    if config.sending:
        senders, sends = _Senders(config, credit), msgspec.json.Decoder(Send)
        obey = lambda line: senders.send(sends.decode(line))  # noqa: E731
    else:
        receivers, counts = _Receivers(config, credit), msgspec.json.Decoder(Count)
        obey = lambda line: receivers.count(counts.decode(line))  # noqa: E731
    _say(Ready())
    for line in sys.stdin.buffer:
        _say(obey(line))
    os._exit(0)  # a thread may be reading


def _say(answer: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
