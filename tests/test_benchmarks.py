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
from harness.leaks import wait_until
from harness.services import child_environment

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


def test_an_unknown_measurement_is_refused_with_the_list_of_those_there_are(tmp_path: Path) -> None:
    done = run("--only", "nonsense", folder=tmp_path)
    assert done.returncode == 2
    assert "calls-16" in done.stderr


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_and_no_file(
    tmp_path: Path, sign: signal.Signals
) -> None:
    arguments = ["--subject", "zmq", "--seconds", "60", "--only", "calls-16"]
    with subprocess.Popen(
        [sys.executable, str(RUN), *arguments, "--matchmaker", "file"],
        env=child_environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "round 1" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 2
        process.send_signal(sign)
        assert process.wait(60) == 128 + sign
    wait_until(lambda: not any(child.is_running() for child in children), "no worker is left")
    assert os.listdir(tmp_path) == []
