# SPDX-License-Identifier: Apache-2.0
"""Many listeners in one process, which note what arrives.

Started as `python -m zmq_benchmarks.fanout_listeners CONFIG`.  With a publisher they
are plain sockets that subscribe at it, and are registered as services would be;
without one they are nodes.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from typing import Final

import msgspec

from zmq_benchmarks.fanout_protocol import Arrivals, ListenersConfig, Look, numbers_in
from zmq_benchmarks.protocol import Ready
from zmq_benchmarks.wire import connect, subscribe
from zmq_core import Incoming, Node, NodeOptions, TargetKey
from zmq_matchmaker import Directory, Entry, Key, MatchmakerURL, Record, Role, load

__all__ = ["main"]

_EXCHANGE: Final = "openstack"
_BUFFER: Final = 2**16


class _Notes:
    """What has arrived.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: dict[int, int] = {}
        self._last: dict[int, float] = {}

    def take(self, data: bytes) -> bytes:
        """Note what is in a piece of a stream; what goes before the next piece."""
        found, rest = numbers_in(data)
        now = time.monotonic()
        with self._lock:
            for number in found:
                self._copies[number] = self._copies.get(number, 0) + 1
                self._last[number] = now
        return rest

    def look(self, command: Look) -> Arrivals:
        numbers = range(command.first, command.first + command.count)
        with self._lock:
            copies = [self._copies.get(number, 0) for number in numbers]
            return Arrivals(copies, [self._last.get(number, 0.0) for number in numbers])


def _subscribers(config: ListenersConfig, notes: _Notes) -> list[Entry]:
    """Connect and read from now on; what to register."""
    connections: dict[int, socket.socket] = {}
    entries = []
    for topic, count in config.topics.items():
        for _ in range(count):
            made = connect(config.publisher, "SUB")
            subscribe(made, TargetKey(_EXCHANGE, topic).encoded)
            connections[made.fileno()] = made
            # Nobody connects to it: the publisher is there for subscribers.
            host, port = made.getsockname()
            record = Record(endpoint=f"tcp://{host}:{port}", node=f"{port}", subscriber=True)
            entries.append((Key(Role.LISTENER, _EXCHANGE, topic), record))
    threading.Thread(target=_read, args=(connections, notes), daemon=True).start()
    return entries


def _read(connections: dict[int, socket.socket], notes: _Notes) -> None:
    poll = select.epoll()
    rests = dict.fromkeys(connections, b"")
    for number in connections:
        poll.register(number, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            data = connections[number].recv(_BUFFER)
            if data:
                rests[number] = notes.take(rests[number] + data)
            else:
                poll.unregister(number)


def _nodes(config: ListenersConfig, notes: _Notes, stack: contextlib.ExitStack) -> list[Entry]:
    """Listen; what to register."""
    entries = []
    options = NodeOptions(bind_address="127.0.0.1")

    def note(incoming: Incoming) -> None:
        notes.take(incoming.body)

    for topic, count in config.topics.items():
        for _ in range(count):
            node = stack.enter_context(Node(options))
            endpoint = node.bind()
            node.serve(TargetKey(_EXCHANGE, topic), note)
            record = Record(endpoint=endpoint, node=node.identity)
            entries.append((Key(Role.LISTENER, _EXCHANGE, topic), record))
    return entries


def main(arguments: list[str]) -> None:
    """Listen, and tell what has arrived, until the standard input ends."""
    config = msgspec.json.decode(arguments[0], type=ListenersConfig)
    notes, looks = _Notes(), msgspec.json.Decoder(Look)
    with contextlib.ExitStack() as stack:
        directory = Directory(load(MatchmakerURL.parse(config.url)))
        stack.callback(directory.close)
        entries = _subscribers(config, notes) if config.publisher else _nodes(config, notes, stack)
        directory.announce(entries)
        _say(Ready())
        for line in sys.stdin.buffer:
            _say(notes.look(looks.decode(line)))
    os._exit(0)  # a thread may be reading


def _say(answer: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
