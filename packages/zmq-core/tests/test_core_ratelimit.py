# SPDX-License-Identifier: Apache-2.0
"""A log that a peer cannot flood, with a clock that the test turns."""

from __future__ import annotations

import logging

import pytest

from zmq_core import RateLimitedLog

LOG = logging.getLogger("test.ratelimit")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_same_key_is_logged_once_an_interval_with_the_number_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = RateLimitedLog(LOG, interval=10, clock=clock)
    for _ in range(5):
        log.warning("key", "it was %s", "bad")
    clock.now += 9.9
    log.warning("key", "it was %s", "bad")
    clock.now += 0.1
    log.warning("key", "it was %s", "worse")
    assert caplog.messages == [
        "it was bad",
        "it was worse (and 5 more like it since the last report)",
    ]


def test_different_keys_do_not_hide_each_other(caplog: pytest.LogCaptureFixture) -> None:
    log = RateLimitedLog(LOG, interval=10, clock=Clock())
    log.warning("one", "one")
    log.warning("other", "other")
    assert caplog.messages == ["one", "other"]


def test_no_number_of_keys_logs_without_bound(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RateLimitedLog(LOG, interval=10, clock=clock)
    for number in range(100_000):
        log.warning(number, "from %d", number)
    assert 0 < len(caplog.messages) <= 200
    caplog.clear()
    clock.now += 10
    log.warning("later", "seen again")
    (message,) = caplog.messages
    assert message.startswith("seen again (and ")
    assert "more" in message


def test_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log = RateLimitedLog(LOG)
    log.log(logging.ERROR, "key", "failed", error=ValueError("why"))
    assert "ValueError: why" in caplog.text
