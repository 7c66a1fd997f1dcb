# SPDX-License-Identifier: Apache-2.0
"""The demo shows what it claims, fails when something is wrong, and leaves nothing behind.

It runs here in the tests' own environment; test_demo_install.py is about the one it makes.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
from rich.console import Console

from demo_support.screen import Screen
from harness.leaks import is_alive, wait_until
from harness.services import child_environment

ROOT = Path(__file__).resolve().parent.parent
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
GREEN = "\x1b[32m"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the demo, with a folder for its temporary files."""

    def start(*arguments: str, stdout: int = subprocess.PIPE, **variables: str) -> Any:
        environment = child_environment(TMPDIR=str(tmp_path), **variables)
        environment["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "demo_support", "--seconds=0.5", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # The demo honours a SIGHUP that is ignored, as it is under nohup.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )

    return start


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The demo's own children, as of now."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def servers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Those of its children that have become servers."""
    found = []
    for child in family(process):
        try:
            if "demo_support.server" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Return when the demo has said `text`."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    raise AssertionError(f"{text!r} is not in {''.join(said)}")


def assert_gone(processes: list[psutil.Process], folder: Path) -> None:
    wait_until(lambda: not any(is_alive(p) for p in processes), "every process ended")
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
    assert errors == ""
    assert "\x1b[" not in output, "no colours where no terminal is"
    assert ("zmq+redis://" if arguments else "zmq+file://") in output
    assert_gone([], tmp_path)


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_a_terminal_gets_colours_unless_its_user_wants_none(
    start: Start, variables: dict[str, str]
) -> None:
    ours, its = pty.openpty()
    with start(stdout=its, TERM="xterm-256color", **variables) as demo, open(ours, "rb") as output:
        os.close(its)
        said = b""
        try:
            while (chunk := output.read1()) and b"directed call" not in said:
                said += chunk
        except OSError:
            pass  # how Linux says that nobody has the other end any more
        demo.terminate()
        demo.communicate(timeout=60)
    assert b"directed call" in said
    assert (GREEN.encode() in said) is not bool(variables)


@pytest.mark.parametrize(
    ("number", "said", "arguments"),
    [
        (signal.SIGINT, "notifications", ()),
        (signal.SIGINT, "directed call", ("--redis",)),
        (signal.SIGHUP, "directed call", ("--redis",)),
        (signal.SIGTERM, "directed call", ()),
    ],
)
def test_an_interrupted_demo_leaves_no_process_and_no_folder(
    start: Start, tmp_path: Path, number: signal.Signals, said: str, arguments: tuple[str, ...]
) -> None:
    with start("--seconds=60", *arguments) as demo:
        read_until(demo, said)  # after the last step comes the load
        children = family(demo)
        assert len(children) == 2 + len(arguments)
        # As a terminal does it: to every process in its foreground, and perhaps twice.
        for _ in range(2):
            if number == signal.SIGTERM:
                demo.send_signal(number)
            else:
                os.killpg(demo.pid, number)
        output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, output + errors
    assert "Interrupted" in output
    assert errors == ""
    assert_gone(children, tmp_path)


def test_the_last_words_are_said_wherever_a_print_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = 0
    while True:
        said = io.StringIO()
        monkeypatch.setattr(sys, "stdout", said)
        screen = Screen()
        try:
            with interrupted_in(Console, after=cut):
                screen.title()
        except KeyboardInterrupt:
            screen.interrupted()
            assert "Interrupted" in said.getvalue(), cut
        else:
            break  # it had ended before
        cut += 1
    assert cut > 20


@contextlib.contextmanager
def interrupted_in(console: type[Console], *, after: int) -> Iterator[None]:
    """Raises KeyboardInterrupt after so many lines of what keeps and writes the console's text."""
    code = {
        getattr(console, name).__code__
        for name in ("__enter__", "__exit__", "_enter_buffer", "_exit_buffer", "_write_buffer")
    }
    left = after

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code not in code:
            return None
        if not left:
            sys.settrace(None)
            raise KeyboardInterrupt
        left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_a_server_that_dies_makes_the_demo_fail(start: Start, tmp_path: Path) -> None:
    with start("--seconds=60") as demo:
        read_until(demo, "directed call")
        children = servers(demo)
        assert len(children) == 2
        children[0].kill()
        output, errors = demo.communicate(timeout=90)
    assert demo.returncode == 1, output + errors
    assert "Failed:" in output
    assert "All went right" not in output
    assert_gone(children, tmp_path)


def test_a_server_that_cannot_start_makes_the_demo_fail(start: Start, tmp_path: Path) -> None:
    with start() as demo:
        wait_until(lambda: servers(demo), "a server is starting", timeout=30)
        children = servers(demo)
        children[0].kill()
        output, errors = demo.communicate(timeout=90)
    assert demo.returncode == 1, output + errors
    assert "did not start" in output
    assert_gone(children, tmp_path)


def test_servers_end_by_themselves_when_the_client_is_killed(start: Start) -> None:
    with start("--seconds=60") as demo:
        read_until(demo, "directed call")
        children = family(demo)
        demo.kill()
        wait_until(lambda: not any(is_alive(p) for p in children), "the servers ended", 30)
        demo.communicate(timeout=60)
