# SPDX-License-Identifier: Apache-2.0
"""What is written when; the clock is a number."""

from __future__ import annotations

import math

from zmq_matchmaker import Key, Record, Role
from zmq_matchmaker._health import BackOff, Health
from zmq_matchmaker._registrations import Batch, Registrations

A, B, C = (
    (Key(Role.LISTENER, "x", topic), Record(endpoint=f"tcp://h:{port}"))
    for port, topic in enumerate("abc", 1)
)
UPDATE = 40.0


def make(jitter: float = 1.0) -> Registrations:
    return Registrations(UPDATE, jitter=lambda low, high: low + (high - low) * jitter)


def written(registrations: Registrations, now: float) -> Batch:
    batch = registrations.batch(now)
    assert batch is not None
    registrations.written(batch, now)
    return batch


def test_nothing_announced_is_nothing_to_do() -> None:
    registrations = make()
    assert registrations.due == math.inf
    assert registrations.batch(1e9) is None


def test_an_announcement_is_written_at_once_and_alone() -> None:
    registrations = make()
    registrations.announce([A], 0)
    written(registrations, 0)
    registrations.announce([B], 5)
    assert written(registrations, 5) == Batch((), (B,), everything=False)


def test_everything_is_written_together_once_per_update() -> None:
    registrations = make()
    registrations.announce([A], 0)
    written(registrations, 0)
    registrations.announce([B], 30)
    written(registrations, 30)
    assert registrations.due == UPDATE
    assert written(registrations, UPDATE) == Batch((), (A, B), everything=True, refresh=True)
    assert registrations.due == 2 * UPDATE


def test_updates_are_spread_but_never_late() -> None:
    dues = []
    for jitter in (0.0, 0.5, 1.0):
        registrations = make(jitter)
        registrations.announce([A], 0)
        written(registrations, 0)
        dues.append(registrations.due)
    assert dues == [0.9 * UPDATE, 0.95 * UPDATE, UPDATE]


def test_a_withdrawal_is_written_at_once_and_ends_the_updates() -> None:
    registrations = make()
    registrations.announce([A], 0)
    written(registrations, 0)
    registrations.withdraw([A], 1)
    assert written(registrations, 1) == Batch((A,), (), everything=False)
    assert registrations.due == math.inf


def test_withdrawing_what_was_not_announced_is_nothing_to_do() -> None:
    registrations = make()
    registrations.withdraw([A], 0)
    assert registrations.batch(0) is None


def test_an_entry_withdrawn_before_it_was_written_is_dropped_all_the_same() -> None:
    # It may be in a batch that is being written at this moment.
    registrations = make()
    registrations.announce([A], 0)
    batch = registrations.batch(0)
    assert batch is not None
    registrations.withdraw([A], 0)
    registrations.written(batch, 1)
    assert written(registrations, 1) == Batch((A,), (), everything=False)


def test_an_entry_announced_again_while_it_leaves_is_written_again() -> None:
    registrations = make()
    registrations.announce([A], 0)
    written(registrations, 0)
    registrations.withdraw([A], 1)
    leaving = registrations.batch(1)
    assert leaving == Batch((A,), (), everything=False)
    registrations.announce([A], 1)
    registrations.written(leaving, 2)
    assert written(registrations, 2).entries == (A,)
    assert registrations.unwritten == 0


def test_after_a_failure_everything_is_tried_again_when_the_pause_is_over() -> None:
    registrations = make()
    registrations.announce([A, B], 0)
    written(registrations, 0)
    registrations.announce([C], 1)
    registrations.withdraw([A], 1)
    registrations.failed(1, pause=3)
    assert registrations.unwritten == 1
    assert registrations.batch(3.9) is None
    assert written(registrations, 4) == Batch((A,), (B, C), everything=True)


def test_an_announcement_does_not_wait_for_the_pause_after_a_failure() -> None:
    registrations = make()
    registrations.announce([A], 0)
    registrations.failed(0, pause=5)
    registrations.announce([B], 1)
    batch = registrations.batch(1)
    assert batch is not None
    assert set(batch.entries) == {A, B}


def test_a_source_that_lost_everything_is_told_within_a_second() -> None:
    for jitter, due in ((0.0, 10.0), (1.0, 11.0)):
        registrations = make(jitter)
        registrations.announce([A, B], 0)
        written(registrations, 0)
        registrations.lost(10)
        assert registrations.due == due
        assert written(registrations, due) == Batch((), (A, B), everything=True)
        assert written(registrations, due + UPDATE).refresh


def test_what_is_not_written_yet_is_registered_with_the_refresh() -> None:
    registrations = make()
    registrations.announce([A], 0)
    written(registrations, 0)
    registrations.announce([B], UPDATE)
    assert written(registrations, UPDATE) == Batch((), (A, B), everything=True)


def test_the_sample_goes_round_and_never_is_one_that_was_not_written() -> None:
    registrations = make()
    assert registrations.sample() is None
    registrations.announce([A, B], 0)
    assert registrations.sample() is None
    written(registrations, 0)
    registrations.announce([C], 1)
    assert {registrations.sample() for _ in range(6)} == {A, B}


def test_farewell_names_all_that_may_be_known_of_us() -> None:
    registrations = make()
    registrations.announce([A, B], 0)
    written(registrations, 0)
    registrations.announce([C], 1)
    registrations.withdraw([A], 1)
    assert set(registrations.farewell()) == {A, B, C}
    assert registrations.due == math.inf


def test_pauses_grow_to_their_limit_and_begin_anew_after_success() -> None:
    back_off = BackOff(jitter=lambda low, high: high)
    pauses = [back_off.next() for _ in range(8)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    back_off.reset()
    assert back_off.next() == 0.2


def test_a_waiting_caller_has_the_source_tried_sooner_but_not_at_will() -> None:
    health = Health(jitter=lambda low, high: high)
    for _ in range(6):
        health.failed(100.0)
    assert (health.retry_at, health.impatient_at) == (105.0, 100.1)
    health.succeeded()
    assert health.works
    assert health.impatient_at == 0
