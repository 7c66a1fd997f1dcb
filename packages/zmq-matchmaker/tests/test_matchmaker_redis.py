# SPDX-License-Identifier: Apache-2.0
"""What the Redis backend sends, whose clock it uses, and whose connections."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from zmq_matchmaker import Entry, Key, Matchmaker, MatchmakerURL, Record, Role, load
from zmq_matchmaker.testing import RedisServer

KEY = Key(Role.LISTENER, "nova", "conductor")
ONE = Record(endpoint="tcp://127.0.0.1:1")
TWO = Record(endpoint="tcp://127.0.0.1:2")
NAME = "zmq:x:listener:nova:conductor:%"
DAY = 86400.0
PIECES = 3
"""What is longer than the server's buffer, it reads in so many pieces at most."""


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


def reads(admin: Any) -> int:
    """How often the server has read something from a client, but for this question."""
    count: int = admin.info("stats")["total_reads_processed"]
    return count - 1


@pytest.mark.parametrize("keys", [1, 100])
def test_whatever_the_number_of_entries_one_round_trip_is_enough(
    matchmaker: Matchmaker, admin: Any, keys: int
) -> None:
    entries: list[Entry] = [
        (KEY._replace(topic=str(number % keys)), Record(endpoint=f"tcp://h:{number}"))
        for number in range(100)
    ]
    topics = list(dict.fromkeys(key for key, _ in entries))
    begin = reads(admin)
    matchmaker.register(entries, 60)
    registered = reads(admin)
    assert [len(records) for records in matchmaker.lookup(topics)] == [100 // keys] * keys
    found = reads(admin)
    matchmaker.unregister(entries)
    end = reads(admin)
    own = 1  # each time, the question itself
    assert registered - begin <= own + PIECES
    assert found - registered <= own + PIECES
    assert end - found <= own + PIECES
    assert matchmaker.lookup(topics) == [()] * keys


@pytest.mark.parametrize("wrong", [-DAY, DAY])
def test_a_client_whose_clock_is_wrong_registers_and_finds_what_the_server_knows(
    matchmaker: Matchmaker, admin: Any, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    right = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + wrong)
        matchmaker.register([(KEY, ONE)], 60)
        assert matchmaker.lookup([KEY]) == [(ONE,)]
    assert matchmaker.lookup([KEY]) == [(ONE,)]
    seconds, _ = admin.time()
    [(_, deadline)] = admin.zrange(NAME, 0, -1, withscores=True)
    assert 50 < deadline - seconds < 62


def test_each_record_has_its_own_expiry_and_the_key_outlives_them_all(
    matchmaker: Matchmaker, admin: Any
) -> None:
    matchmaker.register([(KEY, ONE)], 60)
    matchmaker.register([(KEY, TWO)], 10)
    seconds, _ = admin.time()
    short, long = (score for _, score in admin.zrange(NAME, 0, -1, withscores=True))
    assert 5 < short - seconds < 12
    assert 50 < long - seconds < 62
    assert admin.pttl(NAME) / 1000 > long - seconds - 2
    matchmaker.register([(KEY, TWO)], None)
    assert admin.zscore(NAME, admin.zrange(NAME, -1, -1)[0]) == float("inf")
    assert admin.ttl(NAME) == -1


def test_writing_removes_what_has_expired(matchmaker: Matchmaker, admin: Any) -> None:
    admin.zadd(NAME, {b'{"endpoint":"tcp://gone:1"}': admin.time()[0] - 1})
    assert matchmaker.lookup([KEY]) == [()]
    matchmaker.register([(KEY, ONE)], 60)
    assert admin.zcard(NAME) == 1


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
