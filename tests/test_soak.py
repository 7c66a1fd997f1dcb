# SPDX-License-Identifier: Apache-2.0
"""Mixed traffic while processes die, stand still and come back; see `harness.soak`."""

from __future__ import annotations

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
    plan = Plan(seconds=10, seed=4, servers=4, callers=4, proxies=2, options=options)
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


@pytest.mark.parametrize(
    ("trouble", "excused"),
    [
        (Trouble("kill", "server", "a", 101.0, 102.0), True),
        (Trouble("freeze", "proxy", "p", 90.0, 96.0), True),
        (Trouble("stop", "server", "a", 101.0, 102.0), False),
        (Trouble("kill", "redis", "redis", 101.0, 102.0), False),
        (Trouble("kill", "server", "a", 110.0, 111.0), False),
        (Trouble("kill", "server", "a", 80.0, 81.0), False),
    ],
)
def test_a_cast_may_be_lost_only_with_a_process(trouble: Trouble, excused: bool) -> None:
    account = Account(sent("cast"), [trouble], ALIVE)
    assert account.rows["cast"].excused == excused
    assert bool(account.faults) != excused
