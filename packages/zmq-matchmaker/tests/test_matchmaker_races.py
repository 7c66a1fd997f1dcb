# SPDX-License-Identifier: Apache-2.0
"""Many threads and one directory: what meets what is on its way, and who waits for whom."""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest

from zmq_matchmaker import (
    Directory,
    Entry,
    Found,
    Key,
    MatchmakerURL,
    Record,
    Role,
    Unavailable,
    load,
)
from zmq_matchmaker.backends.dummy import DummyMatchmaker
from zmq_matchmaker.testing import RedisServer

KEY = Key(Role.LISTENER, "nova", "conductor")
OTHER = Key(Role.LISTENER, "nova", "compute")
ONE = Record(endpoint="tcp://127.0.0.1:1")
TWO = Record(endpoint="tcp://127.0.0.1:2")
AT_ONCE = 2.0
"""Seconds; whoever waits for a tick or a time limit waits for longer."""


class SlowMatchmaker(DummyMatchmaker):
    """Gives its answers when it is let, as they were when it was asked."""

    characteristics = DummyMatchmaker.characteristics.__class__(expiry=True)

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        self.lookups: list[tuple[Key, ...]] = []
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()

    def find(self, keys: Sequence[Key]) -> list[Found]:
        found = super().find(keys)
        self.lookups.append(tuple(keys))
        self.asked.set()
        self.answers.wait(30)
        return found


@pytest.fixture
def backend() -> SlowMatchmaker:
    return SlowMatchmaker(MatchmakerURL.parse(f"dummy:///{uuid.uuid4().hex}"))


@pytest.fixture
def directory(backend: SlowMatchmaker) -> Iterator[Directory]:
    directory = Directory(backend)
    yield directory
    backend.answers.set()
    directory.close()


@pytest.fixture
def other(backend: SlowMatchmaker) -> Iterator[Directory]:
    """Another process's directory, as it were, that is not slow."""
    directory = Directory(load(backend.url))
    yield directory
    directory.close()


def in_threads(number: int, work: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads


def end_of(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_a_hundred_threads_that_look_one_key_up_cost_one_round_trip(
    directory: Directory, backend: SlowMatchmaker, other: Directory, until: Callable[..., None]
) -> None:
    other.announce([(KEY, ONE)])
    backend.answers.clear()
    found: list[tuple[Record, ...]] = []
    threads = in_threads(100, lambda: found.append(directory.lookup(KEY, 20)))
    until(lambda: directory.statistics.cold_lookups == 100, "all wait")
    backend.answers.set()
    end_of(threads)
    assert found == [(ONE,)] * 100
    assert backend.lookups == [(KEY,)]


def test_all_keys_that_are_wanted_meanwhile_share_the_next_round_trip(
    directory: Directory, backend: SlowMatchmaker, until: Callable[..., None]
) -> None:
    keys = [KEY._replace(server=str(number)) for number in range(50)]
    backend.answers.clear()
    threads = in_threads(1, lambda: directory.lookup(KEY, 20))
    assert backend.asked.wait(10)
    for key in keys:
        threads += in_threads(1, functools.partial(directory.lookup, key, 20))
    until(lambda: directory.statistics.cold_lookups == 51, "all wait")
    backend.answers.set()
    end_of(threads)
    first, second = backend.lookups
    assert first == (KEY,)
    assert sorted(second) == sorted(keys)


def test_refresh_is_not_content_with_an_answer_that_was_asked_for_before(
    directory: Directory, backend: SlowMatchmaker, other: Directory, until: Callable[..., None]
) -> None:
    backend.answers.clear()
    threads = in_threads(1, lambda: directory.lookup(KEY, 20))
    assert backend.asked.wait(10)
    other.announce([(KEY, ONE)])
    found: list[tuple[Record, ...]] = []
    threads += in_threads(1, lambda: found.append(directory.refresh(KEY, 20)))
    until(lambda: directory._upkeep._rounds.requests.lookup_wanted, "the second asks")
    backend.answers.set()
    end_of(threads)
    assert found == [(ONE,)]


def test_a_caller_leaves_when_its_time_is_over_and_the_others_go_on_waiting(
    directory: Directory, backend: SlowMatchmaker, other: Directory
) -> None:
    other.announce([(KEY, ONE)])
    backend.answers.clear()
    found: list[tuple[Record, ...]] = []
    threads = in_threads(1, lambda: found.append(directory.lookup(KEY, None)))
    assert backend.asked.wait(10)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"no answer within 0\.1 s"):
        directory.lookup(KEY, 0.1)
    assert 0.1 <= time.monotonic() - began < AT_ONCE
    backend.answers.set()
    end_of(threads)
    assert found == [(ONE,)]


def test_an_answer_from_before_does_not_hide_what_was_announced_since(
    directory: Directory, backend: SlowMatchmaker, other: Directory, until: Callable[..., None]
) -> None:
    other.announce([(KEY, TWO)])
    assert directory.lookup(KEY, 10) == (TWO,)
    backend.answers.clear()
    backend.asked.clear()
    directory.nack(KEY, ONE, gone=True)  # has the source asked, and nobody wait
    assert backend.asked.wait(10)
    threads = in_threads(1, lambda: directory.announce([(KEY, ONE)]))
    until(lambda: directory.lookup(KEY, 0) == (ONE, TWO), "one's own are seen at once")
    seen: set[tuple[Record, ...]] = set()
    backend.answers.set()
    while any(thread.is_alive() for thread in threads):
        seen.add(directory.lookup(KEY, 10))
    assert seen <= {(ONE, TWO)}
    assert directory.lookup(KEY, 10) == (ONE, TWO)


def test_an_answer_from_before_does_not_bring_back_what_was_withdrawn_since(
    directory: Directory, backend: SlowMatchmaker, other: Directory, until: Callable[..., None]
) -> None:
    other.announce([(KEY, TWO)])
    directory.announce([(KEY, ONE)])
    assert directory.lookup(KEY, 10) == (ONE, TWO)
    backend.answers.clear()
    backend.asked.clear()
    directory.nack(KEY, ONE, gone=True)
    directory.ack(KEY, ONE)
    assert backend.asked.wait(10)
    threads = in_threads(1, lambda: directory.withdraw([(KEY, ONE)]))
    until(lambda: directory.lookup(KEY, 0) == (TWO,), "one's own are gone at once")
    backend.answers.set()
    end_of(threads)
    assert directory.lookup(KEY, 10) == (TWO,)


@pytest.mark.parametrize(
    "work",
    [
        lambda directory: directory.withdraw([(KEY, ONE)]),
        lambda directory: directory.withdraw([]),
        lambda directory: directory.announce([]),
    ],
    ids=["withdraw what is unknown", "withdraw nothing", "announce nothing"],
)
def test_when_there_is_nothing_to_write_nobody_waits(
    directory: Directory, work: Callable[[Directory], None]
) -> None:
    for _ in range(3):
        began = time.monotonic()
        work(directory)
        assert time.monotonic() - began < AT_ONCE
    assert directory.statistics.writes == 0


def test_announcing_the_same_from_many_threads_makes_nobody_wait_for_long(
    directory: Directory,
) -> None:
    began = time.monotonic()
    end_of(in_threads(50, lambda: directory.announce([(KEY, ONE)])))
    assert time.monotonic() - began < AT_ONCE
    assert directory.lookup(KEY, 10) == (ONE,)
    assert directory.statistics.announced == 1


def test_close_ends_all_waiting_with_an_error_and_from_any_thread(
    directory: Directory, backend: SlowMatchmaker, until: Callable[..., None]
) -> None:
    problems: list[str] = []

    def look(key: Key) -> None:
        try:
            directory.lookup(key, 20)
        except Unavailable as error:
            problems.append(str(error))

    backend.answers.clear()
    threads = in_threads(1, lambda: look(KEY))
    assert backend.asked.wait(10)
    threads += in_threads(10, lambda: look(OTHER))
    until(lambda: directory.statistics.cold_lookups == 11, "all wait")
    threads += in_threads(5, directory.close)
    until(lambda: directory._upkeep.closed, "one of them closes")
    backend.answers.set()
    end_of(threads)
    assert len(problems) == 10
    assert {"closed" in problem for problem in problems} == {True}


def test_a_closed_directory_says_so(directory: Directory) -> None:
    directory.announce([(KEY, ONE)])
    directory.close()
    with pytest.raises(Unavailable, match="is closed"):
        directory.lookup(OTHER, None)
    with pytest.raises(Unavailable, match="is closed"):
        directory.announce([(KEY, ONE)])
    directory.withdraw([(KEY, ONE)])
    directory.nack(KEY, ONE, gone=True)
    directory.close()


def test_one_that_was_never_used_is_closed_without_a_thread(backend: SlowMatchmaker) -> None:
    before = threading.active_count()
    directory = Directory(backend)
    assert threading.active_count() == before
    directory.close()
    directory.close()
    assert backend.lookups == []


@pytest.mark.parametrize("update", [0.0, -1.0])
def test_refreshing_without_a_pause_is_refused(backend: SlowMatchmaker, update: float) -> None:
    with pytest.raises(ValueError, match="update must be more than 0"):
        Directory(backend, update=update)
    backend.close()


def test_threads_that_come_and_go_at_random_leave_exactly_what_is_announced(
    directory: Directory, other: Directory
) -> None:
    problems: list[BaseException] = []
    left: list[Entry] = []

    def use(number: int) -> None:
        dice = random.Random(number)
        mine: set[Entry] = set()
        try:
            for turn in range(40):
                entry = (KEY._replace(topic=str(turn % 5)), Record(endpoint=f"tcp://h:{number}"))
                if dice.random() < 0.5:
                    directory.announce([entry])
                    mine.add(entry)
                    assert entry[1] in directory.lookup(entry[0], 10)
                else:
                    directory.withdraw([entry])
                    mine.discard(entry)
                    assert entry[1] not in directory.lookup(entry[0], 10)
            left.extend(mine)
        except BaseException as error:
            problems.append(error)
            raise

    threads = [threading.Thread(target=use, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    end_of(threads)
    assert problems == []
    for topic in range(5):
        key = KEY._replace(topic=str(topic))
        expected = tuple(sorted(record for where, record in left if where == key))
        assert other.refresh(key, 10) == expected
        assert directory.lookup(key, 10) == expected


def in_child(work: Callable[[], None]) -> int:
    """The exit code of a forked child that does `work`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_is_told_to_make_its_own_even_if_the_lock_was_held(
    directory: Directory, backend: SlowMatchmaker
) -> None:
    directory.announce([(KEY, ONE)])
    assert directory.lookup(KEY, 10) == (ONE,)

    def work() -> None:
        for key in (KEY, OTHER):  # nobody would tell it that KEY's records have changed
            with pytest.raises(Unavailable, match="make another one after a fork"):
                directory.lookup(key, None)
        with pytest.raises(Unavailable, match="make another one after a fork"):
            directory.announce([(OTHER, TWO)])
        began = time.monotonic()
        directory.withdraw([(KEY, ONE)])
        directory.close()
        assert time.monotonic() - began < AT_ONCE

    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with directory._upkeep.lock:
            held.set()
            release.wait(30)

    holder = in_threads(1, hold)
    try:
        assert held.wait(10)
        assert in_child(work) == 0
    finally:
        release.set()
        end_of(holder)
    assert backend.lookup([KEY]) == [(ONE,)]


def test_a_directory_that_the_parent_never_used_works_in_the_child(
    directory: Directory,
) -> None:
    def work() -> None:
        directory.announce([(KEY, ONE)])
        assert directory.lookup(KEY, 10) == (ONE,)
        directory.close()

    assert in_child(work) == 0
    assert directory.lookup(KEY, 10) == ()


def test_a_forked_child_does_not_wait_for_a_thread_of_the_parent_that_waits_for_redis() -> None:
    with RedisServer() as redis:
        redis.stop()
        matchmaker = load(MatchmakerURL.parse(f"{redis.url}/x?socket_timeout=1"))

        def ask() -> None:
            with pytest.raises(Unavailable, match="did not answer"):
                matchmaker.find([KEY])

        def work() -> None:
            began = time.monotonic()
            ask()
            matchmaker.close()
            assert time.monotonic() - began < 5

        threads = in_threads(1, ask)
        deadline = time.monotonic() + 10
        while not matchmaker._lock.locked():  # type: ignore[attr-defined]  # it is Redis' own
            assert time.monotonic() < deadline
        assert in_child(work) == 0
        end_of(threads)
        redis.cont()
        matchmaker.close()
