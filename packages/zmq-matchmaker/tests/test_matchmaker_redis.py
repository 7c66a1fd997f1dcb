# SPDX-License-Identifier: Apache-2.0
"""What the Redis backend sends, whose clock it uses, and whose connections."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zmq_matchmaker import (
    Directory,
    Entry,
    Key,
    Matchmaker,
    MatchmakerURL,
    Record,
    Role,
    encode_record,
    load,
)
from zmq_matchmaker.testing import RedisServer

KEY = Key(Role.LISTENER, "nova", "conductor")
ONE = Record(endpoint="tcp://127.0.0.1:1")
TWO = Record(endpoint="tcp://127.0.0.1:2")
NAME = "zmq:{x}:listener:nova:conductor:%"
LEASES = "zmq:{x}:leases"
DAY = 86400.0


@pytest.fixture
def admin(redis: RedisServer) -> Iterator[Any]:
    with redis.client() as client:
        client.ping()
        yield client


@pytest.fixture
def matchmaker(redis: RedisServer) -> Iterator[Matchmaker]:
    matchmaker = load(MatchmakerURL.parse(f"{redis.url}/x"))
    matchmaker.register([(KEY._replace(topic="first"), ONE)], 60)
    matchmaker.lookup([KEY])  # from now on it is connected and the scripts are known
    yield matchmaker
    matchmaker.close()


@pytest.mark.parametrize("keys", [1, 100])
def test_whatever_the_number_of_entries_one_command_is_enough(
    matchmaker: Matchmaker, commands: Callable[[], list[str]], keys: int
) -> None:
    entries: list[Entry] = [
        (KEY._replace(topic=str(number % keys)), Record(endpoint=f"tcp://h:{number}"))
        for number in range(100)
    ]
    topics = list(dict.fromkeys(key for key, _ in entries))
    matchmaker.unregister(entries[:1])
    matchmaker.set_aside({entries[0]: 0})
    matchmaker.refresh(entries, 60)  # now it knows the scripts
    commands()
    matchmaker.register(entries, 60)
    assert commands() == ["EVALSHA"]
    assert matchmaker.refresh(entries, 60)
    assert commands() == ["EVALSHA"]
    assert [len(records) for records in matchmaker.lookup(topics)] == [100 // keys] * keys
    assert commands() == ["EVALSHA"]
    matchmaker.set_aside(dict.fromkeys(entries, 10.0))
    assert commands() == ["EVALSHA"]
    matchmaker.unregister(entries)
    assert commands() == ["EVALSHA"]
    assert matchmaker.lookup(topics) == [()] * keys


@pytest.mark.parametrize("wrong", [-DAY, DAY])
def test_f29_a_client_whose_clock_is_wrong_registers_and_finds_what_the_server_knows(
    matchmaker: Matchmaker, admin: Any, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    right = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + wrong)
        matchmaker.register([(KEY, ONE)], 60)
        assert matchmaker.lookup([KEY]) == [(ONE,)]
    assert matchmaker.lookup([KEY]) == [(ONE,)]
    seconds, _ = admin.time()
    [(_, deadline)] = admin.zrange(LEASES, 0, -1, withscores=True)
    assert 50 < deadline - seconds < 62


def test_what_is_written_is_where_the_documentation_says(
    matchmaker: Matchmaker, admin: Any
) -> None:
    matchmaker.register([(KEY, ONE)], 60)
    matchmaker.register([(KEY, TWO)], None)
    seconds, _ = admin.time()
    fields = admin.hgetall(NAME)
    assert list(fields) == [encode_record(ONE), encode_record(TWO)]
    deadlines = []
    for value in fields.values():
        lease, _, registered = value.partition(b"@")
        assert seconds - 2 < float(registered) < seconds + 2
        assert NAME.encode() in admin.smembers(b"zmq:{x}:lease:" + lease)
        deadlines.append(admin.zscore(LEASES, lease))
    assert 50 < deadlines[0] - seconds < 62
    assert deadlines[1] == float("inf")


def test_what_has_expired_is_collected_by_whoever_refreshes(
    redis: RedisServer, matchmaker: Matchmaker, admin: Any
) -> None:
    died = load(MatchmakerURL.parse(f"{redis.url}/x"))
    died.register([(KEY._replace(topic=str(number)), TWO) for number in range(10)], 0.05)
    died.close()
    before = admin.keys("zmq:{x}:listener:*")
    assert len(before) == 11
    deadline = time.monotonic() + 10
    while len(admin.keys("zmq:{x}:listener:*")) > 1:
        assert matchmaker.refresh([], 60)
        assert time.monotonic() < deadline
    assert admin.zcard(LEASES) == 1
    assert len(admin.keys("zmq:{x}:lease:*")) == 1


def test_when_nobody_is_left_to_collect_redis_forgets_all_of_a_deployment(
    redis: RedisServer, admin: Any, until: Callable[..., None]
) -> None:
    died = load(MatchmakerURL.parse(f"{redis.url}/x"))
    entries = [(KEY._replace(topic=str(number)), TWO) for number in range(10)]
    died.register(entries, 0.2)
    died.register([(KEY, ONE)], 0.1)
    died.set_aside({entries[0]: 2.0})
    died.close()
    assert len(admin.keys()) == 16  # 11 topics, one pause, two leases, their list, since when
    assert max(admin.pttl(name) for name in admin.keys("zmq:*")) <= 4000
    until(lambda: admin.dbsize() == 0, "all is forgotten", 15)


def test_what_is_refreshed_stays_although_all_keys_expire(
    matchmaker: Matchmaker, admin: Any
) -> None:
    keys = [KEY._replace(topic=str(number)) for number in range(3)]
    matchmaker.register([(key, TWO) for key in keys[:2]], 60)
    half = 20 * 60 * 1000 // 2

    def left() -> list[int]:
        return [admin.pttl(name) for name in admin.keys("zmq:*")]

    def refreshed_when_left(milliseconds: int) -> list[int]:
        for name in admin.keys("zmq:*"):
            admin.pexpire(name, milliseconds)
        assert matchmaker.refresh([], 60)
        return left()

    assert min(left()) > 2 * half - 30_000
    assert max(refreshed_when_left(half + 60_000)) <= half + 60_000  # not with each
    assert min(refreshed_when_left(half - 1)) > 2 * half - 30_000
    # What comes later must not postpone when the others are renewed.
    refreshed_when_left(half + 60_000)
    matchmaker.register([(keys[2], TWO)], 60)
    [owned] = admin.keys("zmq:{x}:lease:*")
    assert admin.pttl(owned) <= half + 60_000
    assert matchmaker.lookup(keys) == [(TWO,)] * 3


def test_what_lives_for_ever_shares_its_keys_with_what_does_not(
    redis: RedisServer, admin: Any
) -> None:
    for order in ((None, 0.05), (0.05, None)):
        admin.flushall()
        matchmaker = load(MatchmakerURL.parse(f"{redis.url}/x"))
        for number, ttl in enumerate(order):
            matchmaker.register([(KEY, Record(endpoint=f"tcp://h:{number}"))], ttl)
        ours = [NAME, LEASES, "zmq:{x}:since"]
        assert [admin.pttl(name) for name in ours] == [-1, -1, -1]
        matchmaker.close()


def test_what_an_operator_removed_of_a_living_process_is_back_with_its_next_refresh(
    redis: RedisServer, make_directory: Callable[..., Directory], until: Callable[..., None]
) -> None:
    url = f"{redis.url}/x"
    directory = make_directory(url, update=1.0)
    entries = [(KEY._replace(topic=str(number)), ONE) for number in range(50)]
    directory.announce(entries)
    matchmaker = load(MatchmakerURL.parse(url))
    matchmaker.remove(entries[10:20])
    keys = [key for key, _ in entries]
    until(lambda: matchmaker.lookup(keys) == [(ONE,)] * 50, "all are back", 4)
    assert len(matchmaker.survey()) == 50
    matchmaker.close()


def test_a_lease_whose_list_was_removed_is_registered_anew(
    matchmaker: Matchmaker, admin: Any
) -> None:
    matchmaker.register([(KEY, ONE)], 60)
    assert matchmaker.refresh([(KEY, ONE)], 60)
    admin.delete(*admin.keys("zmq:{x}:lease:*"))
    assert not matchmaker.refresh([(KEY, ONE)], 60)


def test_a_record_that_is_withdrawn_does_not_end_the_pause_of_another(
    matchmaker: Matchmaker, admin: Any
) -> None:
    matchmaker.register([(KEY, ONE), (KEY, TWO)], 60)
    matchmaker.set_aside({(KEY, ONE): 200.0})
    matchmaker.unregister([(KEY, TWO)])
    assert 190 < admin.ttl("zmq:{x}:aside:listener:nova:conductor:%") <= 200


def test_a_connection_that_the_server_closed_is_made_anew_unnoticed(
    matchmaker: Matchmaker, admin: Any
) -> None:
    matchmaker.register([(KEY, ONE)], 60)
    for _ in range(3):
        admin.client_kill_filter(_type="normal", skipme=True)
        assert matchmaker.lookup([KEY]) == [(ONE,)]


def test_a_forked_child_leaves_its_parents_connection_alone(
    matchmaker: Matchmaker, admin: Any
) -> None:
    before = {client["id"] for client in admin.client_list()}
    mine, its = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)
            matchmaker.register([(KEY, TWO)], 60)
            os.write(its[1], b".")
            os.read(mine[0], 1)
            matchmaker.close()
            code = 0
        finally:
            os._exit(code)
    assert os.read(its[0], 1) == b"."
    during = {client["id"] for client in admin.client_list()}
    os.write(mine[1], b".")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for descriptor in (*mine, *its):
        os.close(descriptor)
    assert len(during - before) == 1
    assert matchmaker.lookup([KEY]) == [(TWO,)]
    assert {client["id"] for client in admin.client_list()} >= before


def test_the_database_of_the_url_is_the_one_that_is_used(redis: RedisServer, admin: Any) -> None:
    matchmaker = load(MatchmakerURL.parse(f"{redis.url}/x?db=3"))
    matchmaker.register([(KEY, ONE)], 60)
    matchmaker.close()
    assert admin.dbsize() == 0
    assert admin.info("keyspace").keys() == {"db3"}
