# SPDX-License-Identifier: Apache-2.0
"""The command line: takes samples of all subjects in turns, prints and keeps the results."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

_NEEDED: Final = "oslo.messaging, pyzmq, rich, redis and this repository's packages"

try:
    import msgspec
    from rich.console import Console

    from zmq_benchmarks import fanout, forwarding, matchmaker
    from zmq_benchmarks.errors import BenchmarkError, NotInstalled
    from zmq_benchmarks.machine import describe_machine, describe_versions
    from zmq_benchmarks.matchmaker_results import print_report as print_matchmaker
    from zmq_benchmarks.numbers import print_report as print_numbers_report
    from zmq_benchmarks.plan import DEFAULT_SUBJECTS, MEASUREMENTS, SUBJECTS, Measurement, select
    from zmq_benchmarks.progress import Reporter, progress
    from zmq_benchmarks.report import print_report
    from zmq_benchmarks.results import Results, Sample, summarise
    from zmq_benchmarks.subcommands import (
        fanout_options,
        forwarding_options,
        matchmaker_options,
        positive,
    )
    from zmq_benchmarks.subjects import Subject, start
except ModuleNotFoundError as error:
    raise SystemExit(
        f"benchmarks: {error}. Needed are {_NEEDED}, installed for {sys.executable}:\n"
        "  python3 -m venv .venv && . .venv/bin/activate\n"
        "  pip install rich -e packages/zmq-core -e 'packages/zmq-matchmaker[redis,testing]' "
        "-e packages/zmq-oslo-driver\n"
        "and then: python benchmarks/run"
    ) from error

__all__ = ["main"]

T = TypeVar("T")

_FORMAT: Final = 1
_TERMINATED: Final = 128 + signal.SIGTERM
_QUICK_SECONDS: Final = 0.2
_WARM_UP: Final = 0.3
_WARM: Final = Measurement(name="warm-up", title="warm-up")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Calls, casts and latencies of the zmq driver, side by side with the rabbit "
        "driver and with pyzmq alone. All are measured in turns, round by round, so that what "
        "else the machine does hits all alike.",
        epilog="measurements: "
        + ", ".join(each.name for each in MEASUREMENTS)
        + "; `benchmarks/run matchmaker` measures the matchmaker alone, `benchmarks/run "
        "forwarding` the proxy's router and `benchmarks/run fanout` its publisher: see "
        "the --help of each",
    )
    parser.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="per measurement and round; default: %(default)s"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="MEASUREMENT",
        choices=[each.name for each in MEASUREMENTS],
        help="measure only this; may be repeated",
    )
    parser.add_argument(
        "--subject",
        action="append",
        default=[],
        choices=list(SUBJECTS),
        help=f"compare only these; may be repeated; default: {', '.join(DEFAULT_SUBJECTS)}. "
        + "; ".join(f"{name}: {text}" for name, text in SUBJECTS.items()),
    )
    parser.add_argument("--no-rabbit", action="store_true", help="go without RabbitMQ")
    parser.add_argument(
        "--matchmaker",
        choices=["redis", "file"],
        default="redis",
        help="of the zmq driver: a Redis started for it, or a folder; default: %(default)s",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all samples to this file")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one short round over a folder, to see that everything works; means nothing",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 if everything could be measured or was skipped with a reason."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # so that servers end too
    if words[:1] == ["matchmaker"]:
        chosen = matchmaker_options(words[1:])
        return _carry_out(lambda: matchmaker.run(chosen), print_matchmaker, chosen.json)
    if words[:1] == ["forwarding"]:
        chosen = forwarding_options(words[1:])
        return _carry_out(lambda: forwarding.run(chosen), print_numbers_report, chosen.json)
    if words[:1] == ["fanout"]:
        chosen = fanout_options(words[1:])
        return _carry_out(lambda: fanout.run(chosen), print_numbers_report, chosen.json)
    options = _parser().parse_args(words)
    if options.quick:
        options.rounds, options.seconds, options.matchmaker = 1, _QUICK_SECONDS, "file"
    return _carry_out(lambda: _run(options), print_report, options.json)


def _carry_out(
    measure: Callable[[], T], report: Callable[[T, Console], None], json: Path | None
) -> int:
    """Measure, print and keep what came out."""
    try:
        results = measure()
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130
    report(results, Console(width=None if sys.stdout.isatty() else 120))
    if json is not None:
        text = msgspec.json.format(msgspec.json.encode(results), indent=1)
        json.write_bytes(text + b"\n")
        print(f"all samples: {json}")
    return 0


def _run(options: argparse.Namespace) -> Results:
    names = [
        name
        for name in SUBJECTS
        if name in (options.subject or DEFAULT_SUBJECTS)
        and not (options.no_rabbit and name == "rabbit")
    ]
    measurements = select(options.only)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    machine, versions = describe_machine(), describe_versions()
    skipped: dict[str, str] = {}
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        progress(len(names) + _steps(measurements, names, options.rounds)) as reporter,
        contextlib.ExitStack() as stack,
    ):
        subjects = []
        for name in names:
            reporter.step(f"starting {name}")
            try:
                subject, more = start(name, options.matchmaker, Path(folder), stack)
            except NotInstalled as error:
                skipped[name] = str(error)
                reporter.say(f"{name} is skipped: {error}")
                continue
            versions |= more
            subject.measure(_WARM, min(_WARM_UP, options.seconds))
            subjects.append(subject)
        rows = _measure(measurements, subjects, options.rounds, options.seconds, reporter)
    return Results(
        format=_FORMAT,
        date=date,
        machine=machine,
        versions=versions,
        settings={
            "rounds": options.rounds,
            "seconds": options.seconds,
            "matchmaker": options.matchmaker,
        },
        skipped=skipped,
        rows=[summarise(each, taken) for each, taken in rows if taken],
    )


def _steps(measurements: Sequence[Measurement], names: Sequence[str], rounds: int) -> int:
    return sum(
        1 if each.once else rounds
        for each in measurements
        for name in names
        if name in each.subjects
    )


def _measure(
    measurements: Sequence[Measurement],
    subjects: Sequence[Subject],
    rounds: int,
    seconds: float,
    reporter: Reporter,
) -> list[tuple[Measurement, dict[str, list[Sample]]]]:
    """Round by round, each measurement of all subjects in turn."""
    found: dict[str, dict[str, list[Sample]]] = {each.name: {} for each in measurements}
    for round_ in range(rounds):
        for each in measurements:
            if each.once and round_:
                continue
            for subject in subjects:
                if subject.name not in each.subjects:
                    continue
                reporter.step(f"round {round_ + 1}: {each.title}, {subject.name}")
                sample = subject.measure(each, seconds)
                found[each.name].setdefault(subject.name, []).append(sample)
    return [(each, found[each.name]) for each in measurements]


if __name__ == "__main__":
    sys.exit(main())
