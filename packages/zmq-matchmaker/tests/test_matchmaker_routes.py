# SPDX-License-Identifier: Apache-2.0
"""What is believed of who listens where; the clock is a number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zmq_matchmaker import Found, Key, Record, Role, Standing
from zmq_matchmaker._routes import Route, RouteTable

KEY, OTHER = Key(Role.LISTENER, "x", "topic"), Key(Role.LISTENER, "x", "other")
A, B, C = (Record(endpoint=f"tcp://h:{port}") for port in (1, 2, 3))


INCOMPLETE = Found(complete=False)


def table(*records: Record) -> RouteTable:
    routes = RouteTable(first_pause=1.0, longest_pause=30.0)
    routes.update(KEY, Found.of(records), 0)
    return routes


def standings(record: Record, *, registered: float = 50.0, aside: float = 0.0) -> Found:
    """`record` and B, as the source has them."""
    one = Standing(record=record, registered=registered, aside=aside)
    return Found((one, Standing(record=B, registered=50.0)))


def route(routes: RouteTable, key: Key = KEY) -> Route:
    found = routes.get(key)
    assert found is not None
    return found


def usable(routes: RouteTable, now: float) -> tuple[Record, ...]:
    routes.fresh(route(routes), now)
    return route(routes).usable


def test_a_route_with_records_is_ready_and_one_without_is_not() -> None:
    assert route(table(A)).ready
    assert not route(table()).ready


def test_that_nobody_listens_is_believed_for_a_second() -> None:
    routes = table()
    assert routes.fresh(route(routes), 0.9)
    assert not routes.fresh(route(routes), 1.0)


def test_one_that_did_not_answer_is_left_alone_for_a_second() -> None:
    routes = table(A, B)
    routes.nack(KEY, A, 0, gone=False)
    assert usable(routes, 0.9) == (B,)
    assert usable(routes, 1.0) == (A, B)
    assert route(routes).ready


def test_the_time_doubles_up_to_its_limit() -> None:
    routes = table(A, B)
    now, pauses = 0.0, []
    for _ in range(7):
        routes.nack(KEY, A, now, gone=False)
        returns = route(routes).next_return
        assert returns is not None
        pauses.append(returns - now)
        now = returns
        routes.fresh(route(routes), now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_an_answer_brings_it_back_at_once_and_the_time_begins_anew() -> None:
    routes = table(A, B)
    routes.nack(KEY, A, 0, gone=False)
    routes.ack(KEY, A, 0.1)
    assert route(routes).usable == (A, B)
    routes.nack(KEY, A, 0.2, gone=False)
    assert route(routes).next_return == 1.2


def test_one_failure_that_many_threads_meet_counts_once() -> None:
    routes = table(A, B)
    for _ in range(10):
        routes.nack(KEY, A, 0, gone=False)
    assert route(routes).next_return == 1.0


def test_when_none_answers_all_are_worth_a_try() -> None:
    routes = table(A, B)
    routes.nack(KEY, A, 0, gone=False)
    routes.nack(KEY, B, 0, gone=False)
    assert route(routes).usable == (A, B)


def test_one_that_said_it_is_gone_is_not_tried_even_then() -> None:
    routes = table(A, B)
    routes.nack(KEY, A, 0, gone=True)
    routes.nack(KEY, B, 0, gone=False)
    assert route(routes).usable == (B,)
    routes.nack(KEY, B, 0, gone=True)
    assert route(routes).usable == ()


def test_messages_to_all_leave_out_only_those_that_said_they_are_gone() -> None:
    routes = table(A, B, C)
    routes.nack(KEY, A, 0, gone=False)
    routes.nack(KEY, B, 0, gone=True)
    assert route(routes).everybody(0.5) == (C, A)
    assert route(routes).everybody(1.0) == (C, A, B)


def test_messages_to_all_do_not_look_at_each_record_while_none_is_set_aside() -> None:
    routes = table(A, B)
    assert route(routes).everybody(0) is route(routes).usable
    assert route(routes).everybody(0) == (A, B)


def test_a_stale_record_is_not_believed_because_the_source_repeats_it() -> None:
    routes = table(A)
    routes.nack(KEY, A, 0, gone=True)
    routes.update(KEY, Found.of([A]), 0.5)
    assert usable(routes, 0.9) == ()
    assert usable(routes, 1.0) == (A,)


def test_a_process_that_registers_anew_is_used_at_once() -> None:
    routes = table(A)
    routes.nack(KEY, A, 0, gone=True)
    routes.update(KEY, Found.of([A, B]), 0.1)
    assert route(routes).usable == (B,)


def test_own_listeners_are_seen_before_the_source_tells() -> None:
    routes = table(A)
    routes.add(KEY, B, 0)
    assert route(routes).usable == (A, B)
    routes.remove(KEY, B, 0)
    assert route(routes).usable == (A,)


def test_an_own_listener_does_not_pass_for_the_only_one() -> None:
    routes = table(A)
    routes.add(OTHER, B, 0)
    assert routes.get(OTHER) is None


def test_what_an_emptied_source_lost_is_kept_while_it_answers() -> None:
    routes = table(A, B)
    routes.update(KEY, INCOMPLETE, 5)
    assert route(routes).usable == (A, B)
    assert route(routes).ready
    routes.update(KEY, Found((Standing(record=C),), complete=False), 14.9)
    assert route(routes).usable == (A, B, C)
    routes.update(KEY, Found.of([C]), 15)
    assert route(routes).usable == (C,)


def test_what_a_source_that_is_back_lacks_is_kept_until_all_have_registered_again() -> None:
    routes = table(A, B)
    routes.source_is_back(100)
    routes.update(KEY, Found.of([C]), 100)
    assert route(routes).usable == (A, B, C)
    routes.update(KEY, Found((Standing(record=C),), gone=frozenset([A])), 101)
    assert route(routes).usable == (B, C)
    routes.update(KEY, Found.of([C]), 114.9)
    assert route(routes).usable == (B, C)
    routes.update(KEY, Found.of([C]), 115)
    assert route(routes).usable == (C,)


def test_what_an_emptied_source_lost_is_dropped_at_its_first_failure() -> None:
    routes = table(A, B)
    routes.update(KEY, INCOMPLETE, 5)
    routes.nack(KEY, A, 6, gone=False)
    assert route(routes).usable == (B,)
    routes.update(KEY, INCOMPLETE, 6)
    routes.nack(KEY, B, 6, gone=False)
    assert route(routes).usable == ()
    assert not routes.fresh(route(routes), 7)


def test_what_an_emptied_source_lost_while_it_did_not_answer_is_not_kept() -> None:
    routes = table(A, B)
    routes.nack(KEY, A, 4, gone=False)
    routes.update(KEY, INCOMPLETE, 5)
    assert route(routes).usable == (B,)


def test_one_that_left_an_emptied_source_by_itself_is_not_kept() -> None:
    routes = table(A, B)
    routes.update(KEY, Found(gone=frozenset([A]), complete=False), 5)
    assert route(routes).usable == (B,)


def test_what_is_there_again_is_set_aside_like_any_other() -> None:
    routes = table(A, B)
    routes.update(KEY, INCOMPLETE, 5)
    routes.update(KEY, Found((Standing(record=B),), complete=False), 6)
    routes.nack(KEY, B, 7, gone=False)
    assert route(routes).records == (A, B)
    assert route(routes).usable == (A,)


def test_what_a_complete_source_no_longer_has_is_not_kept() -> None:
    routes = table(A, B)
    routes.update(KEY, Found.of([B]), 1)
    assert route(routes).usable == (B,)


def test_what_another_process_met_sets_a_record_aside_here() -> None:
    routes = table(A, B)
    routes.update(KEY, standings(A, aside=4), 0)
    assert usable(routes, 3.9) == (B,)
    assert usable(routes, 4.0) == (A, B)


def test_what_another_process_met_ends_when_it_is_answered_there_or_here() -> None:
    routes = table(A, B)
    routes.update(KEY, standings(A, aside=4), 0)
    routes.update(KEY, standings(A, aside=0), 1)
    assert route(routes).usable == (A, B)
    routes.update(KEY, standings(A, aside=4), 2)
    assert routes.ack(KEY, A, 2)
    assert route(routes).usable == (A, B)


def test_what_one_met_itself_is_not_ended_by_what_others_say() -> None:
    routes = table(A, B)
    assert routes.nack(KEY, A, 0, gone=False) == 1.0
    routes.update(KEY, standings(A, aside=20), 0)
    routes.update(KEY, standings(A, aside=0), 0.5)
    assert usable(routes, 0.9) == (B,)
    assert usable(routes, 1.0) == (A, B)


def test_one_that_has_registered_and_is_gone_is_not_tried_again_soon() -> None:
    routes = table(A)
    routes.update(KEY, standings(A, registered=100.0), 0)
    assert routes.nack(KEY, A, 0, gone=True) == 30.0
    routes.update(KEY, standings(A, registered=100.0), 29)
    assert usable(routes, 29.9) == (B,)
    assert usable(routes, 30) == (A, B)


def test_one_that_did_not_answer_and_then_is_gone_is_not_tried_again_soon() -> None:
    routes = table(A, B)
    routes.update(KEY, standings(A, registered=100.0), 0)
    assert routes.nack(KEY, A, 0, gone=False) == 1.0
    assert routes.nack(KEY, A, 0.5, gone=True) == 30.0
    assert routes.nack(KEY, A, 0.6, gone=True) == 0.0
    assert usable(routes, 30.4) == (B,)


def test_one_that_registers_anew_is_back_at_once() -> None:
    routes = table(A, B)
    routes.update(KEY, standings(A, registered=100.0), 0)
    routes.nack(KEY, A, 0, gone=True)
    routes.update(KEY, standings(A, registered=100.0), 0.1)
    assert usable(routes, 0.2) == (B,)
    routes.update(KEY, standings(A, registered=107.5), 0.3)
    assert usable(routes, 0.3) == (A, B)


def test_only_keys_in_use_are_read_again() -> None:
    routes = table(A)
    routes.update(OTHER, Found.of([B]), 0)
    routes.tick([KEY, OTHER])
    assert routes.in_use() == []
    route(routes).used = True
    assert routes.in_use() == [KEY]


def test_a_route_that_was_not_read_is_used_but_not_relied_on() -> None:
    routes = table(A)
    routes.tick([KEY])
    routes.tick([])
    assert not route(routes).ready
    assert routes.fresh(route(routes), 100)
    routes.update(KEY, Found.of([A]), 100)
    assert route(routes).ready


def test_a_route_that_nobody_uses_is_forgotten_after_ten_ticks() -> None:
    routes = table(A)
    routes.tick([KEY])
    for _ in range(9):
        routes.tick([])
    assert len(routes) == 1
    routes.tick([])
    assert len(routes) == 0


def test_a_source_that_lost_track_makes_every_route_stale() -> None:
    routes = table(A)
    routes.distrust()
    assert not route(routes).ready
    assert route(routes).usable == (A,)


actions = st.lists(
    st.tuples(
        st.sampled_from(["update", "nack", "gone", "ack", "add", "remove", "tick", "distrust"]),
        st.sampled_from([A, B, C]),
        st.lists(st.sampled_from([A, B, C]), unique=True),
        st.floats(0, 5),
    ),
    max_size=30,
)


@given(actions, st.booleans())
def test_whatever_happens_usable_records_are_known_ones_and_ready_means_usable(
    steps: list[tuple[str, Record, list[Record], float]], complete: bool
) -> None:
    routes = table(A)
    now = 0.0
    for action, record, records, pause in steps:
        now += pause
        if action == "update":
            standing = tuple(Standing(record=r, aside=pause) for r in sorted(records))
            routes.update(KEY, Found(standing, complete=complete), now)
        elif action in ("nack", "gone"):
            routes.nack(KEY, record, now, gone=action == "gone")
        elif action == "ack":
            routes.ack(KEY, record, now)
        elif action == "add":
            routes.add(KEY, record, now)
        elif action == "remove":
            routes.remove(KEY, record, now)
        elif action == "tick":
            routes.tick(routes.in_use())
        else:
            routes.distrust()
        found = routes.get(KEY)
        if found is not None:
            assert set(found.usable) <= set(found.records)
            assert not found.ready or (found.usable and not found.stale)
            assert not found.ready or set(found.usable) == set(found.records)
