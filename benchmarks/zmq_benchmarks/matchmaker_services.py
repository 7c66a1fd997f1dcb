# SPDX-License-Identifier: Apache-2.0
"""Many service processes, each with one directory: forked by a process that does what it is told.

Started as `python -m zmq_benchmarks.matchmaker_services CONFIG`.  What it reads
from its standard input it tells all of its children, and answers when all have.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Final, NoReturn

import msgspec

from zmq_benchmarks.protocol import Ready
from zmq_matchmaker import Directory, Entry, Key, Matchmaker, MatchmakerURL, Record, Role, load

__all__ = ["Add", "Announce", "Keep", "Refresh", "Report", "ServicesConfig", "key_of", "main"]

_EXPIRE: Final = 120.0
"""The directory's default: its lease is found by it."""


class ServicesConfig(msgspec.Struct, frozen=True):
    """So many processes that have so many listeners each."""

    url: str
    processes: int
    listeners: int


class Announce(msgspec.Struct, frozen=True, tag=True):
    """Announce all listeners, in one call."""


class Add(msgspec.Struct, frozen=True, tag=True):
    """Announce one more listener on a key."""

    topic: int
    process: int


class Keep(msgspec.Struct, frozen=True, tag=True):
    """Withdraw all listeners but so many."""

    listeners: int


class Refresh(msgspec.Struct, frozen=True, tag=True):
    """Refresh every `interval` seconds, beside what the directory does by itself."""

    seconds: float
    interval: float


Command = Announce | Add | Keep | Refresh


class Report(msgspec.Struct, frozen=True):
    """When the first began and the last ended (`time.monotonic`), and how much all did."""

    began: float
    ended: float
    count: int

    @classmethod
    def of(cls, reports: Iterable[Report]) -> Report:
        """All of them as one."""
        every = list(reports)
        began = min(each.began for each in every)
        return cls(began, max(each.ended for each in every), sum(each.count for each in every))


def key_of(topic: int, process: int) -> Key:
    """What one listener of a process is found by."""
    return Key(Role.LISTENER, "openstack", f"topic-{topic}", f"host-{process}")


def _entry(topic: int, process: int, number: int = 0) -> Entry:
    high, low = divmod(process, 250)
    endpoint = f"tcp://10.{number % 250}.{high}.{low + 1}:49153"
    return key_of(topic, process), Record(endpoint=endpoint, node=f"service-{process}")


class _Service:
    """One process: its directory, and what it announced."""

    def __init__(self, config: ServicesConfig, number: int) -> None:
        self._entries = [_entry(topic, number) for topic in range(config.listeners)]
        self._backend: Matchmaker = load(MatchmakerURL.parse(config.url))
        self._directory = Directory(self._backend)
        self._added = 0

    def obey(self, command: Command) -> Report:
        began = time.monotonic()
        match command:
            case Announce():
                count = self._announce(self._entries)
            case Add():
                self._added += 1
                count = self._announce([_entry(command.topic, command.process, self._added)])
            case Keep():
                leaving = self._entries[command.listeners :]
                self._directory.withdraw(leaving)
                count = len(leaving)
            case Refresh():
                count = self._refresh(command)
        return Report(began, time.monotonic(), count)

    def _announce(self, entries: list[Entry]) -> int:
        self._directory.announce(entries)
        while self._directory.statistics.unwritten:
            time.sleep(0.01)  # the first try failed; the time that this takes is measured
        return len(entries)

    def _refresh(self, command: Refresh) -> int:
        end = time.monotonic() + command.seconds
        time.sleep(random.uniform(0.0, command.interval))
        count = 0
        while time.monotonic() < end:
            if not self._backend.refresh(self._entries, _EXPIRE):
                raise RuntimeError("the lease has ended")
            count += 1
            time.sleep(command.interval)
        return count

    def close(self) -> None:
        self._directory.close()


def _serve(connection: socket.socket, config: ServicesConfig, number: int) -> NoReturn:
    """The life of a child."""
    status = 1
    try:
        service = _Service(config, number)
        try:
            decoder = msgspec.json.Decoder(Command)
            with connection.makefile("rb") as lines:
                for line in lines:
                    report = service.obey(decoder.decode(line))
                    connection.sendall(msgspec.json.encode(report) + b"\n")
        finally:
            service.close()
        status = 0
    except BaseException:  # noqa: BLE001 - a forked child must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(arguments: list[str]) -> int:
    """Fork the processes, obey, and end with the standard input; the number that failed."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    config = msgspec.json.decode(arguments[0], type=ServicesConfig)
    load(MatchmakerURL.parse(config.url))  # so that not every child imports it
    connections: list[socket.socket] = []
    pids: list[int] = []
    for number in range(config.processes):
        mine, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            for other in (*connections, mine):
                other.close()  # else it would keep its siblings' open after the parent's end
            _serve(theirs, config, number)
        theirs.close()
        connections.append(mine)
        pids.append(pid)
    sources = [connection.makefile("rb") for connection in connections]
    _say(Ready())
    for command in sys.stdin.buffer:
        for connection in connections:
            connection.sendall(command)
        _say(Report.of(msgspec.json.decode(source.readline(), type=Report) for source in sources))
    for connection, source in zip(connections, sources, strict=True):
        source.close()
        connection.close()
    return sum(bool(os.waitpid(pid, 0)[1]) for pid in pids)


def _say(message: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
