# SPDX-License-Identifier: Apache-2.0
"""What happens once, and who waits for it."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from zmq_core import Latch


def test_all_who_wait_are_let_go_of_and_nobody_waits_after() -> None:
    latch = Latch()
    outcomes: list[bool] = []
    threads = [threading.Thread(target=lambda: outcomes.append(latch.wait())) for _ in range(5)]
    for thread in threads:
        thread.start()
    latch.set()
    latch.set()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 5
    assert latch.is_set()
    assert latch.wait(0.0)
    assert latch.wait()


def test_a_wait_ends_with_its_time_and_takes_its_lock_along() -> None:
    latch = Latch()
    began = time.monotonic()
    assert not latch.wait(0.1)
    assert time.monotonic() - began >= 0.1
    assert not latch.wait(-1.0)
    assert not latch.is_set()
    latch.set()
    assert latch.wait(float("inf"))


class Interrupt(BaseException):
    """What a signal handler raises in the waiting thread, as Ctrl-C does."""


@pytest.mark.parametrize("seed", range(5))
def test_a_handler_that_raises_anywhere_in_a_wait_leaves_the_latch_usable(
    until: Callable[..., None], seed: int
) -> None:
    # With a threading.Event in its place, one of 150 stayed locked.
    chance = random.Random(seed)

    def interrupt(*_: object) -> None:
        raise Interrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    latches = []
    try:
        for _ in range(2000):
            latches.append(Latch())
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 1e-4))
                while True:
                    latches[-1].wait(chance.choice((0.0, 1e-5)))
            except Interrupt:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

    def set_all() -> None:
        for latch in latches:
            latch.set()

    thread = threading.Thread(target=set_all, daemon=True)
    thread.start()
    until(lambda: not thread.is_alive())
    assert all(latch.wait() for latch in latches)
