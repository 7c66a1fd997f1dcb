# SPDX-License-Identifier: Apache-2.0
"""The directory over a Redis that works: what it costs, and how soon changes are seen."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from zmq_matchmaker import (
    Characteristics,
    Directory,
    InvalidRecord,
    Key,
    Matchmaker,
    MatchmakerURL,
    Record,
    Role,
    Unavailable,
)
from zmq_matchmaker.testing import RedisServer

MakeDirectory = Callable[..., Directory]
Until = Callable[..., None]

KEY = Key(Role.LISTENER, "openstack", "conductor")


def record(number: int = 1, **fields: Any) -> Record:
    return Record(endpoint=f"tcp://10.0.0.1:{50000 + number}", **fields)


@pytest.fixture
def url(redis: RedisServer) -> str:
    return f"{redis.url}/x"


def test_a_cold_lookup_is_one_command_and_a_warm_one_none(
    url: str, make_directory: MakeDirectory, commands: Callable[[], list[str]]
) -> None:
    server, client = make_directory(url), make_directory(url)
    server.announce([(KEY, record()), (KEY._replace(topic="x"), record())])
    client.lookup(KEY._replace(topic="x"), 5)  # connected, and the scripts are known
    commands()
    assert client.lookup(KEY, 5) == (record(),)
    # Nobody waits for the subscription: it has a connection of its own.
    assert sorted(commands()) == ["EVALSHA", "SUBSCRIBE"]
    for _ in range(10_000):
        assert client.lookup(KEY, 5) == (record(),)
    assert commands() == []


def test_a_warm_lookup_takes_microseconds(url: str, make_directory: MakeDirectory) -> None:
    directory = make_directory(url)
    directory.announce([(KEY, record())])
    directory.lookup(KEY, 5)
    began = time.perf_counter()
    for _ in range(100_000):
        directory.lookup(KEY, 5)
    assert time.perf_counter() - began < 2.0  # 20 µs each; it takes half of one where idle


def test_cold_lookups_of_one_moment_share_one_round_trip(
    redis: RedisServer,
    url: str,
    make_directory: MakeDirectory,
    commands: Callable[[], list[str]],
    until: Until,
) -> None:
    directory = make_directory(url)
    directory.announce([(KEY._replace(topic=str(n)), record(n)) for n in range(20)])
    directory.lookup(KEY, 5)
    rounds = directory.statistics.rounds
    commands()
    redis.stop()
    found: list[Sequence[Record]] = []

    def look(number: int) -> None:
        found.append(directory.lookup(KEY._replace(topic=str(number % 20)), 10))

    threads = [threading.Thread(target=look, args=(number,)) for number in range(60)]
    threads[0].start()
    until(lambda: directory.statistics.rounds == rounds + 1, "the first is being asked")
    for thread in threads[1:]:
        thread.start()
    until(lambda: directory.statistics.cold_lookups >= 61, "the others wait")
    redis.cont()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == sorted(str((record(n % 20),)) for n in range(60))
    assert directory.statistics.rounds == rounds + 2
    assert [name for name in commands() if name != "SUBSCRIBE"] == ["EVALSHA", "EVALSHA"]


@pytest.mark.parametrize("topics", [1, 200])
def test_refreshing_is_one_command_whatever_the_number_of_topics(
    url: str,
    make_directory: MakeDirectory,
    until: Until,
    commands: Callable[[], list[str]],
    topics: int,
) -> None:
    directory = make_directory(url, expire=60, update=0.3)
    directory.announce([(KEY._replace(topic=str(n)), record(n)) for n in range(topics)])
    assert directory.statistics.writes == 1
    until(lambda: directory.statistics.rounds >= 2, "the scripts are known")
    commands()
    began, rounds = time.monotonic(), directory.statistics.rounds
    writes = directory.statistics.writes
    until(lambda: directory.statistics.writes >= writes + 4, "refreshed")
    assert time.monotonic() - began >= 3 * 0.9 * 0.3
    looks = directory.statistics.rounds - rounds  # whether its records are still there
    assert len(commands()) <= 4 + looks + 2  # those that began while it was counted


def test_own_listeners_are_found_at_once(url: str, make_directory: MakeDirectory) -> None:
    directory = make_directory(url)
    assert directory.lookup(KEY, 5) == ()
    directory.announce([(KEY, record(1))])
    assert directory.lookup(KEY, 5) == (record(1),)
    directory.announce([(KEY, record(2))])
    assert directory.lookup(KEY, 5) == (record(1), record(2))
    directory.withdraw([(KEY, record(1))])
    assert directory.lookup(KEY, 5) == (record(2),)


@pytest.mark.alone
def test_a_client_in_use_sees_who_comes_and_who_leaves_within_a_second(
    url: str, make_directory: MakeDirectory, until: Until
) -> None:
    client, one = make_directory(url), make_directory(url)
    one.announce([(KEY, record(1))])
    assert client.lookup(KEY, 5) == (record(1),)
    for number in range(2, 5):
        other = make_directory(url)
        other.announce([(KEY, record(number))])
        until(lambda n=number: record(n) in client.lookup(KEY, 5), "comes", seconds=1)
        other.close()
        until(lambda n=number: record(n) not in client.lookup(KEY, 5), "left", seconds=1)
    assert client.lookup(KEY, 5) == (record(1),)
    assert client.statistics.changes >= 6


@pytest.mark.alone
def test_whoever_does_not_answer_one_client_is_set_aside_by_all_until_it_does(
    url: str, make_directory: MakeDirectory, until: Until
) -> None:
    server, one, other = (make_directory(url) for _ in range(3))
    server.announce([(KEY, record(1)), (KEY, record(2))])
    both = (record(1), record(2))
    assert one.lookup(KEY, 5) == other.lookup(KEY, 5) == both
    for number in range(3):  # for 1, 2, 4 seconds
        one.nack(KEY, f"10.0.0.1:{50001}")
        until(lambda: other.lookup(KEY, 5) == (record(2),), "learnt it", seconds=1)
        if number < 2:
            until(lambda: one.lookup(KEY, 5) == both, "tried again", seconds=2.5)
            until(lambda: other.lookup(KEY, 5) == both, "tried again", seconds=1)
    one.ack(KEY, record(1))
    until(lambda: other.lookup(KEY, 5) == both, "is back", seconds=1)
    assert one.lookup(KEY, 5) == both
    one.nack(KEY, record(1))
    until(lambda: other.lookup(KEY, 5) == (record(2),), "set aside", seconds=1)
    make_directory(url).announce([(KEY, record(1))])  # it was started again
    until(lambda: one.lookup(KEY, 5) == other.lookup(KEY, 5) == both, "is back", seconds=1)


def test_a_process_that_ends_does_not_take_away_what_another_registered_at_its_address(
    url: str, make_directory: MakeDirectory
) -> None:
    old, new = make_directory(url), make_directory(url)
    old.announce([(KEY, record(1))])
    new.announce([(KEY, record(1))])
    old.close()
    assert make_directory(url).lookup(KEY, 5) == (record(1),)


def test_what_is_announced_is_found_by_others_when_announce_returns(
    url: str, make_directory: MakeDirectory
) -> None:
    one, other = make_directory(url), make_directory(url)
    one.announce([(KEY, record())])
    assert other.lookup(KEY, 5) == (record(),)


def test_a_client_that_waits_for_a_first_server_finds_it(
    url: str, make_directory: MakeDirectory, until: Until
) -> None:
    client, server = make_directory(url), make_directory(url)
    assert client.lookup(KEY, 5) == ()
    server.announce([(KEY, record())])
    until(lambda: client.refresh(KEY, 5) == (record(),), "found", seconds=2)


def test_refreshing_at_will_asks_ten_times_a_second(
    url: str, make_directory: MakeDirectory
) -> None:
    client = make_directory(url)
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        client.refresh(KEY, 5)
    assert client.statistics.rounds <= 6


def test_a_route_in_use_follows_those_who_come_and_go(
    url: str, make_directory: MakeDirectory, until: Until
) -> None:
    client = make_directory(url, update=0.1)
    one, other = make_directory(url), make_directory(url)
    one.announce([(KEY, record(1))])
    assert client.lookup(KEY, 5) == (record(1),)
    other.announce([(KEY, record(2))])
    until(lambda: client.lookup(KEY, 5) == (record(1), record(2)), "both are used")
    one.close()
    until(lambda: client.lookup(KEY, 5) == (record(2),), "the one that left is not")


def test_after_all_servers_left_those_that_come_are_found(
    url: str, make_directory: MakeDirectory, until: Until
) -> None:
    client = make_directory(url, update=0.1)
    first = make_directory(url)
    first.announce([(KEY, record(1))])
    assert client.lookup(KEY, 5) == (record(1),)
    first.close()
    # The client meets it: nobody there takes a connection.
    client.nack(KEY, record(1))
    until(lambda: client.lookup(KEY, 5) == (), "nobody is left")
    make_directory(url).announce([(KEY, record(2))])
    until(lambda: client.lookup(KEY, 5) == (record(2),), "found")


@pytest.mark.alone
def test_a_stale_record_is_dropped_and_the_source_asked_at_once(
    url: str, make_directory: MakeDirectory, until: Until
) -> None:
    client, server = make_directory(url), make_directory(url)
    server.announce([(KEY, record(1))])
    assert client.lookup(KEY, 5) == (record(1),)
    server.withdraw([(KEY, record(1))])
    server.announce([(KEY, record(2))])
    client.nack(KEY, record(1), gone=True)
    until(lambda: client.lookup(KEY, 5) == (record(2),), "the new one is used", seconds=1)


def test_one_that_did_not_answer_is_set_aside_until_it_does(
    url: str, make_directory: MakeDirectory
) -> None:
    client = make_directory(url)
    client.announce([(KEY, record(1)), (KEY, record(2))])
    client.lookup(KEY, 5)
    client.nack(KEY, record(1))
    assert client.lookup(KEY, 5) == (record(2),)
    client.ack(KEY, record(1))
    assert client.lookup(KEY, 5) == (record(1), record(2))


def test_closing_withdraws_all_in_one_round_trip_and_twice_is_harmless(
    redis: RedisServer, url: str, make_directory: MakeDirectory
) -> None:
    directory = make_directory(url)
    directory.announce([(KEY._replace(topic=str(n)), record(n)) for n in range(50)])
    writes = directory.statistics.writes
    closers = [threading.Thread(target=directory.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    directory.close()
    assert directory.statistics.writes == writes + 1
    with redis.client() as client:
        left = {name: client.ttl(name) for name in client.keys("*")}
    assert 0 < left.pop(b"zmq:{x}:since") <= 20 * 120
    assert len(left) == 50
    for name, ttl in left.items():  # that they were withdrawn is known for a while
        assert name.startswith(b"zmq:{x}:aside:listener:")
        assert 0 < ttl <= 20


def test_a_closed_directory_says_so(url: str, make_directory: MakeDirectory) -> None:
    directory = make_directory(url)
    directory.close()
    with pytest.raises(Unavailable, match="closed"):
        directory.lookup(KEY, 5)
    with pytest.raises(Unavailable, match="closed"):
        directory.announce([(KEY, record())])
    directory.withdraw([(KEY, record())])
    directory.nack(KEY, record(), gone=True)


def test_a_directory_that_was_never_used_has_no_thread(
    url: str, make_directory: MakeDirectory
) -> None:
    before = threading.active_count()
    make_directory(url)
    assert threading.active_count() == before


def test_a_forked_child_leaves_its_parents_records_alone_and_has_its_own(
    url: str, make_directory: MakeDirectory
) -> None:
    parent = make_directory(url)
    parent.announce([(KEY, record(1))])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            parent.close()
            own = make_directory(url)
            own.announce([(KEY, record(2))])
            code = 0 if own.lookup(KEY, 5) == (record(1), record(2)) else 2
            own.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert make_directory(url).lookup(KEY, 5) == (record(1),)


def test_an_entry_that_cannot_be_written_does_not_keep_others_from_it(
    url: str, make_directory: MakeDirectory
) -> None:
    directory = make_directory(url)
    for entry in (
        (KEY, record(member="\ud800")),
        (KEY._replace(server="\ud800"), record()),
    ):
        with pytest.raises(InvalidRecord, match="surrogates"):
            directory.announce([entry])
    directory.announce([(KEY, record())])
    assert make_directory(url).lookup(KEY, 5) == (record(),)


def test_an_expired_record_of_a_process_that_died_leaves_the_routes(
    redis: RedisServer, url: str, make_directory: MakeDirectory, until: Until
) -> None:
    died = make_directory(url, expire=0.3, update=100)
    lives = make_directory(url)
    died.announce([(KEY, record(1))])
    lives.announce([(KEY, record(2))])
    with redis.client() as admin:
        admin.set("zmq:{x}:since", 0)  # it was told everything long ago
    client = make_directory(url, update=0.1)
    assert client.lookup(KEY, 5) == (record(1), record(2))
    until(lambda: client.lookup(KEY, 5) == (record(2),), "expired")


class Moody(Matchmaker):
    """A backend with faults of its own."""

    characteristics = Characteristics()

    def __init__(self) -> None:
        super().__init__(MatchmakerURL.parse("moody://"))
        self.mood = ZeroDivisionError("of a kind that nobody expects")
        self.sane = False

    def register(self, entries: object, ttl: float | None) -> None:
        if not self.sane:
            raise self.mood

    def unregister(self, entries: object) -> None:
        raise self.mood

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        if not self.sane:
            raise self.mood
        return [(record(),) for _ in keys]


def test_a_backend_that_raises_what_it_may_not_does_not_end_the_thread(
    until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Moody()
    directory = Directory(backend)
    directory.announce([(KEY, record())])
    for _ in range(3):
        with pytest.raises(Unavailable):
            directory.lookup(KEY, 5)
    assert directory.statistics.failures >= 4
    backend.sane = True
    until(lambda: directory.statistics.unwritten == 0, "written after all")
    assert directory.lookup(KEY, 5) == (record(),)
    assert directory.statistics.reachable
    directory.close()
    shouts = [r for r in caplog.records if r.exc_info and "trying on" in r.getMessage()]
    assert len(shouts) == 1
