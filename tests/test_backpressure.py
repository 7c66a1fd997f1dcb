# SPDX-License-Identifier: Apache-2.0
"""A server that is slower than those who send to it: F22."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.cloud import Cloud
from harness.journal import RUN, SUCCEEDED, read
from harness.leaks import peak_memory, wait_until
from harness.traffic import client

SIZE = 10_000
MEBIBYTE = 2**20


@pytest.mark.parametrize("road", ["direct", "routers"])
@pytest.mark.parametrize(
    ("casts", "workers", "threads", "patience"),
    # The latter: sixteen threads wait for a place each 2.5 ms, so a cast's turn comes too late.
    # About four thousand find room on the way.
    [(20_000, 64, 8, 60.0), (6_000, 8, 16, 0.02)],
    ids=["wait", "fail"],
)
def test_f22_casts_to_a_slow_server_are_slowed_down_in_little_memory_and_each_is_accounted_for(
    road: str,
    casts: int,
    workers: int,
    threads: int,
    patience: float,
    cloud: Cloud,
    tmp_path: Path,
) -> None:
    cloud.configure(use_router_proxy=road == "routers", use_pub_sub=False)
    if road == "routers":
        cloud.proxies(2)
    journals = [tmp_path / "slow.journal", tmp_path / "sender.journal"]
    slow = cloud.service("slow", journal=str(journals[0]), workers=workers)
    cloud.service("other", "elsewhere")
    elsewhere = client(cloud.transport(), server="other").prepare(topic="elsewhere")
    elsewhere.call({}, "echo", value=0)
    before = peak_memory(slow.pid)
    sender = cloud.caller(
        name="sender",
        journal=str(journals[1]),
        server="slow",
        threads=threads,
        patterns={"cast": 1},
        most=casts,
        size=SIZE,
        work=0.02,
        options={"zmq_send_timeout": patience},
    )
    first = sender.until(lambda report: report["answers"].get("cast", 0) > 100, "it sends")
    for value in range(300):
        assert elsewhere.call({}, "echo", value=value) == value
    report = sender.until(lambda report: report["done"], "all are sent", timeout=90)
    assert report["peak_memory"] - first["peak_memory"] < 100 * MEBIBYTE
    assert peak_memory(slow.pid) - before < 100 * MEBIBYTE
    assert {*report["failures"]} == (set() if patience > 1 else {"MessageDeliveryFailure"})
    assert report["answers"]["cast"] + sum(report["failures"].values()) == casts

    def number_run() -> int:
        return sum(1 for event in read(journals[:1]) if event.what == RUN)

    wait_until(lambda: number_run() >= report["answers"]["cast"], "all were executed", timeout=60)
    events = list(read(journals))
    run = Counter(event.message for event in events if event.what == RUN)
    assert {*run} == {event.message for event in events if event.what == SUCCEEDED}
    assert max(run.values()) == 1
    sender.stop()
