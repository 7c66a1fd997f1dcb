# SPDX-License-Identifier: Apache-2.0
"""The demo shows what it claims, fails when something is wrong, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from harness.leaks import wait_until
from harness.services import child_environment

STEPS = (
    "call",
    "directed call",
    "cast",
    "fanout",
    "remote exception",
    "timeout",
    "nobody listens",
    "notifications",
)

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the demo, with a folder for its temporary files; ./demo itself only installs it."""
    root = Path(__file__).resolve().parent.parent

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = child_environment(TMPDIR=str(tmp_path))
        environment["PYTHONPATH"] += f"{os.pathsep}{root}"
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "demo_support", "--seconds=0.5", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The demo's own children, as of now."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def assert_gone(processes: list[psutil.Process], folder: Path) -> None:
    wait_until(lambda: not any(p.is_running() for p in processes), "every process ended")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("--redis",)])
def test_every_step_is_shown_and_the_exit_code_is_0(
    start: Start, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with start(*arguments) as demo:
        output, errors = demo.communicate(timeout=90)
    assert demo.returncode == 0, output + errors
    for step in STEPS:
        assert f"✓ {step}" in output
    assert "calls/s" in output
    assert "All went right" in output
    assert "\x1b[" not in output, "no colours where no terminal is"
    assert ("zmq+redis://" if arguments else "zmq+file://") in output
    assert_gone([], tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_and_no_folder(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    with start("--seconds=60") as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "notifications" in line:
                break  # the load has begun
        children = family(demo)
        assert len(children) == 2
        os.killpg(demo.pid, number)
        output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, output + errors
    assert_gone(children, tmp_path)


def test_a_server_that_dies_makes_the_demo_fail(start: Start, tmp_path: Path) -> None:
    with start("--seconds=60") as demo:
        wait_until(lambda: len(family(demo)) == 2, "two servers", timeout=30)
        children = family(demo)
        children[0].kill()
        output, errors = demo.communicate(timeout=90)
    assert demo.returncode == 1, output + errors
    assert "Failed:" in output
    assert_gone(children, tmp_path)


def test_the_script_explains_itself_without_installing_anything() -> None:
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [str(root / "demo"), "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--redis" in done.stdout
    assert "Exit code 0" in " ".join(done.stdout.split())
