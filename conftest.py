# SPDX-License-Identifier: Apache-2.0
"""What every test needs of its surroundings, under Pants and in a plain virtual environment."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

_ROOT = Path(__file__).resolve().parent


def _let_children_find_our_code() -> None:
    """Make ``sys.executable -m zmq_proxy`` work in a child, whatever folder it runs in.

    Pants tells only the test's own process, by relative paths on its ``sys.path``, where our
    packages are. A child starts from ``sys.executable`` and knows nothing of that.
    """
    sys.path[:] = [os.path.abspath(entry) if entry else entry for entry in sys.path]
    ours = [entry for entry in sys.path if entry and _ROOT in (Path(entry), *Path(entry).parents)]
    libraries = [entry for entry in ours if "site-packages" not in entry and ".venv" not in entry]
    already = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*libraries, *already]))


def _keep_stevedore_from_remembering() -> None:
    """Give tests a cache folder of their own, in which stevedore keeps no entry points.

    It keys them by the names and times of the folders on ``sys.path``, so that an entry point
    added to an editable install is not seen, and each of Pants' sandboxes would leave a file in
    the user's cache.
    """
    folder = tempfile.mkdtemp(prefix="test-cache-")
    plugins = Path(folder, "python-entrypoints")
    plugins.mkdir()
    (plugins / ".disable").touch()
    os.environ.setdefault("PIP_CACHE_DIR", str(_user_cache() / "pip"))
    os.environ["XDG_CACHE_HOME"] = folder
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, owner: int) -> None:
    """Leave nothing in the folder for temporary files; a forked child's end is not ours."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@contextmanager
def _in_the_room(*, alone: bool) -> Iterator[None]:
    """Run together with the tests of other processes, or wait until there are none.

    Who waits to be alone stands in the door, so that nobody else comes in meanwhile.  The
    locks are the kernel's: a run that was killed leaves none behind.
    """
    with _ROOM.with_suffix(".door").open("w") as door, _ROOM.with_suffix(".room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # what a test has forked may hold the file, too


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let nothing else run beside a test that is marked `alone`.

    Around everything else, so that the wait counts for no test's time.
    """
    with _in_the_room(alone=item.get_closest_marker("alone") is not None):
        return (yield)


_ROOM = _user_cache() / "zmq-monorepo" / "tests"
_ROOM.parent.mkdir(parents=True, exist_ok=True)
# No example is about time; one during which the machine had other work is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
_let_children_find_our_code()
_keep_stevedore_from_remembering()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `root` where it cannot run; CI must be able to run all."""
    if item.get_closest_marker("root") is None:
        return
    missing = [f"{tool} (iproute2)" for tool in ("ip", "tc") if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.insert(0, "the rights of root")
    if missing:
        reason = f"needs root: {', '.join(missing)} missing"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
