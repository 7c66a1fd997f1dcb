# SPDX-License-Identifier: Apache-2.0
"""What is seen of the options that are about sockets."""

from __future__ import annotations

import functools
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from oslo_messaging import MessageDeliveryFailure

from harness.leaks import wait_until
from harness.options.bench import Bench, client, connections_to, listening
from harness.options.peers import Ear, FakeServer
from harness.strangers import handshake
from zmq_core import Endpoint, Incoming, Node, NodeOptions, TargetKey
from zmq_oslo_driver.errors import InvalidConfiguration, ServerLost

__all__ = [
    "HEARTBEATS",
    "address_bound",
    "host_registered",
    "is_closed_when_idle",
    "keepalive_counts",
    "keepalive_idles",
    "keepalive_intervals",
    "keepalives",
    "ports_tried",
    "seconds_to_close",
    "seconds_to_death",
    "seconds_to_give_up_a_connection",
    "sends_into_the_dark",
    "system",
    "threads_of_libzmq",
    "usable_ports",
]

HEARTBEATS: Final = 4
"""Seconds after which a peer that is silent is lost, by default."""
_PORTS_EXCEEDED: Final = re.compile(r"ports range exceeded: (\d+) of the 4 ports")


def host_registered(bench: Bench) -> str:
    """The host under which a server is found."""
    with bench.server(bench.registry):
        [record] = bench.records(bench.registry)
        return Endpoint.parse(record.endpoint).host


def address_bound(bench: Bench) -> str:
    """The address on which a server listens."""
    with bench.server(bench.registry, rpc_zmq_host="127.0.0.1"):
        port = _port_registered(bench)
        [address] = {address for address, bound in listening() if bound == port}
        return address


def usable_ports(bench: Bench) -> list[int]:
    """Which of four ports a server takes while all others are in use, counted from the first."""
    ports = [bench.base + n for n in range(4)]
    usable = []
    for port in ports:
        with bench.busy(*(other for other in ports if other != port)):
            try:
                with bench.server("zmq://", rpc_zmq_min_port=ports[0], rpc_zmq_max_port=ports[3]):
                    usable.append(port - bench.base)
            except InvalidConfiguration as error:
                if "[oslo_messaging_zmq] rpc_zmq_min_port: ports range exceed" not in str(error):
                    raise
    return usable


def ports_tried(bench: Bench) -> int:
    """How many of four ports, all in use, a server tries before it says so."""
    first, last = bench.base, bench.base + 4
    with bench.busy(*range(first, last)):
        try:
            with bench.server("zmq://", rpc_zmq_min_port=first, rpc_zmq_max_port=last):
                raise AssertionError("it listens on a port that is in use")
        except InvalidConfiguration as error:
            if (found := _PORTS_EXCEEDED.search(str(error))) is None:
                raise
            return int(found[1])


def threads_of_libzmq(bench: Bench) -> int:
    """How many I/O threads of libzmq come with a transport."""
    # They end, and get their names, a moment later than others see it.
    wait_until(lambda: _io_threads() == 0, "those of others are gone")
    with bench.server("zmq://"):
        until = time.monotonic() + 0.2
        wait_until(lambda: time.monotonic() > until, "all have begun")
        return _io_threads()


def _io_threads() -> int:
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sum(name.startswith("ZMQbg/IO/") for name in names)


# -- TCP keepalive ---------------------------------------------------------------------


def keepalives(bench: Bench) -> tuple[int, int]:
    """Whether the kernel has it on for a connection: its client's end, its server's."""
    return _of_both_ends(bench, socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def keepalive_idles(bench: Bench) -> tuple[int, int]:
    """Seconds before the first probe, as the kernel has them."""
    return _of_both_ends(bench, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


def keepalive_counts(bench: Bench) -> tuple[int, int]:
    """Probes that end a connection."""
    return _of_both_ends(bench, socket.IPPROTO_TCP, socket.TCP_KEEPCNT)


def keepalive_intervals(bench: Bench) -> tuple[int, int]:
    """Seconds between probes."""
    return _of_both_ends(bench, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)


def system(name: str) -> int:
    """What the system has for all connections."""
    return int(Path(f"/proc/sys/net/ipv4/tcp_keepalive_{name}").read_text())


def _of_both_ends(bench: Bench, level: int, option: int) -> tuple[int, int]:
    with bench.server(bench.registry), bench.transport(bench.registry) as transport:
        assert client(transport).call({}, "echo", text="x") == "x"
        server_port = _port_registered(bench)
        [(our_port, connecting)] = connections_to(server_port).items()
        accepted = connections_to(our_port)[server_port]
        return _option(connecting, level, option), _option(accepted, level, option)


def _option(descriptor: int, level: int, option: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.getsockopt(level, option)


# -- the life of a connection ----------------------------------------------------------


def seconds_to_close(bench: Bench) -> float:
    """How long `cleanup()` waits for messages that nobody takes."""
    with (
        FakeServer(reads=False) as server,
        bench.transport(bench.table(server.port), zmq_send_timeout=0.2) as transport,
    ):
        caller = client(transport)
        for _ in range(200):
            caller.cast({}, "note", text="x" * 100_000)
        began = time.monotonic()
        transport.cleanup()
        return time.monotonic() - began


def sends_into_the_dark(bench: Bench) -> bool:
    """Whether a cast is taken for a server whose connection is not established."""
    with (
        Ear() as mute,
        bench.transport(bench.table(mute.port), zmq_connect_timeout=0.2) as transport,
    ):
        try:
            client(transport, retry=0).cast({}, "note", text="x")
        except MessageDeliveryFailure:
            return False
        return True


def seconds_to_give_up_a_connection(bench: Bench) -> float:
    """After how long a server that does not shake hands counts as out of reach."""
    with Ear() as mute, bench.transport(bench.table(mute.port)) as transport:
        began = time.monotonic()
        try:
            client(transport, retry=0).cast({}, "note", text="x")
        except MessageDeliveryFailure:
            return time.monotonic() - began
        raise AssertionError("it was delivered to somebody who says nothing")


def seconds_to_death(bench: Bench) -> float:
    """After how long the caller of a server that falls silent is told."""
    options: dict[str, Any] = {"zmq_heartbeat_interval": 0.1, "zmq_heartbeat_timeout": 0.3}
    with (
        Ear(greeting=handshake(b"ROUTER")) as silent,
        bench.transport(bench.table(silent.port), **options) as transport,
    ):
        began = time.monotonic()
        try:
            client(transport, timeout=10).call({}, "echo", text="x")
        except ServerLost:
            return time.monotonic() - began
        raise AssertionError("somebody who says nothing has answered")


def is_closed_when_idle(bench: Bench) -> bool:
    """Whether an idle connection is closed when another is that may be idle for a second."""
    options: dict[str, Any] = {"use_dynamic_connections": True, "zmq_idle_timeout": 1}
    with (
        bench.server(bench.registry, tried=False),
        bench.transport(bench.registry, **options) as one,
        bench.transport(bench.registry, tried=False, **options, zmq_linger=1) as other,
    ):
        port = _port_registered(bench)
        client(one).call({}, "echo", text="x")
        [own] = connections_to(port)
        client(other).call({}, "echo", text="x")
        assert len(connections_to(port)) == 2
        wait_until(lambda: not set(connections_to(port)) - {own}, "the other is closed")
        # They are looked after four times a second.
        deadline = time.monotonic() + 2
        wait_until(
            lambda: own not in connections_to(port) or time.monotonic() > deadline, "a while"
        )
        return own not in connections_to(port)


def servers_used(bench: Bench) -> int:
    """To how many of four servers a client sends what any of them may take."""
    with _crowd(bench) as (url, received):
        options: dict[str, Any] = {"use_dynamic_connections": True}
        with bench.transport(url, **options) as transport:
            _cast_to_all(transport, received)
        return len(set(received))


def connections_kept(bench: Bench) -> int:
    """How many of four connections a client keeps."""
    with _crowd(bench) as (url, received):
        options: dict[str, Any] = {"use_dynamic_connections": True, "zmq_failover_connections": 3}
        with bench.transport(url, **options) as transport:
            _cast_to_all(transport, received)
            ports = set(received)
            deadline = time.monotonic() + 3

            def kept() -> int:
                return sum(len(connections_to(port)) for port in ports)

            wait_until(lambda: kept() <= 2 or time.monotonic() > deadline, "a while")
            return kept()


def _cast_to_all(transport: Any, received: list[int]) -> None:
    for _ in range(12):
        client(transport).cast({}, "note", text="x")
    wait_until(lambda: len(received) == 12, "all have arrived")


@contextmanager
def _crowd(bench: Bench) -> Iterator[tuple[str, list[int]]]:
    """A URL by which four servers listen, and whose ports got something."""
    received: list[int] = []
    with ExitStack() as stack:
        ports = []
        for _ in range(4):
            node = stack.enter_context(Node(NodeOptions(bind_address="127.0.0.1", linger=0)))
            port = Endpoint.parse(node.bind()).port
            node.serve(TargetKey("openstack", "work"), functools.partial(_note, received, port))
            ports.append(port)
        yield bench.table(*ports), received


def _note(received: list[int], port: int, _: Incoming) -> None:
    received.append(port)


def _port_registered(bench: Bench) -> int:
    [record] = bench.records(bench.registry)
    return Endpoint.parse(record.endpoint).port
