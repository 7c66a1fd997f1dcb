# SPDX-License-Identifier: Apache-2.0
"""Measures fanouts to few and to many, through a publisher and, beside it, without one."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from zmq_benchmarks import fanout_listeners
from zmq_benchmarks.children import Worker
from zmq_benchmarks.errors import BenchmarkError
from zmq_benchmarks.fanout_protocol import (
    Arrivals,
    ClientConfig,
    Fanouts,
    FanoutsSent,
    ListenersConfig,
    Look,
)
from zmq_benchmarks.load import percentile
from zmq_benchmarks.machine import describe_machine, describe_versions
from zmq_benchmarks.numbers import Number, Report, Wanted
from zmq_benchmarks.progress import Reporter, progress
from zmq_benchmarks.proxy import running_proxy
from zmq_benchmarks.wire import allow_open_files

__all__ = ["run"]

_CLIENT: Final = "zmq_benchmarks.fanout_client"  # not imported, as oslo.messaging is slow to be
_WANTED: Final = 2.0
_SPARE_FILES: Final = 200
"""What a process has open beside the connections."""
_FILES_OF_NODE: Final = 40
_PATIENCE: Final = 60.0
_POLL: Final = 0.05
_SILENCE: Final = 2.0
"""Seconds without an arrival after which the rest counts as lost."""
_WARM_UP: Final = 20
"""Fanouts on each topic that are not measured."""
_CLIENT_OPTIONS: Final = "?rpc_zmq_bind_address=127.0.0.1"


class _Taken(NamedTuple):
    """Of some fanouts to one topic: milliseconds, and copies."""

    client: list[float]
    """Until the client could go on."""
    delivered: list[float]
    """Until the last copy was there; of the fanouts of which none was lost."""
    lost: int


def run(options: argparse.Namespace) -> Report:
    """Measure with each of `listeners` and `direct`.

    :raises BenchmarkError: something failed.
    """
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    machine, versions = describe_machine(), describe_versions()
    direct = options.direct
    allow_open_files(sum(options.listeners) + _FILES_OF_NODE * sum(direct) + _SPARE_FILES)
    steps = 2 + options.rounds * (len(options.listeners) + len(direct))
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        progress(steps) as reporter,
    ):
        bench = _Bench(options, reporter, Path(folder))
        published = bench.published()
        sent = bench.direct()
    numbers = [*_numbers("published", "through a publisher", published)]
    numbers += _numbers("direct", "a copy to each", sent)
    settings = {
        name: getattr(options, name) for name in ("rounds", "fanouts", "interval", "processes")
    }
    return Report(
        title="fanouts of an oslo.messaging client",
        date=date,
        machine=machine,
        versions=versions,
        settings=settings,
        numbers=numbers,
        samples=dict([*_samples("published", published), *_samples("direct", sent)]),
        goals=list(_goals(published)),
    )


class _Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, reporter: Reporter, folder: Path) -> None:
        self._options = options
        self._step = reporter.step
        self._folder = folder
        self._next = 0

    def published(self) -> dict[int, _Taken]:
        """Through a publisher, to each number of subscribers."""
        sizes = self._options.listeners
        self._step(f"a publisher, and {sum(sizes):,} subscribers")
        registry = f"zmq+file://{self._folder}/published/"
        with running_proxy(registry + _CLIENT_OPTIONS, self._folder, "publisher") as proxy:
            return self._measure("subscribers", registry, proxy.backend, sizes)

    def direct(self) -> dict[int, _Taken]:
        """A copy to each listener, which is a node of its own."""
        sizes = self._options.direct
        self._step(f"{sum(sizes):,} listeners")
        return self._measure("listeners", f"zmq+file://{self._folder}/direct/", "", sizes)

    def _measure(
        self, name: str, registry: str, publisher: str, sizes: Sequence[int]
    ) -> dict[int, _Taken]:
        taken = {size: _Taken([], [], 0) for size in sizes}
        if not sizes:
            return taken
        with contextlib.ExitStack() as stack:
            listeners = [
                stack.enter_context(self._listeners(f"{name}-{number}", registry, publisher, share))
                for number, share in enumerate(_shares(sizes, self._options.processes))
            ]
            for worker in listeners:
                worker.ready()
            url = f"{registry}{_CLIENT_OPTIONS}&use_pub_sub={'true' if publisher else 'false'}"
            config = ClientConfig(url)
            client = Worker(f"{name}-client", config, self._folder, _CLIENT)
            stack.enter_context(client).ready()
            for size in sizes:
                self._fanouts(client, listeners, size, _WARM_UP)
            for round_ in range(self._options.rounds):
                for size in sizes:
                    self._step(f"round {round_ + 1}: {size:,} {name}")
                    more = self._fanouts(client, listeners, size, self._options.fanouts)
                    old = taken[size]
                    taken[size] = _Taken(
                        old.client + more.client,
                        old.delivered + more.delivered,
                        old.lost + more.lost,
                    )
        return taken

    def _listeners(
        self, name: str, registry: str, publisher: str, topics: dict[str, int]
    ) -> Worker:
        config = ListenersConfig(registry, publisher, topics)
        return Worker(name, config, self._folder, fanout_listeners.__name__)

    def _fanouts(
        self, client: Worker, listeners: Sequence[Worker], size: int, count: int
    ) -> _Taken:
        """Send so many to the topic with `size` listeners, and wait until all have arrived."""
        first, self._next = self._next, self._next + count
        interval = self._options.interval
        command = Fanouts(_topic(size), first, count, interval)
        sent = client.ask(command, FanoutsSent, count * (interval + 1) + _PATIENCE)
        arrivals = _settled(listeners, Look(first, count), size * count)
        if max(arrivals.copies) > size:
            raise BenchmarkError(f"{max(arrivals.copies)} copies of a fanout to {size} arrived")
        each = zip(sent.begun, arrivals.last, arrivals.copies, strict=True)
        return _Taken(
            client=[seconds * 1e3 for seconds in sent.taken],
            delivered=[(last - begun) * 1e3 for begun, last, copies in each if copies == size],
            lost=size * count - sum(arrivals.copies),
        )


def _topic(size: int) -> str:
    return f"topic-{size}"


def _shares(sizes: Sequence[int], processes: int) -> list[dict[str, int]]:
    """How many listeners each process has on each topic."""
    shares: list[dict[str, int]] = [{} for _ in range(processes)]
    for size in sizes:
        for number, share in enumerate(shares):
            share[_topic(size)] = (size + number) // processes
    return shares


def _settled(listeners: Sequence[Worker], look: Look, expected: int) -> Arrivals:
    """What has arrived, when that is all, or nothing arrives any more."""
    known, since = -1, time.monotonic()
    while True:
        each = [worker.ask(look, Arrivals, _PATIENCE) for worker in listeners]
        copies = [sum(some) for some in zip(*(one.copies for one in each), strict=True)]
        now = time.monotonic()
        if sum(copies) != known:
            known, since = sum(copies), now
        if known >= expected or now > since + _SILENCE:
            return Arrivals(
                copies, [max(some) for some in zip(*(a.last for a in each), strict=True)]
            )
        time.sleep(_POLL)


def _numbers(name: str, title: str, taken: dict[int, _Taken]) -> Iterator[Number]:
    for size, each in taken.items():
        prefix, text = f"{name}_{size}", f"{size:,} listeners, {title}"
        p50, p99 = (percentile(each.client, share) * 1e3 for share in (0.5, 0.99))
        yield Number(f"{prefix}_client_p50", f"{text}: client's time p50", p50, "µs")
        yield Number(f"{prefix}_client_p99", "… p99", p99, "µs")
        delivered = percentile(each.delivered, 0.5)
        yield Number(
            f"{prefix}_delivered_p50", "… until the last copy is there, p50", delivered, "ms"
        )
        yield Number(f"{prefix}_fanouts", "… fanouts", len(each.client))
        yield Number(f"{prefix}_lost", "… copies lost of them", each.lost)


def _samples(name: str, taken: dict[int, _Taken]) -> Iterator[tuple[str, list[float]]]:
    for size, each in taken.items():
        yield f"{name}_{size}_client", each.client
        yield f"{name}_{size}_delivered", each.delivered


def _goals(taken: dict[int, _Taken]) -> Iterator[Wanted]:
    """The client's time does not grow with those who listen."""
    few, many = min(taken), max(taken)
    if few != many:
        ratio = percentile(taken[many].client, 0.5) / percentile(taken[few].client, 0.5)
        title = f"the client's time (p50) for {many:,} to that for {few:,}"
        yield Wanted.of("fanout", title, ratio, _WANTED, at_most=True)
