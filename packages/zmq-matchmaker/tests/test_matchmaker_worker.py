# SPDX-License-Identifier: Apache-2.0
"""The threads that ask independent servers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator

import pytest

from zmq_matchmaker.backends.redis._worker import Worker

Until = Callable[..., None]


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("worker")
    yield worker
    worker.close()


def test_work_is_done_in_its_order_and_its_errors_reach_who_waits(worker: Worker) -> None:
    done: list[int] = []
    futures = [worker.submit(functools.partial(done.append, number)) for number in range(9)]
    failing = worker.submit(lambda: 1 // 0)
    last = worker.submit(threading.get_ident)
    assert isinstance(failing.exception(5), ZeroDivisionError)
    assert last.result(5) != threading.get_ident()
    assert all(future.done() for future in futures)
    assert done == list(range(9))


def test_it_tells_when_it_hangs_and_ends_after_what_it_has_begun(
    worker: Worker, until: Until
) -> None:
    go_on = threading.Event()
    assert not worker.hangs(0.0)
    begun = worker.submit(lambda: go_on.wait(10))
    until(lambda: worker.hangs(0.01), "hangs")
    assert not worker.hangs(60.0)
    waiting = worker.submit(lambda: None)
    closers = [threading.Thread(target=worker.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    until(waiting.cancelled, "what has not begun never will")
    go_on.set()
    for closer in closers:
        closer.join()
    assert begun.result(5)
    assert not worker.hangs(0.0)


def test_closing_what_never_worked_is_harmless() -> None:
    before = threading.active_count()
    worker = Worker("idle")
    worker.close()
    worker.close()
    assert threading.active_count() == before
