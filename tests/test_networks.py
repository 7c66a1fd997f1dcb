# SPDX-License-Identifier: Apache-2.0
"""Servers that stand still or cannot be reached for a while, and come back."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.cloud import Cloud
from harness.journal import BEGUN, FAILED, RUN, SUCCEEDED, read
from harness.network import Network
from harness.services import CallerProcess, Service
from harness.traffic import at_once

NAMES = ("one", "two")
THREADS = 8


class Stage:
    """Two servers and a caller, each on a host of its own."""

    def __init__(self, cloud: Cloud, network: Network, folder: Path) -> None:
        self.network = network
        self._journals = {name: folder / f"{name}.journal" for name in (*NAMES, "client")}
        self.servers: dict[str, Service] = {
            name: cloud.service(
                name,
                journal=str(self._journals[name]),
                prefix=network.on(name),
                options={"rpc_zmq_bind_address": network.address(name)},
            )
            for name in NAMES
        }
        self.client: CallerProcess = cloud.caller(
            name="client",
            journal=str(self._journals["client"]),
            prefix=network.on("client"),
            threads=THREADS,
            timeout=60,
            options={"rpc_zmq_bind_address": network.address("client")},
        )

    def both_answer(self) -> dict[str, Any]:
        """Wait until each of the servers has answered a hundred more."""
        before = self.client.until(lambda report: True, "a report")["answers"]
        return self.client.until(
            lambda report: all(
                report["answers"].get(name, 0) > before.get(name, 0) + 100 for name in NAMES
            ),
            "both servers answer",
        )

    def check(self) -> None:
        """End the caller; each call was executed once at the most, and if it succeeded, once."""
        report = self.client.stop()
        assert report["longest_gap"] < 4 + 1, "at the worst all threads wait for the silent server"
        assert sum(report["failures"].values()) <= THREADS, report["failures"]
        assert {*report["failures"]} <= {"ServerLost"}
        assert report["longest"] < 4 + 1, "a caller learns it within the heartbeat"
        events = list(read(self._journals.values()))
        run = Counter(event.message for event in events if event.what == RUN)
        assert max(run.values()) == 1, "nothing was executed twice"
        answered = {event.message for event in events if event.what == SUCCEEDED}
        assert answered <= {*run}
        begun = {event.message for event in events if event.what == BEGUN}
        failed = {event.message for event in events if event.what == FAILED}
        assert begun == answered | failed


@pytest.fixture(params=["direct", "routers", "publishers"])
def stage(request: pytest.FixtureRequest, cloud: Cloud, tmp_path: Path) -> Iterator[Stage]:
    road = request.param
    proxies = () if road == "direct" else ("proxy-1", "proxy-2")
    cloud.configure(use_router_proxy=road == "routers", use_pub_sub=road == "publishers")
    with Network([*NAMES, "client", *proxies]) as network:
        at_once(
            functools.partial(
                cloud.proxy,
                prefix=network.on(name),
                host=network.address(name),
                role=road.removesuffix("s"),
            )
            for name in proxies
        )
        made = Stage(cloud, network, tmp_path)
        yield made
        for process in (made.client, *made.servers.values()):
            process.__exit__(None, None, None)


@contextmanager
def stopped(stage: Stage) -> Iterator[None]:
    pid = stage.servers["one"].pid
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


@contextmanager
def cut_off(stage: Stage) -> Iterator[None]:
    stage.network.cut("one")
    yield
    stage.network.heal("one")


@pytest.mark.root
@pytest.mark.parametrize("trouble", [stopped, cut_off])
def test_f04_f18_a_server_that_falls_silent_is_left_and_used_again_when_it_is_back(
    stage: Stage, trouble: Callable[[Stage], Any]
) -> None:
    stage.both_answer()
    with trouble(stage):
        before = stage.client.until(lambda report: True, "a report")["answers"]["two"]
        stage.client.until(
            lambda report: report["failures"] and report["answers"]["two"] > before + 2000,
            "traffic moves on",
        )
    stage.both_answer()
    stage.check()
