# SPDX-License-Identifier: Apache-2.0
"""What `cleanup()` does to those who are still at it, and what a fork leaves to the child."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import oslo_messaging
import pytest
from harness.leaks import wait_until
from oslo_messaging import Target

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
