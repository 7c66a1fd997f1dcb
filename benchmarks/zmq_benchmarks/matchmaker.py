# SPDX-License-Identifier: Apache-2.0
"""Measures the matchmaker alone: many processes with many listeners on one Redis of its own."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import redis

from zmq_benchmarks import matchmaker_services
from zmq_benchmarks.children import Worker
from zmq_benchmarks.errors import BenchmarkError, NotInstalled
from zmq_benchmarks.load import percentile
from zmq_benchmarks.machine import describe_machine, describe_versions
from zmq_benchmarks.matchmaker_results import (
    WINDOW,
    Results,
    counters,
    latencies,
    peak,
    rates,
)
from zmq_benchmarks.matchmaker_services import Add, Announce, Keep, Refresh, Report, key_of
from zmq_benchmarks.numbers import Number
from zmq_benchmarks.progress import Reporter, progress
from zmq_matchmaker import Directory, Key, MatchmakerURL, load
from zmq_matchmaker.testing import RedisServer

__all__ = ["run"]

_STEPS: Final = 8
_LOOKUPS, _WARM_ROUNDS = 2000, 20
_PATIENCE, _ANSWER = 120.0, 10.0
_REFRESHING: Final = 6.0
_REFRESH_INTERVAL: Final = 0.1
_CLIENTS, _PUSHES_EACH = 5, 10
_CALM: Final = 0.6
"""Seconds between two changes for one client, so that none waits for the look before it."""
_RESTARTS: Final = 3
_LOOK_INTERVAL: Final = 5.0
"""Seconds between two looks of a directory, which notices only then."""
_SETTLE: Final = 1.5
"""Seconds in which Redis works out anew what its connections take."""
_POLL: Final = 0.02


def run(options: argparse.Namespace) -> Results:
    """Measure everything, with so many `processes`, `listeners` and `seconds`.

    :raises BenchmarkError: something failed.
    """
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    machine, versions = describe_machine(), describe_versions()
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        progress(_STEPS) as reporter,
        contextlib.ExitStack() as stack,
    ):
        try:
            server = stack.enter_context(RedisServer())
        except FileNotFoundError as error:
            raise NotInstalled(str(error)) from error
        admin = stack.enter_context(contextlib.closing(server.client()))
        versions["Redis"] = str(admin.info("server")["redis_version"])
        bench = _Bench(options, reporter, server, admin, Path(folder))
        numbers = list(bench.measure())
    settings = {name: getattr(options, name) for name in ("processes", "listeners", "seconds")}
    return Results(
        date=date, machine=machine, versions=versions, settings=settings, numbers=numbers
    )


class _Bench:
    """One run, on a Redis that is up."""

    def __init__(
        self,
        options: argparse.Namespace,
        reporter: Reporter,
        server: RedisServer,
        admin: redis.Redis,
        folder: Path,
    ) -> None:
        self._processes: int = options.processes
        self._listeners: int = options.listeners
        self._seconds: float = options.seconds
        self._step = reporter.step
        self._server = server
        self._admin = admin
        self._folder = folder
        self._url = f"{server.url}/benchmark"
        self._random = random.Random(0)

    def measure(self) -> Iterator[Number]:
        self._step(f"starting {self._processes} processes")
        with self._services("services", self._processes, self._listeners) as services:
            services.ready()
            yield from self._register(services)
            yield from self._steady("steady", self._listeners)
            yield from self._lookups()
            yield from self._lookups_beside(services)
            yield from self._push()
            yield from self._restart()
            fewer = max(1, self._listeners // 10)
            services.ask(Keep(fewer), Report, _PATIENCE)
            yield from self._steady("steady_fewer", fewer)

    def _services(self, name: str, processes: int, listeners: int) -> Worker:
        config = matchmaker_services.ServicesConfig(self._url, processes, listeners)
        return Worker(name, config, self._folder, matchmaker_services.__name__)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Directory]:
        with contextlib.closing(Directory(load(MatchmakerURL.parse(self._url)))) as directory:
            yield directory

    def _register(self, services: Worker) -> Iterator[Number]:
        total = self._processes * self._listeners
        self._step(f"registering {total:,} listeners")
        before: Any = self._admin.info("memory")
        done = services.ask(Announce(), Report, _PATIENCE)
        time.sleep(_SETTLE)
        after: Any = self._admin.info("memory")
        yield Number("registered", "until all are registered", done.ended - done.began, "s")
        clients = after["mem_clients_normal"] - before["mem_clients_normal"]
        records = after["used_memory"] - before["used_memory"] - clients
        for name, size in (("before", before["used_memory"]), ("after", after["used_memory"])):
            yield Number(f"memory_{name}", f"Redis memory {name}", size / 1e6, "MB")
        yield Number("memory_clients", "… of it connections", clients / 1e6, "MB")
        yield Number("memory_record", "… per record, without connections", records / total, "B")

    def _steady(self, name: str, listeners: int) -> Iterator[Number]:
        self._step(f"steady state, {listeners} listeners each, {self._seconds:g} s")
        first, second = counters(self._admin), counters(self._admin)
        began = time.monotonic()
        time.sleep(self._seconds)
        third, seconds = counters(self._admin), time.monotonic() - began
        # The difference between the first two is what asking costs itself.
        used = {key: third[key] - 2 * second[key] + first[key] for key in third}
        yield from rates(name, f"steady, {listeners} each", used, seconds)

    def _keys(self) -> list[Key]:
        total = self._processes * self._listeners
        chosen = self._random.sample(range(total), min(_LOOKUPS, total))
        return [key_of(*divmod(number, self._processes)) for number in chosen]

    def _lookups(self) -> Iterator[Number]:
        keys = self._keys()
        self._step(f"{len(keys):,} lookups")
        with self._client() as directory:
            cold = _timed(directory, keys)
            warm = _timed(directory, keys * _WARM_ROUNDS)
        yield from latencies("cold", "cold lookup", cold)
        tenth = max(1, len(cold) // 10)
        for name, some in (("first", cold[:tenth]), ("last", cold[-tenth:])):
            title = f"cold lookup, {name} {tenth}: p50"
            yield Number(f"cold_{name}_p50", title, percentile(some, 0.5), "µs")
        yield from latencies("warm", "warm lookup", warm)

    def _lookups_beside(self, services: Worker) -> Iterator[Number]:
        keys = self._keys()
        self._step(f"{len(keys):,} lookups while all refresh")
        command = Refresh(_REFRESHING, _REFRESH_INTERVAL)
        with self._client() as directory, ThreadPoolExecutor(1) as pool:
            refreshing = pool.submit(services.ask, command, Report, _PATIENCE)
            time.sleep(2 * _REFRESH_INTERVAL)
            cold = _timed(directory, keys, time.monotonic() + _REFRESHING - 3 * _REFRESH_INTERVAL)
            done = refreshing.result()
        rate = done.count / (done.ended - done.began)
        yield Number("refreshing_rate", "while all refresh: refreshes", rate, "/s")
        yield Number("refreshing_count", "while all refresh: cold lookups", len(cold))
        yield from latencies("refreshing_cold", "while all refresh: cold lookup", cold)

    def _push(self) -> Iterator[Number]:
        count = _CLIENTS * _PUSHES_EACH
        self._step(f"{count} new servers, until a client uses them")
        delays = []
        with contextlib.ExitStack() as stack:
            announcer = stack.enter_context(self._services("announcer", 1, 0))
            announcer.ready()
            clients = [stack.enter_context(self._client()) for _ in range(_CLIENTS)]
            for round_ in range(_PUSHES_EACH):
                due = time.monotonic() + _CALM
                for topic, client in enumerate(clients):
                    key = key_of(topic, 0)
                    known = client.lookup(key, _ANSWER)
                    told = announcer.ask(Add(topic, 0), Report, _PATIENCE)
                    while client.lookup(key, _ANSWER) == known:
                        if time.monotonic() > told.began + _PATIENCE:
                            raise BenchmarkError(f"server {round_} of {key} is not found")
                        time.sleep(0.0005)
                    delays.append((time.monotonic() - told.began) * 1e3)
                time.sleep(max(0.0, due - time.monotonic()))
        yield from latencies("push", "a new server, until it is used", delays, "ms")

    def _restart(self) -> Iterator[Number]:
        self._step(f"Redis comes back empty, {_RESTARTS} times")
        taken = []
        for _ in range(_RESTARTS):
            time.sleep(self._random.uniform(0.0, _LOOK_INTERVAL))
            taken.append(self._restarted())
        away, registered, scripts, commands = (max(each) for each in zip(*taken, strict=True))
        title = f"empty restart, worst of {_RESTARTS}: "
        yield Number("restart_down", f"{title}Redis is away", away, "s")
        yield Number("restart_registered", "… then until all are registered", registered, "s")
        yield Number("restart_peak_scripts", "… at most requests (EVALSHA, EVAL)", scripts, "/s")
        yield Number("restart_peak_commands", "… at most commands", commands, "/s")

    def _restarted(self) -> tuple[float, float, int, int]:
        # A key for each listener, a set for each lease, the leases, and since when.
        expected = self._processes * (self._listeners + 1) + 2
        killed = time.monotonic()
        self._server.restart(empty=True)
        back = time.monotonic()
        scripts, commands, done = [(back, 0)], [(back, 0)], 0.0
        while not done or time.monotonic() < done + WINDOW:
            told, now = counters(self._admin), time.monotonic()
            scripts.append((now, told["scripts"]))
            commands.append((now, told["commands"]))
            if not done and self._admin.dbsize() >= expected:
                done = now
            if now > back + _PATIENCE:
                raise BenchmarkError(f"not all have registered again within {_PATIENCE:g} s")
            time.sleep(_POLL)
        return back - killed, done - back, peak(scripts), peak(commands)


def _timed(directory: Directory, keys: Sequence[Key], end: float = float("inf")) -> list[float]:
    """The microseconds of each lookup, until there are no more keys or no more time."""
    clock = time.perf_counter_ns
    taken = []
    for key in keys:
        begin = clock()
        records = directory.lookup(key, _ANSWER)
        taken.append((clock() - begin) / 1e3)
        if len(records) != 1:
            raise BenchmarkError(f"{len(records)} records instead of one of {key}")
        if time.monotonic() > end:
            break
    return taken
