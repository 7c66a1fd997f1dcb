# SPDX-License-Identifier: Apache-2.0
"""Which returned message is tried next, and when."""

from __future__ import annotations

import math

from zmq_core import Envelope, MessageType, TargetKey
from zmq_oslo_driver.lines import Lines, Returned


def message(topic: str, deadline: float = 100.0) -> Returned:
    key = TargetKey("", topic).encoded
    envelope = Envelope(type=MessageType.CAST, id=bytes(16), key=key)
    return Returned("tcp://127.0.0.1:9", envelope, deadline)


def test_nothing_is_due_when_there_is_nothing() -> None:
    assert Lines(10).due == math.inf


def test_messages_of_one_address_keep_their_order() -> None:
    lines = Lines(10)
    one, two = message("t"), message("t")
    assert lines.add(one, 0.0)
    assert lines.add(two, 0.0)
    assert lines.first() is one
    lines.done(one)
    assert lines.first() is two
    lines.done(two)
    assert len(lines) == 0


def test_a_line_that_found_nobody_lets_the_others_go_first() -> None:
    lines = Lines(10)
    dead, alive = message("dead"), message("alive")
    lines.add(dead, 0.0)
    lines.add(alive, 0.0)
    assert lines.postpone(dead, 0.0)
    assert lines.due == 0.0
    assert lines.first() is alive
    lines.done(alive)
    assert lines.first() is dead
    assert lines.due > 0.0


def test_the_pause_doubles_up_to_a_second_and_ends_with_the_time_of_the_message() -> None:
    lines = Lines(10)
    dead = message("dead", deadline=4.0)
    lines.add(dead, 0.0)
    now, pauses = 0.0, []
    while lines.postpone(dead, now):
        pauses.append(round(lines.due - now, 3))
        now = lines.due
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert now == 4.0


def test_there_is_a_limit_for_all_lines_together() -> None:
    lines = Lines(2)
    assert lines.add(message("one"), 0.0)
    assert lines.add(message("two"), 0.0)
    assert not lines.add(message("three"), 0.0)
    lines.done(lines.first())
    assert lines.add(message("three"), 0.0)
