# SPDX-License-Identifier: Apache-2.0
"""What `cleanup()` does to those who are still at it, and what a fork leaves to the child."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import oslo_messaging
import pytest
from oslo_messaging import Target

from harness.leaks import wait_until
from harness.services import Service
from harness.traffic import client
from zmq_oslo_driver import runtime as runtimes
from zmq_oslo_driver.errors import CleanedUp

MakeTransport = Callable[..., Any]


@pytest.mark.parametrize("send", ["call", "cast"])
def test_cleanup_releases_those_who_wait_for_somebody_to_listen(
    send: str, file_url: str, make_transport: MakeTransport
) -> None:
    transport = make_transport(file_url)
    caller = oslo_messaging.get_rpc_client(transport, Target(topic="nobody"), timeout=20)
    directory = transport._driver._use().directory
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(getattr(caller, send), {}, "go") for _ in range(4)]
        wait_until(lambda: directory.statistics.cold_lookups > 0, "they have looked")
        started = time.monotonic()
        transport.cleanup()
        for caught in waiting:
            with pytest.raises(CleanedUp, match="cleaned up"):
                caught.result(timeout=30)
    assert time.monotonic() - started < 3


def in_child(work: Callable[[], bool]) -> bool:
    """What `work` returns in a forked child; false if it raises or takes too long."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def test_a_child_can_clean_up_what_another_thread_of_its_parent_was_at(
    file_url: str, make_transport: MakeTransport
) -> None:
    transport = make_transport(file_url)
    transport._driver._use()

    def clean_up() -> bool:
        transport.cleanup()
        return True

    with transport._driver._lock:  # as a thread would that uses it for the first time
        assert in_child(clean_up)


def test_threads_that_use_a_transport_first_in_a_child_share_one_runtime(
    file_url: str, make_transport: MakeTransport
) -> None:
    transport = make_transport(file_url)
    transport._driver._use()

    def use_at_once() -> bool:
        sys.setswitchinterval(1e-6)
        together = threading.Barrier(8)

        def use(_: int) -> runtimes.Runtime:
            together.wait()
            found: runtimes.Runtime = transport._driver._use()
            return found

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(use, range(8)))
        transport.cleanup()
        return len(set(found)) == 1 and not found[0].users and not runtimes._runtimes

    for _ in range(10):
        assert in_child(use_at_once)


@pytest.mark.parametrize("eventlet", [False, True], ids=["native threads", "eventlet"])
def test_a_service_that_ends_without_waiting_still_gets_its_work_done(
    eventlet: bool,
    url: str,
    make_transport: MakeTransport,
    make_service: Callable[..., Service],
) -> None:
    """oslo.messaging's workers are waited for at exit; what they send then must get out."""
    other = make_service(url, ("", "others", "two"))
    hasty = make_service(
        url, ("", "work", "one"), hasty=True, eventlet=eventlet, executor="threading"
    )
    caller = client(make_transport(url), timeout=20)
    with ThreadPoolExecutor(2) as threads:
        work: dict[str, Any] = {"topic": "others", "text": "done", "seconds": 1.5}
        sending = threads.submit(caller.call, {}, "fan_out", **work)
        answer = threads.submit(caller.call, {}, "slow", seconds=1.5)
        wait_until(lambda: caller.call({}, "begun") == 2, "both are at work")
        hasty.stop()
        assert answer.result(timeout=20) == "one"
        sending.result(timeout=20)
    assert other.stop()["noted"] == 1
