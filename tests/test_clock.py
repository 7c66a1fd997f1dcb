# SPDX-License-Identifier: Apache-2.0
"""A wall clock that jumps an hour: F29."""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clock import COMPILER, WallClock
from harness.cloud import Cloud
from harness.services import CallerProcess
from zmq_matchmaker.testing import RedisServer

PACKAGES = Path(__file__).resolve().parent.parent / "packages"
HOUR = 3600
EXPIRE = 3

# Who may ask for the time of day, and what for.
ALLOWED = {
    "zmq_matchmaker/backends/_record_file.py": "records of other hosts; drafts of dead processes",
    "zmq_matchmaker/backends/dummy.py": "to show since when a record is there",
    "zmq_matchmaker/backends/folder.py": "what _record_file.py and those who look read",
    "zmq_matchmaker/backends/redis/_inspection.py": "`check` compares it with the server's",
    "zmq_matchmaker/cli/_format.py": "shown to people",
    "zmq_matchmaker/cli/_watching.py": "shown to people",
}


def asks_for_the_time_of_day(source: str) -> bool:
    """Whether a module uses a clock that can be set."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr="time" | "time_ns" | "localtime"):
                return True
            case ast.Attribute(attr="now" | "utcnow" | "fromtimestamp" | "today"):
                return True
            case ast.Attribute(attr="CLOCK_REALTIME"):
                return True
            case ast.ImportFrom(module="time", names=names):
                if any(alias.name in ("time", "time_ns", "localtime") for alias in names):
                    return True
    return False


def test_f29_only_what_is_shown_or_meant_for_other_hosts_comes_from_the_wall_clock() -> None:
    modules = [
        module
        for module in PACKAGES.glob("*/zmq_*/**/*.py")
        if "testing" not in module.parts and "egg-info" not in str(module)
    ]
    assert len(modules) > 50
    found = {
        "/".join(module.relative_to(PACKAGES).parts[1:])
        for module in modules
        if asks_for_the_time_of_day(module.read_text())
    }
    assert found == ALLOWED.keys()


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    if COMPILER is None:
        reason = "needs a C compiler: cc is missing"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return WallClock(tmp_path)


@pytest.fixture
def clocked_redis(clock: WallClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A Redis that runs by that clock."""
    with monkeypatch.context() as patch:
        for name, value in clock.environment.items():
            patch.setenv(name, value)
        server = RedisServer()
        server.__enter__()
    yield server
    server.__exit__(None, None, None)


def run_for(sender: CallerProcess, seconds: float) -> None:
    """Wait, and see that it goes on."""
    until = time.monotonic() + seconds
    sender.until(lambda report: report["time"] > until, "goes on")


def jump_and_return(cloud: Cloud, clock: WallClock, folder: Path) -> None:
    """The service's clock jumps ahead, back and behind; nobody who calls it notices."""
    journal = str(folder / "journal")
    cloud.configure(zmq_target_expire=EXPIRE, rpc_use_acks=True)
    service = cloud.service("one", journal=journal, prefix=clock.prefix)
    common: dict[str, Any] = {"journal": journal, "patterns": {"call": 1, "cast": 1}, "threads": 2}
    senders = [
        cloud.caller(name="beside", **common, prefix=clock.prefix),
        cloud.caller(name="elsewhere", **common),  # by the right clock
    ]
    for sender in senders:
        sender.until(lambda report: report["answers"].get("one", 0) > 20, "answers")
    for shift in (HOUR, -HOUR):
        clock.jump(shift)
        # Longer than records live that are not refreshed.
        run_for(senders[0], EXPIRE + 0.5)
    late = cloud.caller(name="late", **common)
    late.until(lambda report: report["answers"].get("one", 0) > 20, "the service is found")
    for sender in (*senders, late):
        report = sender.stop()
        assert report["failures"] == {}
        assert report["longest"] < 1.5
    assert "Traceback" not in service.errors


@pytest.mark.alone
def test_f29_a_clock_that_jumps_an_hour_expires_nothing_in_the_registry_of_a_host(
    cloud: Cloud, clock: WallClock, tmp_path: Path
) -> None:
    jump_and_return(cloud, clock, tmp_path)


@pytest.mark.alone
def test_f29_a_clock_that_jumps_an_hour_in_redis_too_costs_no_call(
    redis_cloud: Cloud, clocked_redis: RedisServer, clock: WallClock, tmp_path: Path
) -> None:
    redis_cloud.url = f"zmq+{clocked_redis.url}/x"
    jump_and_return(redis_cloud, clock, tmp_path)
    with clocked_redis.client() as admin:
        assert abs(int(admin.time()[0]) - (time.time() - HOUR)) < 60, "its clock had jumped"
