# SPDX-License-Identifier: Apache-2.0
"""rpc_use_acks: what is lost on its way is sent again, and nothing is executed twice."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from oslo_messaging import MessageDeliveryFailure

from harness.cloud import Cloud
from harness.leaks import wait_until
from harness.traffic import Callers, client

PROXIED = {"use_router_proxy": True, "use_pub_sub": False, "rpc_use_acks": True}


class Numbers:
    """Texts that are told apart, and who has sent them."""

    def __init__(self, send: Callable[[str], object]) -> None:
        self._send = send
        self._next = itertools.count()
        self.begun = 0
        """All from this one on were not begun to be sent yet."""
        self.sent: list[str] = []

    def send(self) -> None:
        """Send the next one; those that fail do not count."""
        number = next(self._next)
        self.begun = max(self.begun, number + 1)
        text = str(number)
        self._send(text)
        self.sent.append(text)


def noted(transport: Any, name: str) -> list[str]:
    """What the service of that name has executed."""
    texts: list[str] = client(transport, server=name).call({}, "noted")
    return texts


@pytest.mark.parametrize("pattern", ["call", "cast"])
def test_with_acks_nothing_is_lost_with_a_proxy_that_is_killed_and_nothing_is_done_twice(
    pattern: str, cloud: Cloud
) -> None:
    cloud.configure(**PROXIED)
    proxies = cloud.proxies(3)
    cloud.service("one")
    transport = cloud.transport()
    caller = client(transport)
    method = getattr(caller, pattern)
    numbers = Numbers(lambda text: method({}, "note", text=text))
    with Callers(numbers.send) as callers:
        callers.more(200)
        proxies[0].kill()
        callers.more(500)
        proxies[1].kill()
        callers.more(500)
    assert callers.failures == []
    assert callers.longest_gap < 5
    wait_until(lambda: len(noted(transport, "one")) >= len(numbers.sent), "all came")
    assert Counter(noted(transport, "one")) == Counter(numbers.sent)


def test_a_cast_that_is_not_acknowledged_goes_to_another_server(any_cloud: Cloud) -> None:
    any_cloud.configure(rpc_use_acks=True, rpc_ack_timeout_base=0.5)
    stopped, _ = (any_cloud.service(name) for name in ("stopped", "living"))
    transport = any_cloud.transport()
    for name in ("stopped", "living"):
        client(transport, server=name).call({}, "noted")
    os.kill(stopped.pid, signal.SIGSTOP)
    caller = client(transport)
    began = time.monotonic()
    for number in range(4):
        caller.cast({}, "note", text=str(number))
    assert time.monotonic() - began < 5
    assert sorted(noted(transport, "living")) == ["0", "1", "2", "3"]
    os.kill(stopped.pid, signal.SIGCONT)
    late = noted(transport, "stopped")
    assert len(set(late)) == len(late), "each server has it once at the most"


def test_a_cast_that_nobody_acknowledges_fails_in_time_and_says_what_may_have_happened(
    cloud: Cloud,
) -> None:
    cloud.configure(rpc_use_acks=True, rpc_ack_timeout_base=0.2, rpc_retry_attempts=2)
    service = cloud.service("one")
    transport = cloud.transport()
    noted(transport, "one")
    os.kill(service.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(MessageDeliveryFailure, match="not acknowledged 3 times; it may have been"):
        client(transport).cast({}, "note", text="x")
    # 0.2 s, twice and four times that, and the pauses between.
    assert 1.4 < time.monotonic() - began < 5
    os.kill(service.pid, signal.SIGCONT)
    wait_until(lambda: noted(transport, "one") == ["x"], "executed once, however often it came")


def test_a_cast_is_acknowledged_when_it_is_queued_not_when_it_is_done(cloud: Cloud) -> None:
    cloud.configure(rpc_use_acks=True)
    cloud.service("one")
    caller = client(cloud.transport())
    caller.call({}, "noted")
    began = time.monotonic()
    caller.cast({}, "slow", seconds=5)
    assert time.monotonic() - began < 3


def test_the_server_of_acknowledged_casts_may_be_killed_and_none_is_lost(cloud: Cloud) -> None:
    cloud.configure(rpc_use_acks=True)
    first, _ = (cloud.service(name) for name in ("first", "second"))
    transport = cloud.transport()
    numbers = Numbers(lambda text: client(transport).cast({}, "note", text=text))
    with Callers(numbers.send, number=4) as callers:
        callers.more(200)
        first.kill()
        begun = numbers.begun
        callers.more(500)
    assert callers.failures == []
    executed = noted(transport, "second")
    assert len(set(executed)) == len(executed)
    # Of those before, the first took some along that it had acknowledged and not executed yet.
    assert {text for text in numbers.sent if int(text) >= begun} <= set(executed)
