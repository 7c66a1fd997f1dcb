# SPDX-License-Identifier: Apache-2.0
"""Which server is next, and which ones a sender prefers."""

from __future__ import annotations

from collections import Counter

import pytest

from zmq_matchmaker import Key, Record, Role
from zmq_oslo_driver.turns import Turns

KEY = Key(Role.LISTENER, "", "topic")
SENDERS = [f"host-{number}/1/oslo/abc" for number in range(500)]


def records(number: int, members: int = 1) -> tuple[Record, ...]:
    return tuple(
        Record(endpoint=f"tcp://10.0.0.{host}:49153", member=str(member))
        for host in range(number)
        for member in range(members)
    )


def first(turns: Turns, found: tuple[Record, ...], times: int) -> Counter[str]:
    return Counter(turns.order(KEY, found)[0].endpoint for _ in range(times))


def test_each_record_has_its_turn() -> None:
    found = records(4)
    assert set(first(Turns(), found, 40).values()) == {10}


def test_all_records_are_given_out_whoever_is_preferred() -> None:
    found = records(6)
    turns = Turns("me", servers=2)
    for _ in range(10):
        assert sorted(turns.order(KEY, found)) == list(found)


@pytest.mark.parametrize("servers", [1, 3])
def test_a_sender_prefers_so_many_servers_and_these_in_turn(servers: int) -> None:
    turns = Turns("me", servers)
    preferred = first(turns, records(20), 30)
    assert set(preferred.values()) == {30 // servers}
    tried = [record.endpoint for record in turns.order(KEY, records(20))[:servers]]
    assert set(tried) == set(preferred), "the others come after all of them"


def test_servers_of_one_process_count_as_one_and_have_their_turns() -> None:
    turns = Turns("me", servers=2)
    preferred = Counter(turns.order(KEY, records(5, members=3))[0] for _ in range(60))
    assert len({record.endpoint for record in preferred}) == 2
    assert set(preferred.values()) == {10}


def test_where_there_are_no_more_servers_than_that_all_are_used() -> None:
    assert len(first(Turns("me", servers=5), records(3), 30)) == 3


def test_all_senders_together_use_all_servers_alike() -> None:
    found = records(10)
    used: Counter[str] = Counter()
    for name in SENDERS:
        used.update(first(Turns(name, servers=3), found, 3).keys())
    assert sum(used.values()) == 3 * len(SENDERS)
    assert min(used.values()) > 0.7 * max(used.values())


def test_a_server_that_leaves_is_replaced_for_those_only_who_used_it() -> None:
    found = records(10)
    for name in SENDERS[:50]:
        turns = Turns(name, servers=3)
        before = set(first(turns, found, 3))
        for gone in found:
            after = set(first(turns, tuple(r for r in found if r is not gone), 3))
            assert len(before & after) == (2 if gone.endpoint in before else 3)
        assert set(first(turns, found, 3)) == before, "and used again when it is back"
