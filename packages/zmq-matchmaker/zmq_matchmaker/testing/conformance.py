# SPDX-License-Identifier: Apache-2.0
"""The contract of a backend as tests; needs pytest.

A backend's own tests make a class of it and say where the backend keeps things:

    class TestMyBackend(MatchmakerConformance):
        @pytest.fixture
        def url(self) -> MatchmakerURL:
            return MatchmakerURL.parse("mine://127.0.0.1:1234/some-fresh-place")

What a backend says of itself in `characteristics` decides which tests apply.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._errors import NotSupported
from zmq_matchmaker._loader import load
from zmq_matchmaker._model import Entry, Key, Record, Role
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["ODD_NAMES", "MatchmakerConformance", "ReadingConformance"]

Connect = Callable[[], Matchmaker]

ODD_NAMES: Final = (
    "",
    ".",
    "..",
    "a",
    "A",
    "a.b",
    "a:b",
    "a/b",
    "a%2Fb",
    "a%b",
    "a b",
    "host@lvm",
    "cinder-volume.host@lvm",
    "é",
    "e\u0301",
    "漢字",
    "\x00\n\\*?[]{}",
    "x" * 300,
)
"""Names that a careless backend confuses with each other, or with its separators."""

_DEADLINE: Final = 10.0
_NOBODY: Final = Key(Role.LISTENER, "conformance", "nobody listens here")


def _record(number: int = 1, **fields: str) -> Record:
    return Record(endpoint=f"tcp://127.0.0.1:{50000 + number}", **fields)


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {_DEADLINE:g} s: {what}"
        time.sleep(0.01)


def _found(matchmaker: Matchmaker, key: Key) -> tuple[Record, ...]:
    [records] = matchmaker.lookup([key])
    return records


class ReadingConformance:
    """What every backend does, also one whose records an operator keeps."""

    @pytest.fixture
    def url(self) -> MatchmakerURL:
        """Where the backend keeps its records; empty, and of this test alone."""
        raise NotImplementedError("the subclass has to define the fixture url")

    @pytest.fixture
    def connect(self, url: MatchmakerURL) -> Iterator[Connect]:
        """Makes backends that share their records, as different users would."""
        made: list[Matchmaker] = []

        def connect() -> Matchmaker:
            made.append(load(url))
            return made[-1]

        yield connect
        for matchmaker in made:
            matchmaker.close()

    @pytest.fixture
    def matchmaker(self, connect: Connect) -> Matchmaker:
        """One of them."""
        return connect()

    def test_making_one_starts_no_thread_and_opens_nothing(self, connect: Connect) -> None:
        before = threading.active_count(), len(os.listdir("/proc/self/fd"))
        connect()
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before

    def test_a_key_that_nobody_listens_on_has_no_records(self, matchmaker: Matchmaker) -> None:
        assert matchmaker.lookup([_NOBODY, _NOBODY]) == [(), ()]

    def test_looking_up_nothing_is_harmless(self, matchmaker: Matchmaker) -> None:
        assert matchmaker.lookup([]) == []

    def test_closing_twice_is_harmless(self, matchmaker: Matchmaker) -> None:
        matchmaker.lookup([_NOBODY])
        matchmaker.close()
        matchmaker.close()

    def test_closing_gives_back_all_threads_and_descriptors(self, connect: Connect) -> None:
        before = threading.active_count(), len(os.listdir("/proc/self/fd"))
        matchmaker = connect()
        matchmaker.lookup([_NOBODY])
        matchmaker.close()
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before

    def test_its_url_in_text_is_its_own(self, matchmaker: Matchmaker, url: MatchmakerURL) -> None:
        assert str(matchmaker.url) == str(url)


class MatchmakerConformance(ReadingConformance):
    """What a backend does that lets processes register."""

    key: Final = Key(Role.LISTENER, "openstack", "conductor")

    def test_what_one_registers_another_finds(self, connect: Connect) -> None:
        connect().register([(self.key, _record())], 60)
        assert _found(connect(), self.key) == (_record(),)

    def test_all_fields_of_a_record_come_back(self, connect: Connect) -> None:
        record = _record(node="host/42/ôslo", member="host@lvm", pool="audit pool")
        connect().register([(self.key, record)], 60)
        assert _found(connect(), self.key) == (record,)

    def test_registering_again_makes_no_second_record(self, matchmaker: Matchmaker) -> None:
        for ttl in (60, 60, None, 60):
            matchmaker.register([(self.key, _record())], ttl)
        assert _found(matchmaker, self.key) == (_record(),)

    def test_records_come_in_a_stable_order(self, matchmaker: Matchmaker) -> None:
        records = [_record(number) for number in (3, 1, 2)]
        for record in records:
            matchmaker.register([(self.key, record)], 60)
        assert _found(matchmaker, self.key) == tuple(sorted(records))

    def test_records_that_differ_in_one_field_are_different(self, matchmaker: Matchmaker) -> None:
        records = {
            _record(),
            _record(node="n"),
            _record(member="n"),
            _record(pool="n"),
            _record(2),
        }
        matchmaker.register([(self.key, record) for record in records], 60)
        assert set(_found(matchmaker, self.key)) == records

    def test_many_entries_are_registered_at_once(self, matchmaker: Matchmaker) -> None:
        entries = [
            (self.key._replace(topic=f"topic {topic}"), _record(member))
            for topic in range(20)
            for member in range(5)
        ]
        matchmaker.register(entries, 60)
        keys = list(dict.fromkeys(key for key, _ in entries))
        expected = tuple(_record(member) for member in range(5))
        assert matchmaker.lookup(keys) == [expected] * 20
        matchmaker.unregister(entries)
        assert matchmaker.lookup(keys) == [()] * 20

    def test_answers_come_in_the_order_of_the_keys(self, matchmaker: Matchmaker) -> None:
        other = self.key._replace(topic="other")
        matchmaker.register([(self.key, _record(1)), (other, _record(2))], 60)
        assert matchmaker.lookup([other, _NOBODY, self.key, other]) == [
            (_record(2),),
            (),
            (_record(1),),
            (_record(2),),
        ]

    def test_what_is_unregistered_is_gone_and_nothing_else(self, connect: Connect) -> None:
        one = connect()
        one.register([(self.key, _record(1)), (self.key, _record(2))], 60)
        one.unregister([(self.key, _record(1))])
        assert _found(connect(), self.key) == (_record(2),)

    def test_what_was_unregistered_can_be_registered_again(self, matchmaker: Matchmaker) -> None:
        matchmaker.register([(self.key, _record())], 60)
        matchmaker.unregister([(self.key, _record())])
        matchmaker.register([(self.key, _record())], 60)
        assert _found(matchmaker, self.key) == (_record(),)

    def test_unregistering_what_is_not_there_is_harmless(self, matchmaker: Matchmaker) -> None:
        matchmaker.unregister([(self.key, _record())])
        matchmaker.register([(self.key, _record(1))], 60)
        matchmaker.unregister([(self.key, _record(2))])
        assert _found(matchmaker, self.key) == (_record(1),)

    def test_registering_nothing_is_harmless(self, matchmaker: Matchmaker) -> None:
        matchmaker.register([], 60)
        matchmaker.unregister([])

    @pytest.mark.parametrize("part", ["exchange", "topic", "server"])
    def test_odd_names_are_kept_apart(self, matchmaker: Matchmaker, part: str) -> None:
        names = {"exchange": "openstack", "topic": "conductor", "server": ""}
        keys = [Key(Role.LISTENER, **{**names, part: name}) for name in ODD_NAMES]
        entries = [(key, _record(number)) for number, key in enumerate(keys)]
        matchmaker.register(entries, 60)
        assert matchmaker.lookup(keys) == [(record,) for _, record in entries]

    def test_parts_that_join_alike_are_kept_apart(self, matchmaker: Matchmaker) -> None:
        keys = [
            Key(Role.LISTENER, *parts)
            for separator in ".:/@-"
            for parts in (
                (f"a{separator}b", "c", ""),
                ("a", f"b{separator}c", ""),
                ("a", "b", "c"),
                ("", f"a{separator}b", "c"),
            )
        ]
        keys = list(dict.fromkeys([*keys, *(key._replace(role=Role.ROUTER) for key in keys)]))
        entries = [(key, _record(number)) for number, key in enumerate(keys)]
        matchmaker.register(entries, 60)
        assert matchmaker.lookup(keys) == [(record,) for _, record in entries]

    def test_each_record_expires_by_itself(self, connect: Connect) -> None:
        matchmaker = connect()
        self._needs_expiry(matchmaker)
        matchmaker.register([(self.key, _record(1))], 0.2)
        matchmaker.register([(self.key, _record(2))], 60)
        reader = connect()
        assert _record(2) in _found(reader, self.key)
        _until(lambda: _found(reader, self.key) == (_record(2),), "the first has expired")

    def test_registering_again_prolongs_a_record(self, matchmaker: Matchmaker) -> None:
        self._needs_expiry(matchmaker)
        witness = _record(2)
        matchmaker.register([(self.key, _record(1)), (self.key, witness)], 0.3)
        matchmaker.register([(self.key, _record(1))], 60)
        _until(lambda: witness not in _found(matchmaker, self.key), "the other has expired")
        assert _found(matchmaker, self.key) == (_record(1),)

    def test_a_record_without_time_to_live_stays(self, matchmaker: Matchmaker) -> None:
        self._needs_expiry(matchmaker)
        matchmaker.register([(self.key, _record(1))], None)
        matchmaker.register([(self.key, _record(2))], 0.2)
        _until(lambda: _record(2) not in _found(matchmaker, self.key), "the other has expired")
        assert _found(matchmaker, self.key) == (_record(1),)

    def test_many_threads_use_one_at_once(self, matchmaker: Matchmaker) -> None:
        problems: list[Exception] = []

        def use(number: int) -> None:
            try:
                for turn in range(10):
                    entry = (self.key, _record(number, member=str(turn)))
                    matchmaker.register([entry], 60)
                    assert entry[1] in _found(matchmaker, self.key)
                    matchmaker.unregister([entry])
            except Exception as error:  # noqa: BLE001  # told by the test's own thread
                problems.append(error)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert _found(matchmaker, self.key) == ()

    def test_a_forked_child_can_use_what_its_parent_used(self, matchmaker: Matchmaker) -> None:
        if not matchmaker.characteristics.shared_across_processes:
            pytest.skip("works within one process")
        matchmaker.register([(self.key, _record(1))], 60)
        mine, its = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                matchmaker.register([(self.key, _record(2))], 60)
                os.write(its[1], b"registered")
                os.close(mine[1])
                os.read(mine[0], 1)  # until the parent has looked
                code = 0
            finally:
                os._exit(code)
        try:
            os.close(its[1])
            assert os.read(its[0], 10) == b"registered"
            assert set(_found(matchmaker, self.key)) == {_record(1), _record(2)}
        finally:
            os.close(mine[1])
            _, status = os.waitpid(child, 0)
            os.close(mine[0])
            os.close(its[0])
        assert status == 0

    def test_changes_are_pushed_until_the_watch_is_closed(self, connect: Connect) -> None:
        told: list[Key | None] = []
        watcher, writer = connect(), connect()
        watch = watcher.watch(told.append)
        if not watcher.characteristics.push:
            assert watch is None
            return
        assert watch is not None
        watch.follow([self.key])
        assert _found(watcher, self.key) == ()
        entries: list[Entry] = [(self.key, _record())]
        writer.register(entries, 60)
        _until(lambda: self.key in told or None in told, "the new record was reported")
        told.clear()
        writer.unregister(entries)
        _until(lambda: self.key in told or None in told, "its end was reported")
        watch.close()
        watch.close()
        told.clear()
        writer.register(entries, 60)
        assert told == []

    def test_what_one_registers_another_does_not_unregister_but_may_remove(
        self, connect: Connect
    ) -> None:
        one, other = connect(), connect()
        one.register([(self.key, _record())], 60)
        other.register([(self.key, _record())], 60)  # the same address: the last one has it
        if one.characteristics.survey:
            one.unregister([(self.key, _record())])
            assert _found(one, self.key) == (_record(),)
        one.remove([(self.key, _record())])
        assert _found(other, self.key) == ()

    def test_refreshing_prolongs_all_and_tells_of_what_was_lost(self, connect: Connect) -> None:
        matchmaker = connect()
        entries: list[Entry] = [
            (self.key._replace(topic=str(number)), _record(number)) for number in range(5)
        ]
        matchmaker.register(entries, 60)
        assert matchmaker.refresh(entries, 60)
        assert _found(matchmaker, entries[0][0]) == (entries[0][1],)
        if matchmaker.characteristics.expiry:
            matchmaker.register(entries, 0.2)
            _until(lambda: _found(matchmaker, entries[0][0]) == (), "expired")
            if not matchmaker.refresh(entries, 0.2):
                matchmaker.register(entries, 60)
            else:
                matchmaker.refresh(entries, 60)
            assert [_found(matchmaker, key) for key, _ in entries] == [(r,) for _, r in entries]

    def test_a_record_says_when_it_expires_and_since_when_it_is_there(
        self, connect: Connect
    ) -> None:
        matchmaker = connect()
        matchmaker.register([(self.key, _record(1))], 60)
        matchmaker.register([(self.key, _record(2))], None)
        [found] = matchmaker.find([self.key])
        assert found.records == (_record(1), _record(2))
        if not matchmaker.characteristics.survey:
            return
        short, endless = found.standings
        assert short.ttl is not None
        assert 50 < short.ttl <= 60
        assert endless.ttl is None
        assert short.registered is not None
        assert matchmaker.refresh([(self.key, _record(1))], 60)
        [again] = connect().find([self.key])
        assert again.standings[0].registered == short.registered

    def test_everything_can_be_listed(self, connect: Connect) -> None:
        matchmaker = connect()
        if not matchmaker.characteristics.survey:
            with pytest.raises(NotSupported):
                matchmaker.survey()
            return
        assert matchmaker.survey() == []
        entries: list[Entry] = [
            (Key(role, "exchange", topic, server), _record(number))
            for role in Role
            for number, (topic, server) in enumerate([("a.b", ""), ("a", "host@lvm"), ("", "é")])
        ]
        matchmaker.register(entries, 60)
        listed = [(key, standing.record) for key, standing in connect().survey()]
        assert listed == sorted(entries)

    def test_one_that_is_set_aside_is_so_for_all_until_it_is_back(self, connect: Connect) -> None:
        one, other = connect(), connect()
        one.register([(self.key, _record(1)), (self.key, _record(2))], 60)
        if not one.characteristics.availability:
            one.set_aside({(self.key, _record(1)): 30})
            assert _found(other, self.key) == (_record(1), _record(2))
            return

        def aside() -> list[float]:
            [found] = other.find([self.key])
            return [standing.aside for standing in found.standings]

        assert aside() == [0, 0]
        one.set_aside({(self.key, _record(1)): 30, (_NOBODY, _record(1)): 30})
        first, second = aside()
        assert 20 < first <= 30
        assert second == 0
        one.set_aside({(self.key, _record(1)): 0})
        assert aside() == [0, 0]
        one.set_aside({(self.key, _record(1)): 30})
        [before] = other.find([self.key])
        other.register([(self.key, _record(1))], 60)
        assert aside() == [0, 0]
        [after] = other.find([self.key])
        assert after.standings[0].registered != before.standings[0].registered
        one.set_aside({(self.key, _record(2)): 0.1})
        _until(lambda: aside() == [0, 0], "its time is over")
        assert _found(other, _NOBODY) == ()

    @staticmethod
    def _needs_expiry(matchmaker: Matchmaker) -> None:
        if not matchmaker.characteristics.expiry:
            pytest.skip("records do not expire")
