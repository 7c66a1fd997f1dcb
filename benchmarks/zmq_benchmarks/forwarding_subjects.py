# SPDX-License-Identifier: Apache-2.0
"""What forwards: the proxy's router, and libzmq's `zmq_proxy` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from zmq_benchmarks import forwarding_load, plain_proxy
from zmq_benchmarks.children import Worker
from zmq_benchmarks.errors import BenchmarkError
from zmq_benchmarks.forwarding_load import Count, LoadConfig, Received, Send, Sent, message
from zmq_benchmarks.plain_proxy import PlainConfig
from zmq_benchmarks.proxy import running_proxy
from zmq_benchmarks.wire import encode_message

__all__ = ["SUBJECTS", "Forwarder", "Load", "Sample", "running"]

SUBJECTS: Final = {
    "router": "the proxy's router",
    "plain": "zmq_proxy, ROUTER to DEALER",
    "bare": "zmq_proxy, PULL to PUSH",
}
_PATIENCE: Final = 60.0
_LONGEST: Final = 3600.0
_POLL: Final = 0.02
_SILENCE: Final = 1.0
"""Seconds without an arrival after which the rest counts as lost."""
_HUNDRED_THOUSAND: Final = 1e5
# Of a name that a ROUTER makes up for a peer that has none.
_MADE_UP_NAME: Final = bytes(5)


class Sample(NamedTuple):
    """What came through in one measurement."""

    rate: float
    """Messages a second, from the first to the last that arrived."""
    cpu: float
    """Processor seconds of the forwarding process for 100,000 messages."""
    load_cpu: float
    """The same of senders and receivers together."""
    sent: int
    lost: int


class Forwarder(NamedTuple):
    """A process that forwards, where it listens, and what talks to it."""

    pid: int
    frontend: str
    backend: str
    sender: str
    receiver: str
    size: int
    """Octets of a message as a receiver gets it."""

    @property
    def memory(self) -> int:
        """Resident octets."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def cpu(self) -> float:
        """Processor seconds used so far."""
        return _cpu(self.pid)


def _cpu(pid: int) -> float:
    """Processor seconds that a process has used so far, in user and system mode."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[Forwarder]:
    """Start the subject of that name, and end it with the block.

    :raises BenchmarkError: it does not start.
    """
    folder.mkdir()
    sent = message(0)
    if name == "router":
        url = f"zmq+file://{folder}/registry/?rpc_zmq_bind_address=127.0.0.1"
        with running_proxy(url, folder, name) as proxy:
            size = len(encode_message(sent[1:]))
            yield Forwarder(*proxy, "PUSH", "DEALER", size)
        return
    if name == "plain":
        config, kinds = PlainConfig("ROUTER", "DEALER"), ("DEALER", "DEALER")
        sent = [_MADE_UP_NAME, *sent]
    else:
        config, kinds = PlainConfig("PULL", "PUSH"), ("PUSH", "PULL")
    with Worker(name, config, folder, plain_proxy.__name__) as worker:
        frontend, backend = worker.ready().address.split()
        yield Forwarder(worker.pid, frontend, backend, *kinds, len(encode_message(sent)))


class Load:
    """Senders and receivers of one forwarder, in a process each."""

    def __init__(
        self,
        forwarder: Forwarder,
        peers: int,
        window: int,
        folder: Path,
        stack: contextlib.ExitStack,
    ) -> None:
        fifo = folder / "credits"
        if not fifo.exists():
            os.mkfifo(fifo)
        self._forwarder = forwarder
        self._window = window
        both = (forwarder.size, str(fifo))
        taking = LoadConfig(False, forwarder.backend, forwarder.receiver, peers, peers, *both)
        giving = LoadConfig(True, forwarder.frontend, forwarder.sender, peers, peers, *both)
        module = forwarding_load.__name__
        self._receivers = stack.enter_context(Worker("receivers", taking, folder, module))
        self._senders = stack.enter_context(Worker("senders", giving, folder, module))
        self._receivers.ready()
        self._senders.ready()

    def measure(self, seconds: float = float("inf"), messages: int = 2**62) -> Sample:
        """Send until `seconds` have passed, or so many messages were sent.

        :raises BenchmarkError: nothing came through.
        """
        self._receivers.ask(Count(forget=True), Received, _PATIENCE)
        before, load_before = self._forwarder.cpu(), self._cpu()
        limit = min(seconds, _LONGEST)
        sent = self._senders.ask(Send(limit, messages, self._window), Sent, limit + _PATIENCE).count
        received = self._settled(sent)
        if received.count < 2 or not received.seconds:
            raise BenchmarkError(f"{received.count} of {sent} messages came through")
        share = _HUNDRED_THOUSAND / received.count
        return Sample(
            rate=received.count / received.seconds,
            cpu=(self._forwarder.cpu() - before) * share,
            load_cpu=(self._cpu() - load_before) * share,
            sent=sent,
            lost=sent - received.count,
        )

    def _cpu(self) -> float:
        return _cpu(self._senders.pid) + _cpu(self._receivers.pid)

    def _settled(self, sent: int) -> Received:
        """Wait until all have arrived, or nothing arrives any more."""
        known, since = -1, time.monotonic()
        while True:
            received = self._receivers.ask(Count(), Received, _PATIENCE)
            now = time.monotonic()
            if received.count != known:
                known, since = received.count, now
            if known >= sent or now > since + _SILENCE:
                return received
            time.sleep(_POLL)
