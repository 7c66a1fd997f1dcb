# SPDX-License-Identifier: Apache-2.0
"""What ./demo does before it is the demo: find a Python, and make an environment of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from harness.leaks import is_alive, wait_until

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 200.0

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that nobody has run the demo in."""
    tree = tmp_path_factory.mktemp("clone")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "tests", "BUILD")
    shutil.copy2(ROOT / "demo", tree)
    for folder in ("demo_support", "packages"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=unwanted)
    return tree


def start(tree: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start ./demo as a user would, with nothing of the tests' Python."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [str(tree / "demo"), *arguments],
        env={**environment, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ./demo to its end."""
    with start(tree, *arguments, **variables) as demo:
        output, errors = demo.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess([], demo.returncode, output, errors)


def programs(demo: subprocess.Popen[str]) -> str:
    """The command lines of its children that still run."""
    words: list[str] = []
    for child in psutil.Process(demo.pid).children():
        try:
            words += child.cmdline()
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return " ".join(words)


def test_help_is_shown_without_installing_anything(tree: Path) -> None:
    done = run(tree, "--help")
    assert done.returncode == 0, done.stderr
    assert "--redis" in done.stdout
    assert "Exit code 0" in " ".join(done.stdout.split())
    assert not (tree / ".demo").exists()


def test_a_duration_that_is_none_is_refused_by_name(tree: Path) -> None:
    done = run(tree, "--seconds=soon")
    assert done.returncode == 2
    assert "--seconds" in done.stderr
    assert "'soon'" in done.stderr


def test_without_a_python_it_says_what_to_install(tree: Path, tmp_path: Path) -> None:
    for tool in ("sh", "dirname"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    done = run(tree, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr


@pytest.mark.slow
def test_without_a_package_index_it_says_so_and_where_pip_tells_more(tree: Path) -> None:
    done = run(
        tree,
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_RETRIES="0",
    )
    assert done.returncode == 1
    assert "ERROR: Could not find a version" in done.stderr
    assert "check the network" in done.stderr
    (log,) = (tree / ".demo").glob("env-*/pip.log")
    assert str(log) in done.stderr


@pytest.mark.slow
def test_an_installation_that_is_ended_takes_pip_with_it(tree: Path) -> None:
    with start(tree) as demo:
        wait_until(lambda: "install" in programs(demo), "pip installs", timeout=60)
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGTERM)
        _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert "Traceback" not in errors
    wait_until(lambda: not any(is_alive(child) for child in children), "pip ended")


@pytest.mark.slow
def test_a_fresh_clone_installs_once_and_then_only_runs(tree: Path) -> None:
    first = run(tree, "--seconds=0.5")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "The first run installs" in first.stdout
    assert "All went right" in first.stdout
    assert first.stderr == ""

    second = run(tree, "--seconds=0.5")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "install" not in second.stdout
