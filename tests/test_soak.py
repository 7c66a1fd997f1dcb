# SPDX-License-Identifier: Apache-2.0
"""Mixed traffic while processes die, stand still and come back; see `harness.soak`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.account import Account, Life, Trouble
from harness.journal import BEGUN, FAILED, RUN, SUCCEEDED, Event
from harness.soak import Plan, Soak


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options",
    [{}, {"use_router_proxy": True, "rpc_use_acks": True}],
    ids=["publishers", "routers with acks"],
)
def test_no_message_is_unaccounted_for(options: dict[str, Any], tmp_path: Path) -> None:
    plan = Plan(
        seconds=10, seed=4, servers=4, callers=4, proxies=2, calm=(0.5, 2.0), options=options
    )
    with Soak(plan, tmp_path) as soak:
        account = soak.run()
    assert account.faults == []
    assert set(account.rows) == {"call", "cast", "fanout", "notify"}
    assert all(row.succeeded > 50 for row in account.rows.values()), account.table()
    assert soak.troubles


def sent(pattern: str, how: str = SUCCEEDED, by: str = "") -> list[Event]:
    """A message `m` that is sent at 100."""
    return [Event(100.0, BEGUN, pattern, "m", ""), Event(100.1, how, pattern, "m", by)]


def run(pattern: str, *by: str) -> list[Event]:
    """`m` is executed by them."""
    return [Event(100.05, RUN, pattern, "m", one) for one in by]


ALIVE = [Life("a", 0.0, 1000.0), Life("b", 0.0, 1000.0)]
NEW = Life("new", 99.0, 1000.0)
DYING = Life("dying", 0.0, 101.0)


@pytest.mark.parametrize("pattern", ["call", "cast", "notify"])
def test_what_was_executed_once_is_in_order(pattern: str) -> None:
    assert Account(sent(pattern) + run(pattern, "a"), [], ALIVE).faults == []


def test_a_fanout_is_for_all_who_are_there_for_long_enough() -> None:
    lives = [*ALIVE, NEW, DYING]
    for by in (["a", "b"], ["a", "b", "new", "dying"]):
        assert Account(sent("fanout") + run("fanout", *by), [], lives).faults == []
    assert Account(sent("fanout") + run("fanout", "a"), [], lives).faults != []


@pytest.mark.parametrize(
    "events",
    [
        sent("call"),
        sent("cast"),
        sent("notify"),
        sent("cast")[:1],
        run("cast", "a"),
        sent("call") + run("call", "a", "a"),
        sent("cast") + run("cast", "a", "b"),
        sent("fanout") + run("fanout", "a", "b", "b"),
        sent("cast", FAILED, "MessageDeliveryFailure: no") + run("cast", "a"),
    ],
    ids=lambda events: " ".join(f"{event.pattern}:{event.what}" for event in events),
)
def test_what_is_not_as_promised_is_a_fault(events: list[Event]) -> None:
    assert len(Account(events, [], ALIVE).faults) == 1


def test_what_may_have_been_executed_is_in_order_either_way() -> None:
    lost = sent("call", FAILED, "ServerLost: gone")
    for events in (lost, lost + run("call", "a")):
        account = Account(events, [], ALIVE)
        assert account.faults == []
        assert account.rows["call"].failed == {"ServerLost": 1}


KILLED = Trouble("kill", "server", "a", 101.0, 104.0)
FROZEN = Trouble("freeze", "server", "a", 96.0, 102.0)
PROXY_KILLED = Trouble("kill", "proxy", "proxy-0", 101.0, 104.0)


def later(trouble: Trouble, seconds: float) -> Trouble:
    """The same, but so much later."""
    return replace(trouble, began=trouble.began + seconds, ended=trouble.ended + seconds)


@pytest.mark.parametrize(
    ("trouble", "excused"),
    [
        (KILLED, True),
        (later(KILLED, -2.5), False),  # everybody knows that it is gone
        (later(KILLED, 2.5), False),  # it would have executed it long ago
        (FROZEN, True),
        (later(FROZEN, -1.5), False),  # nobody sends to it any more
        (later(FROZEN, -3.0), True),  # it connects again
        (later(FROZEN, -6.0), False),
        (replace(KILLED, kind="stop"), False),
        (Trouble("kill", "redis", "redis", 101.0, 102.0), False),
        (PROXY_KILLED, False),  # casts go directly
    ],
)
def test_a_cast_may_be_lost_only_with_a_process(trouble: Trouble, excused: bool) -> None:
    account = Account(sent("cast"), [trouble], ALIVE)
    assert account.rows["cast"].excused == excused
    assert bool(account.faults) != excused


def test_a_cast_through_routers_may_be_lost_with_one() -> None:
    assert Account(sent("cast"), [PROXY_KILLED], ALIVE, routed=True).faults == []


@pytest.mark.parametrize(
    ("pattern", "by", "trouble", "fault"),
    [
        ("cast", "ab", FROZEN, False),
        ("cast", "ab", KILLED, False),
        ("cast", "ab", later(KILLED, 2.5), True),
        ("cast", "ab", replace(FROZEN, kind="stop"), True),
        ("cast", "ab", PROXY_KILLED, True),
        ("cast", "aba", FROZEN, True),
        ("cast", "bc", FROZEN, True),
        ("call", "ab", FROZEN, True),
        ("notify", "ab", FROZEN, True),
    ],
)
def test_only_a_cast_with_acks_may_be_executed_by_another_server_too_if_one_was_hurt(
    pattern: str, by: str, trouble: Trouble, fault: bool
) -> None:
    events = sent(pattern) + run(pattern, *by)
    account = Account(events, [trouble], ALIVE, acknowledged=True)
    assert bool(account.faults) == fault
    assert account.rows[pattern].repeated == (not fault)
    assert Account(events, [trouble], ALIVE).faults


@pytest.mark.parametrize(
    ("trouble", "excused"),
    [(FROZEN, True), (replace(FROZEN, name="b"), False), (PROXY_KILLED, True)],
)
def test_a_copy_of_a_fanout_may_be_lost_with_its_listener_or_a_publisher(
    trouble: Trouble, excused: bool
) -> None:
    account = Account(sent("fanout") + run("fanout", "b"), [trouble], ALIVE)  # not by a
    assert bool(account.faults) != excused


def test_the_times_in_which_losses_are_excused_are_added_up_once() -> None:
    account = Account([], [KILLED, later(KILLED, 1.0), later(KILLED, 50.0), PROXY_KILLED], ALIVE)
    assert account.excusing("cast") == pytest.approx(4.0 + 3.0)
    assert account.excusing("fanout") == pytest.approx(3.0)
    assert account.excusing("fanout", "a") == pytest.approx(4.0 + 3.0)
