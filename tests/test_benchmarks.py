# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, measures what it says and leaves nothing; its numbers are not judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.leaks import is_alive, wait_until
from harness.services import child_environment

GOALS = {"forwarding": ["1 + 1 peers", "3 + 3 peers"], "fanout": ["fanout"]}
RUN = Path(__file__).resolve().parent.parent / "benchmarks" / "run"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *arguments],
        env=child_environment(TMPDIR=str(folder)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def interrupt(
    arguments: list[str], step: str, processes: int, sign: signal.Signals, folder: Path
) -> None:
    """Interrupt a run at a step at which it has so many processes, and see them gone."""
    with subprocess.Popen(
        [sys.executable, str(RUN), *arguments],
        env=child_environment(TMPDIR=str(folder)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if step in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == processes
        process.send_signal(sign)
        assert process.wait(60) == 128 + sign
    wait_until(lambda: not any(is_alive(child) for child in children), "no worker is left")
    assert os.listdir(folder) == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a short run of all measurements but RabbitMQ's writes."""
    folder = tmp_path_factory.mktemp("benchmarks")
    path = folder / "results.json"
    done = run("--quick", "--no-rabbit", "--json", str(path), folder=folder)
    assert done.returncode == 0, done.stderr
    assert "side by side" in done.stdout
    assert os.listdir(folder) == ["results.json"]
    return json.loads(path.read_text())


def numbers(value: Any) -> Iterator[float]:
    """All numbers in `value`, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, int | float):
        yield value


def test_every_measurement_is_taken_of_every_subject(results: Any) -> None:
    taken = {row["measurement"]["name"]: sorted(row["medians"]) for row in results["rows"]}
    both = ["raw", "zmq"]
    assert taken == {
        "calls-1": both,
        "calls-16": both,
        "calls-64": both,
        "casts": both,
        "calls-10k": both,
        "calls-1M": both,
        "calls-64M": ["zmq"],
    }


def test_every_sample_has_all_its_numbers_and_none_is_zero(results: Any) -> None:
    fields = {"rate", "count", "seconds", "p50_us", "p95_us", "p99_us"}
    fields |= {"client_cpu_us", "server_cpu_us"}
    for row in results["rows"]:
        assert list(row["samples"]) == list(row["medians"])
        for samples in row["samples"].values():
            assert len(samples) == 1
            for sample in samples:
                assert set(sample) == fields
                assert all(number > 0 for number in numbers(sample)), row


def test_ratios_compare_the_driver_with_each_other_subject(results: Any) -> None:
    for row in results["rows"]:
        others = set(row["medians"]) - {"zmq"}
        assert set(row["ratios"]) == {f"zmq/{other}" for other in others}
        assert all(ratio > 0 for ratio in row["ratios"].values())


def test_a_run_says_where_and_with_what_it_was_made(results: Any) -> None:
    assert results["machine"]["cpus"] >= 1
    assert results["date"].endswith("+00:00")
    assert {"python", "libzmq", "pyzmq", "oslo.messaging"} <= set(results["versions"])
    assert results["settings"] == {"rounds": 1, "seconds": 0.2, "matchmaker": "file"}
    assert results["skipped"] == {}


def test_calls_through_a_proxy_are_compared_with_direct_ones(tmp_path: Path) -> None:
    subjects = ("--subject", "zmq", "--subject", "zmq-proxied")
    done = run("--quick", *subjects, "--only", "calls-1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "goal calls-1: zmq-proxied is" in done.stdout
    assert os.listdir(tmp_path) == []


def test_an_unknown_measurement_is_refused_with_the_list_of_those_there_are(tmp_path: Path) -> None:
    done = run("--only", "nonsense", folder=tmp_path)
    assert done.returncode == 2
    assert "calls-16" in done.stderr


def report(name: str, *arguments: str, folder: Path) -> Any:
    """What a quick run of a part's measurements writes."""
    path = folder / "results.json"
    done = run(name, "--quick", *arguments, "--json", str(path), folder=folder)
    assert done.returncode == 0, done.stderr
    assert all(f"goal {goal}:" in done.stdout for goal in GOALS[name])
    assert os.listdir(folder) == ["results.json"]
    results = json.loads(path.read_text())
    assert [goal["name"] for goal in results["goals"]] == GOALS[name]
    for goal in results["goals"]:
        reached = (
            goal["ratio"] <= goal["bound"] if goal["at_most"] else goal["ratio"] >= goal["bound"]
        )
        assert goal["reached"] is reached
    assert results["machine"]["cpus"] >= 1
    assert {"libzmq", "pyzmq"} <= set(results["versions"])
    return results


def test_the_router_is_compared_with_what_libzmq_forwards_alone(tmp_path: Path) -> None:
    results = report("forwarding", folder=tmp_path)
    taken = {number["name"]: number["value"] for number in results["numbers"]}
    subjects = {f"{name}_{peers}" for name in ("router", "plain", "bare") for peers in (1, 3)}
    rates = {f"{subject}_{what}" for subject in subjects for what in ("rate", "sent")}
    others = {f"{subject}_{what}" for subject in subjects for what in ("cpu", "load_cpu", "lost")}
    ratios = {
        f"ratio_{name}_{peers}_{what}"
        for name in ("plain", "bare")
        for peers in (1, 3)
        for what in ("rate", "cpu")
    }
    memory = {f"memory_{name}" for name in ("start", "before", "after", "receivers")}
    changes = {f"memory_{name}" for name in ("growth", "receiver", "lost")}
    assert set(taken) == rates | others | ratios | memory | changes
    # Processor time is counted in hundredths of a second, and a few messages need no more memory.
    positive = rates | memory | {name for name in ratios if name.endswith("_rate")}
    assert all(taken[name] > 0 for name in positive), taken
    assert all(taken[name] >= 0 for name in others | {"memory_lost"}), taken
    assert set(results["samples"]) == rates | others
    assert all(len(samples) == 1 for samples in results["samples"].values())
    assert results["settings"] == {
        "rounds": 1,
        "seconds": 0.1,
        "pairs": 3,
        "window": 400,
        "messages": 1000,
        "receivers": 20,
    }


def test_fanouts_are_measured_with_few_and_with_many_listeners(tmp_path: Path) -> None:
    results = report("fanout", folder=tmp_path)
    taken = {number["name"]: number["value"] for number in results["numbers"]}
    sizes = {"published_1", "published_20", "direct_1", "direct_3"}
    times = {
        f"{size}_{what}" for size in sizes for what in ("client_p50", "client_p99", "delivered_p50")
    }
    counts = {f"{size}_fanouts" for size in sizes}
    lost = {f"{size}_lost" for size in sizes}
    assert set(taken) == times | counts | lost
    assert all(taken[name] > 0 for name in times), taken
    assert all(taken[name] == 5 for name in counts), taken
    assert all(taken[name] == 0 for name in lost), taken
    assert set(results["samples"]) == {
        f"{size}_{w}" for size in sizes for w in ("client", "delivered")
    }
    assert all(len(samples) == 5 for samples in results["samples"].values())
    assert results["settings"] == {"rounds": 1, "fanouts": 5, "interval": 0.01, "processes": 2}


def test_connections_that_the_system_does_not_allow_are_refused_with_the_limit(
    tmp_path: Path,
) -> None:
    done = run("forwarding", "--receivers", "2000000000", folder=tmp_path)
    assert done.returncode == 1
    assert "open files are needed" in done.stderr


@pytest.mark.slow
def test_the_matchmaker_is_measured_with_many_processes(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    size = ("--processes", "4", "--listeners", "5", "--seconds", "2")
    done = run("matchmaker", *size, "--json", str(path), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 processes with 5 listeners each" in done.stdout
    assert os.listdir(tmp_path) == ["results.json"]
    results = json.loads(path.read_text())
    assert results["settings"] == {"processes": 4, "listeners": 5, "seconds": 2.0}
    assert "Redis" in results["versions"]
    taken = {number["name"]: number["value"] for number in results["numbers"]}
    steady = {"scripts", "refreshes", "lookups", "commands", "in", "out", "busy"}
    quiet = {f"{name}_{what}" for name in ("steady", "steady_fewer") for what in steady}
    latencies = {
        f"{name}_{share}"
        for name in ("cold", "warm", "refreshing_cold", "push")
        for share in ("p50", "p99", "max")
    }
    others = {"registered", "cold_first_p50", "cold_last_p50"}
    others |= {"memory_before", "memory_after", "memory_clients", "memory_record"}
    others |= {"refreshing_rate", "refreshing_count", "restart_down", "restart_registered"}
    others |= {"restart_peak_scripts", "restart_peak_commands"}
    assert set(taken) == quiet | latencies | others
    # In two seconds, four processes may have nothing to say.
    assert all(taken[name] > 0 for name in latencies | others), taken


def test_an_interrupted_run_of_the_matchmaker_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    arguments = ["matchmaker", "--processes", "3", "--listeners", "2", "--seconds", "60"]
    # The Redis, and the process that has forked the three.
    interrupt(arguments, "steady", 5, signal.SIGINT, tmp_path)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_and_no_file(
    tmp_path: Path, sign: signal.Signals
) -> None:
    arguments = ["--subject", "zmq", "--seconds", "60", "--only", "calls-16"]
    interrupt([*arguments, "--matchmaker", "file"], "round 1", 2, sign, tmp_path)
