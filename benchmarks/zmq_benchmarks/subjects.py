# SPDX-License-Identifier: Apache-2.0
"""What is compared: the two ends of each transport, in processes of their own."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

from zmq_benchmarks.children import Worker
from zmq_benchmarks.errors import BenchmarkError
from zmq_benchmarks.load import percentile
from zmq_benchmarks.plan import Kind, Measurement
from zmq_benchmarks.protocol import (
    Calls,
    CastReport,
    Casts,
    Counted,
    Forget,
    LoadReport,
    Role,
    Usage,
    UsageReport,
    WorkerConfig,
)
from zmq_benchmarks.proxy import running_proxy
from zmq_benchmarks.rabbit import running_rabbit
from zmq_benchmarks.results import Sample

__all__ = ["Subject", "start"]

_PATIENCE: Final = 120.0
_POLL: Final = 0.02
_MICRO: Final = 1e6


class Subject:
    """A transport between a server and a client process, which may be the same."""

    def __init__(self, name: str, server: Worker, client: Worker) -> None:
        self.name = name
        self._server = server
        self._client = client

    def measure(self, measurement: Measurement, seconds: float) -> Sample:
        """Take one sample of about `seconds`.

        :raises BenchmarkError: an operation failed, or casts were lost.
        """
        before = self._usage()
        if measurement.kind is Kind.CASTS:
            load, rate = self._casts(Casts(seconds, measurement.size))
        else:
            limit = 1 if measurement.once else 0
            command = Calls(measurement.threads, seconds, measurement.size, limit)
            load = self._client.ask(command, LoadReport, seconds + _PATIENCE)
            rate = load.count / load.seconds
        if not load.count:
            raise BenchmarkError(f"{self.name}: not one operation within {seconds} s")
        used = [after - begin for after, begin in zip(self._usage(), before, strict=True)]
        return Sample(
            rate=rate,
            count=load.count,
            seconds=load.seconds,
            p50_us=percentile(load.latencies, 0.50),
            p95_us=percentile(load.latencies, 0.95),
            p99_us=percentile(load.latencies, 0.99),
            client_cpu_us=used[0] / load.count * _MICRO,
            server_cpu_us=used[1] / load.count * _MICRO,
        )

    def _casts(self, command: Casts) -> tuple[LoadReport, float]:
        """Cast, and wait until the server has processed all."""
        self._server.ask(Forget(), CastReport, _PATIENCE)
        load = self._client.ask(command, LoadReport, command.seconds + _PATIENCE)
        sent = load.count + 1  # and the one before the clock started
        deadline = time.monotonic() + command.seconds + _PATIENCE
        while True:
            done = self._server.ask(Counted(), CastReport, _PATIENCE)
            if done.count >= sent:
                return load, (done.count - 1) / done.seconds
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.name}: {done.count} of {sent} casts were processed")
            time.sleep(_POLL)

    def _usage(self) -> tuple[float, float]:
        """Processor seconds used so far by the client and by a server that is another process."""
        client = self._client.ask(Usage(), UsageReport, _PATIENCE).seconds
        if self._server is self._client:
            return client, 0.0
        return client, self._server.ask(Usage(), UsageReport, _PATIENCE).seconds


def start(
    name: str, matchmaker: str, folder: Path, stack: contextlib.ExitStack
) -> tuple[Subject, dict[str, str]]:
    """Start what is called `name`; `stack` ends it.  Also the versions of servers it needs.

    :raises NotInstalled: a server that it needs is not on this machine.
    """
    versions: dict[str, str] = {}
    match name:
        case "raw":
            return _pair(name, "raw", "", folder, stack), versions
        case "oslo":
            both = stack.enter_context(Worker(name, WorkerConfig("inprocess", Role.BOTH), folder))
            both.ready()
            return Subject(name, both, both), versions
        case "rabbit":
            rabbit = stack.enter_context(running_rabbit(folder / "rabbitmq"))
            versions["RabbitMQ"] = rabbit.version
            url = rabbit.url
        case _:
            url = _zmq_url(name, matchmaker, folder, stack)
    return _pair(name, "oslo", url, folder, stack), versions


def _zmq_url(name: str, matchmaker: str, folder: Path, stack: contextlib.ExitStack) -> str:
    options = "?rpc_zmq_bind_address=127.0.0.1"
    if name == "zmq-msgpack":
        options += "&rpc_zmq_serialization=msgpack"
    if matchmaker == "file":
        url = f"zmq+file://{folder}/{name}/{options}"
    else:
        from zmq_matchmaker.testing import RedisServer

        url = f"zmq+{stack.enter_context(RedisServer()).url}/benchmark{options}"
    if name == "zmq-proxied":
        url += "&use_router_proxy=true"
        stack.enter_context(running_proxy(url, folder))
    return url


def _pair(name: str, kind: str, url: str, folder: Path, stack: contextlib.ExitStack) -> Subject:
    server = stack.enter_context(
        Worker(f"{name}-server", WorkerConfig(kind, Role.SERVER, url), folder)
    )
    address = server.ready().address
    client = stack.enter_context(
        Worker(f"{name}-client", WorkerConfig(kind, Role.CLIENT, url or address), folder)
    )
    client.ready()
    return Subject(name, server, client)
