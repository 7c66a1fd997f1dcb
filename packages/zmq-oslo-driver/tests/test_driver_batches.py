# SPDX-License-Identifier: Apache-2.0
"""Batches are full, or as old as their timeout; nothing is left at the end."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

from zmq_oslo_driver.batches import Batcher


def test_a_full_batch_is_delivered_at_once() -> None:
    batches: queue.Queue[Sequence[int]] = queue.Queue()
    batcher = Batcher(batches.put, 3, 60.0)
    for number in range(6):
        batcher.put(number)
    assert [batches.get(timeout=5), batches.get(timeout=5)] == [[0, 1, 2], [3, 4, 5]]
    batcher.close()


def test_a_part_of_a_batch_is_delivered_its_timeout_after_the_first_item() -> None:
    batches: queue.Queue[Sequence[int]] = queue.Queue()
    batcher = Batcher(batches.put, 3, 0.3)
    batcher.put(1)
    started = time.monotonic()
    assert batches.get(timeout=5) == [1]
    assert 0.2 < time.monotonic() - started < 3
    batcher.close()


def test_closing_delivers_what_is_there_and_ends_the_thread() -> None:
    before = threading.active_count()
    batches: queue.Queue[Sequence[int]] = queue.Queue()
    batcher = Batcher(batches.put, 3, None)
    for number in range(5):
        batcher.put(number)
    batcher.close()
    assert [batches.get_nowait(), batches.get_nowait()] == [[0, 1, 2], [3, 4]]
    assert threading.active_count() == before


def test_a_receiver_that_raises_gets_the_next_batch() -> None:
    batches: queue.Queue[Sequence[int]] = queue.Queue()

    def deliver(batch: Sequence[int]) -> None:
        batches.put(batch)
        if batch == [1]:
            raise RuntimeError("not this one")

    batcher = Batcher(deliver, 1, None)
    batcher.put(1)
    batcher.put(2)
    assert [batches.get(timeout=5), batches.get(timeout=5)] == [[1], [2]]
    batcher.close()


def test_a_closed_one_takes_nothing_more() -> None:
    batches: queue.Queue[Sequence[int]] = queue.Queue()
    batcher = Batcher(batches.put, 3, None)
    assert batcher.put(1)
    batcher.close()
    assert not batcher.put(2)
    assert batches.get_nowait() == [1]
    assert batches.empty()
