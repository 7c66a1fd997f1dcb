# SPDX-License-Identifier: Apache-2.0
"""Measures the proxy's router beside libzmq's own `zmq_proxy`, with the same messages."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zmq_benchmarks import forwarding_load
from zmq_benchmarks.children import Worker
from zmq_benchmarks.forwarding_load import LoadConfig
from zmq_benchmarks.forwarding_subjects import SUBJECTS, Forwarder, Load, Sample, running
from zmq_benchmarks.machine import describe_machine, describe_versions
from zmq_benchmarks.numbers import Number, Report, Wanted
from zmq_benchmarks.progress import Reporter, progress
from zmq_benchmarks.wire import allow_open_files

__all__ = ["run"]

_MINE, _OTHERS = "router", ("plain", "bare")
_WANTED: Final = 0.8
_WARM_UP: Final = 0.2
_SPARE_FILES: Final = 200
"""What a process has open beside the connections."""
_WARM_MESSAGES: Final = 100_000
_MOST_UNDER_WAY: Final = 5000
"""Messages, of all senders together: enough to keep the thread busy that does the I/O."""
_SETTLE: Final = 0.5
"""Seconds until the proxy has dealt with connections that came or went."""
_MEGA: Final = 1e6

Samples = dict[str, list[Sample]]


def run(options: argparse.Namespace) -> Report:
    """Measure rates with one and with many peers, and the memory of the router.

    :raises BenchmarkError: something failed.
    """
    allow_open_files(options.receivers + _SPARE_FILES)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    machine, versions = describe_machine(), describe_versions()
    pairs = (1, options.pairs)
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        progress(options.rounds * len(pairs) * len(SUBJECTS) + 2) as reporter,
    ):
        bench = _Bench(options, reporter, Path(folder))
        taken = bench.rates(pairs)
        numbers = [number for peers in pairs for number in _numbers(peers, taken[peers])]
        numbers += bench.memory()
    names = ("rounds", "seconds", "pairs", "window", "messages", "receivers")
    return Report(
        title="the proxy's router beside libzmq's zmq_proxy; medians of the rounds",
        date=date,
        machine=machine,
        versions=versions,
        settings={name: getattr(options, name) for name in names},
        numbers=numbers,
        samples=dict(_samples(taken)),
        goals=[_goal(peers, taken[peers]) for peers in pairs],
    )


class _Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, reporter: Reporter, folder: Path) -> None:
        self._options = options
        self._step = reporter.step
        self._folder = folder

    def rates(self, pairs: tuple[int, ...]) -> dict[int, Samples]:
        """By the number of senders, who are as many as receivers; all subjects in turns."""
        taken: dict[int, Samples] = {peers: {name: [] for name in SUBJECTS} for peers in pairs}
        with contextlib.ExitStack() as stack:
            subjects = {
                name: stack.enter_context(running(name, self._folder / name)) for name in SUBJECTS
            }
            for round_ in range(self._options.rounds):
                for peers in pairs:
                    for name, forwarder in subjects.items():
                        self._step(f"round {round_ + 1}: {peers} + {peers} peers, {name}")
                        taken[peers][name].append(self._sample(forwarder, peers, name))
        return taken

    def _sample(self, forwarder: Forwarder, peers: int, name: str) -> Sample:
        with contextlib.ExitStack() as stack:
            window = min(peers * self._options.window, _MOST_UNDER_WAY)
            load = Load(forwarder, peers, window, self._folder / name, stack)
            load.measure(min(_WARM_UP, self._options.seconds))
            return load.measure(self._options.seconds)

    def memory(self) -> Iterator[Number]:
        """Of a router of its own: how it grows with messages, and with receivers."""
        folder = self._folder / "memory"
        with running(_MINE, folder) as router:
            yield Number("memory_start", "memory of a router that has done nothing", *_mb(router))
            yield from self._memory_of_messages(router, folder)
            yield from self._memory_of_receivers(router, folder)

    def _memory_of_messages(self, router: Forwarder, folder: Path) -> Iterator[Number]:
        count = self._options.messages
        self._step(f"{count:,} messages")
        with contextlib.ExitStack() as stack:
            load = Load(router, 1, self._options.window, folder, stack)
            load.measure(messages=min(_WARM_MESSAGES, count))
            before = router.memory
            sample = load.measure(messages=count)
            after = router.memory
        growth = (after - before) / sample.sent * _MEGA / 1e3
        yield Number("memory_before", "… before those messages", before / _MEGA, "MB")
        yield Number("memory_after", f"… after {sample.sent:,} messages", after / _MEGA, "MB")
        yield Number("memory_growth", "… growth per million messages", growth, "kB")
        yield Number("memory_lost", "… lost of those messages", sample.lost)

    def _memory_of_receivers(self, router: Forwarder, folder: Path) -> Iterator[Number]:
        count = self._options.receivers
        self._step(f"{count:,} receivers")
        before = router.memory
        ends = (router.backend, router.receiver, count, count, router.size)
        config = LoadConfig(False, *ends, str(folder / "credits"))
        with Worker("receivers", config, folder, forwarding_load.__name__) as receivers:
            receivers.ready()
            time.sleep(_SETTLE)
            connected = router.memory
        title = f"memory with {count:,} connected receivers"
        yield Number("memory_receivers", title, connected / _MEGA, "MB")
        yield Number("memory_receiver", "… for each", (connected - before) / count / 1e3, "kB")


def _mb(forwarder: Forwarder) -> tuple[float, str]:
    return forwarder.memory / _MEGA, "MB"


def _numbers(peers: int, taken: Samples) -> Iterator[Number]:
    for name, samples in taken.items():
        title = f"{peers} + {peers} peers, {SUBJECTS[name]}"
        rate, cpu, load_cpu = (
            statistics.median(getattr(sample, field) for sample in samples)
            for field in ("rate", "cpu", "load_cpu")
        )
        sent, lost = (
            sum(getattr(sample, field) for sample in samples) for field in ("sent", "lost")
        )
        prefix = f"{name}_{peers}"
        yield Number(f"{prefix}_rate", f"{title}: messages", rate, "/s")
        yield Number(f"{prefix}_cpu", "… processor time of 100,000", cpu, "s")
        yield Number(f"{prefix}_load_cpu", "… of those who send and receive them", load_cpu, "s")
        yield Number(f"{prefix}_sent", "… sent in all rounds", sent)
        yield Number(f"{prefix}_lost", "… lost of them", lost)
    for other in _OTHERS:
        rate, cpu = (_ratio(taken, other, field) for field in ("rate", "cpu"))
        title = f"{peers} + {peers} peers, router to {other}"
        yield Number(f"ratio_{other}_{peers}_rate", f"{title}: rates", rate)
        yield Number(f"ratio_{other}_{peers}_cpu", "… processor times", cpu)


def _ratio(taken: Samples, other: str, field: str) -> float:
    """The median of the rounds' quotients."""
    both = zip(taken[_MINE], taken[other], strict=True)
    return statistics.median(float(getattr(one, field) / getattr(two, field)) for one, two in both)


def _samples(taken: dict[int, Samples]) -> Iterator[tuple[str, list[float]]]:
    for peers, subjects in taken.items():
        for name, samples in subjects.items():
            for field in Sample._fields:
                values = [float(getattr(sample, field)) for sample in samples]
                yield f"{name}_{peers}_{field}", values


def _goal(peers: int, taken: Samples) -> Wanted:
    title = f"the router's rate to that of {SUBJECTS['plain']}"
    return Wanted.of(f"{peers} + {peers} peers", title, _ratio(taken, "plain", "rate"), _WANTED)
