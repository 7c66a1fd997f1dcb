# SPDX-License-Identifier: Apache-2.0
"""`/metrics` for Prometheus and `/healthz` for load balancers: what they say.  No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import zmq
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zmq_matchmaker import DirectoryStatistics
from zmq_proxy._connections import Connections
from zmq_proxy._http import Answer
from zmq_proxy._local import LocalStatistics
from zmq_proxy._publisher import PublisherStatistics
from zmq_proxy._router import RouterStatistics
from zmq_proxy._traffic import Traffic
from zmq_proxy._version import __version__

__all__ = ["Pages", "State"]

_PREFIX: Final = "zmq_proxy_"
_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Every Prometheus understands it, and our names need nothing newer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A proxy at one moment."""

    uptime: float
    """Seconds."""
    problem: str
    """Why it does not forward; empty while it does."""
    traffic: Mapping[str, Traffic]
    """By part."""
    router: RouterStatistics | None
    publisher: PublisherStatistics | None
    local: LocalStatistics | None
    turned_away: int
    """New connections that were ended for want of descriptors."""
    publishers: int
    """Publishers that a local publisher subscribes at."""
    connections: Mapping[str, Connections]
    """By port."""
    matchmaker: DirectoryStatistics


class Pages:
    """What there is to read.  `state` tells it anew each time; `problem` is a part of it."""

    def __init__(self, state: Callable[[], State], problem: Callable[[], str]) -> None:
        self._problem = problem
        self._registry = CollectorRegistry()
        self._registry.register(_ProxyCollector(state))
        ProcessCollector(registry=self._registry)

    def answer(self, path: str) -> Answer:
        """What is to be read at `path`."""
        if path == "/metrics":
            return Answer(HTTPStatus.OK, generate_latest(self._registry), _CONTENT_TYPE)
        if path == "/healthz":
            problem = self._problem()
            status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
            return Answer(status, f"{problem or 'ok'}\n".encode())
        return Answer(HTTPStatus.NOT_FOUND, b"there are /metrics and /healthz\n")


class _ProxyCollector(Collector):
    """Reads the counters when somebody asks for them."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: a proxy that has not started has no state to collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """What is known at this moment."""
        state = self._state()
        yield _gauge(
            "info",
            "Always 1; the versions are in its labels",
            {(__version__, zmq.zmq_version(), zmq.pyzmq_version()): 1},
            "version",
            "libzmq",
            "pyzmq",
        )
        yield _gauge("uptime_seconds", "Seconds since the start", {(): state.uptime})
        yield _gauge("forwarding", "1 while /healthz says ok, else 0", {(): not state.problem})
        yield from _traffic(state.traffic)
        yield from _refusals(state)
        yield from _connected(state)
        yield from _matchmaker(state.matchmaker)


Values = Mapping[tuple[str, ...], float]


def _gauge(name: str, text: str, values: Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _counter(name: str, text: str, values: Values, *labels: str) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _traffic(traffic: Mapping[str, Traffic]) -> Iterator[Metric]:
    labels = ("part", "type", "direction")
    messages: dict[tuple[str, ...], float] = {}
    sizes: dict[tuple[str, ...], float] = {}
    for part, counts in traffic.items():
        for count in counts:
            key = (part, count.kind, count.direction)
            messages[key], sizes[key] = count.messages, count.bytes
    yield _counter(
        "messages",
        "Messages: in, taken from senders; out, handed to the queue of their receiver, or once to "
        "those of all subscribers, were there any. What was refused is in but not out",
        messages,
        *labels,
    )
    yield _counter("message_bytes", "Bytes of these, without ZMTP's framing", sizes, *labels)


def _refusals(state: State) -> Iterator[Metric]:
    router, publisher, local = state.router, state.publisher, state.local
    if router is not None:
        yield _counter(
            "refused",
            "Messages that the router did not pass on: unroutable, the receiver is not connected; "
            "queue_full, it does not read",
            {("unroutable",): router.unroutable, ("queue_full",): router.overflowed},
            "reason",
        )
        yield _counter(
            "nacks",
            "Senders to be told of a refusal: told, or lost since they are not connected to the "
            "backend",
            {("told",): router.nacks, ("lost",): router.nacks_lost},
            "outcome",
        )
        yield _counter(
            "discarded",
            "Messages that peers sent to the router's backend, where nothing is to be sent to",
            {(): router.discarded},
        )
    stalls = {"publisher": publisher, "local": local}
    yield _counter(
        "stalls",
        "Times that a subscriber's queue was full: it misses what comes until half is free",
        {(part,): counts.stalls for part, counts in stalls.items() if counts is not None},
        "part",
    )
    if local is not None:
        yield _gauge(
            "upstream_publishers",
            "Publishers that the local publisher subscribes at",
            {(): state.publishers},
        )


def _connected(state: State) -> Iterator[Metric]:
    yield _counter(
        "turned_away",
        "New connections that were ended at once, for want of descriptors",
        {(): state.turned_away},
    )
    found = {(port,): connections for port, connections in state.connections.items()}
    yield _gauge(
        "peers",
        "Established TCP connections to each port; a process has one to each that it uses",
        {port: connections.peers for port, connections in found.items()},
        "port",
    )
    queues: dict[tuple[str, ...], float] = {}
    for port, connections in found.items():
        queues[*port, "in"] = connections.unread
        queues[*port, "out"] = connections.unacknowledged
    yield _gauge(
        "kernel_queue_bytes",
        "Bytes in the kernel's queues of all connections to a port: in, not read by the proxy yet; "
        "out, not acknowledged by peers yet. Without what waits in libzmq's own queues, which it "
        "does not tell: see zmq_proxy_refused_total for queues that are full",
        queues,
        "port",
        "direction",
    )


def _matchmaker(statistics: DirectoryStatistics) -> Iterator[Metric]:
    yield _gauge(
        "matchmaker_reachable",
        "1 unless the last attempt to use the matchmaker failed",
        {(): statistics.reachable},
    )
    yield _counter(
        "matchmaker_failures",
        "Attempts to use the matchmaker that failed",
        {(): statistics.failures},
    )
    yield _gauge(
        "matchmaker_entries",
        "Records of this proxy: announced, to be kept in the matchmaker; unwritten, those of them "
        "that it has not taken yet",
        {("announced",): statistics.announced, ("unwritten",): statistics.unwritten},
        "state",
    )
