# SPDX-License-Identifier: Apache-2.0
"""What a backend does that lets processes register."""

from __future__ import annotations

import os
import threading

import pytest

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._model import Key, Role
from zmq_matchmaker.testing.conformance._common import (
    KEY,
    NOBODY,
    ODD_NAMES,
    Connect,
    records_of,
    some_record,
)
from zmq_matchmaker.testing.conformance._reading import ReadingConformance

__all__ = ["RegisteringConformance"]


class RegisteringConformance(ReadingConformance):
    """What a backend does that lets processes register."""

    def test_what_one_registers_another_finds(self, connect: Connect) -> None:
        connect().register([(KEY, some_record())], 60)
        assert records_of(connect(), KEY) == (some_record(),)

    def test_all_fields_of_a_record_come_back(self, connect: Connect) -> None:
        record = some_record(node="host/42/ôslo", member="host@lvm", pool="audit pool")
        connect().register([(KEY, record)], 60)
        assert records_of(connect(), KEY) == (record,)

    def test_registering_again_makes_no_second_record(self, matchmaker: Matchmaker) -> None:
        for ttl in (60, 60, None, 60):
            matchmaker.register([(KEY, some_record())], ttl)
        assert records_of(matchmaker, KEY) == (some_record(),)

    def test_records_come_in_a_stable_order(self, matchmaker: Matchmaker) -> None:
        records = [some_record(number) for number in (3, 1, 2)]
        for record in records:
            matchmaker.register([(KEY, record)], 60)
        assert records_of(matchmaker, KEY) == tuple(sorted(records))

    def test_records_that_differ_in_one_field_are_different(self, matchmaker: Matchmaker) -> None:
        records = {
            some_record(),
            some_record(node="n"),
            some_record(member="n"),
            some_record(pool="n"),
            some_record(2),
        }
        matchmaker.register([(KEY, record) for record in records], 60)
        assert set(records_of(matchmaker, KEY)) == records

    def test_many_entries_are_registered_at_once(self, matchmaker: Matchmaker) -> None:
        entries = [
            (KEY._replace(topic=f"topic {topic}"), some_record(member))
            for topic in range(20)
            for member in range(5)
        ]
        matchmaker.register(entries, 60)
        keys = list(dict.fromkeys(key for key, _ in entries))
        expected = tuple(some_record(member) for member in range(5))
        assert matchmaker.lookup(keys) == [expected] * 20
        matchmaker.unregister(entries)
        assert matchmaker.lookup(keys) == [()] * 20

    def test_answers_come_in_the_order_of_the_keys(self, matchmaker: Matchmaker) -> None:
        other = KEY._replace(topic="other")
        matchmaker.register([(KEY, some_record(1)), (other, some_record(2))], 60)
        assert matchmaker.lookup([other, NOBODY, KEY, other]) == [
            (some_record(2),),
            (),
            (some_record(1),),
            (some_record(2),),
        ]

    def test_what_is_unregistered_is_gone_and_nothing_else(self, connect: Connect) -> None:
        one = connect()
        one.register([(KEY, some_record(1)), (KEY, some_record(2))], 60)
        one.unregister([(KEY, some_record(1))])
        assert records_of(connect(), KEY) == (some_record(2),)

    def test_what_was_unregistered_can_be_registered_again(self, matchmaker: Matchmaker) -> None:
        matchmaker.register([(KEY, some_record())], 60)
        matchmaker.unregister([(KEY, some_record())])
        matchmaker.register([(KEY, some_record())], 60)
        assert records_of(matchmaker, KEY) == (some_record(),)

    def test_unregistering_what_is_not_there_is_harmless(self, matchmaker: Matchmaker) -> None:
        matchmaker.unregister([(KEY, some_record())])
        matchmaker.register([(KEY, some_record(1))], 60)
        matchmaker.unregister([(KEY, some_record(2))])
        assert records_of(matchmaker, KEY) == (some_record(1),)

    def test_registering_nothing_is_harmless(self, matchmaker: Matchmaker) -> None:
        matchmaker.register([], 60)
        matchmaker.unregister([])

    @pytest.mark.parametrize("part", ["exchange", "topic", "server"])
    def test_odd_names_are_kept_apart(self, matchmaker: Matchmaker, part: str) -> None:
        names = {"exchange": "openstack", "topic": "conductor", "server": ""}
        keys = [Key(Role.LISTENER, **{**names, part: name}) for name in ODD_NAMES]
        entries = [(key, some_record(number)) for number, key in enumerate(keys)]
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
        entries = [(key, some_record(number)) for number, key in enumerate(keys)]
        matchmaker.register(entries, 60)
        assert matchmaker.lookup(keys) == [(record,) for _, record in entries]

    def test_many_threads_use_one_at_once(self, matchmaker: Matchmaker) -> None:
        problems: list[Exception] = []

        def use(number: int) -> None:
            try:
                for turn in range(10):
                    entry = (KEY, some_record(number, member=str(turn)))
                    matchmaker.register([entry], 60)
                    assert entry[1] in records_of(matchmaker, KEY)
                    matchmaker.unregister([entry])
            except Exception as error:  # noqa: BLE001  # told by the test's own thread
                problems.append(error)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert records_of(matchmaker, KEY) == ()

    def test_a_forked_child_can_use_what_its_parent_used(self, matchmaker: Matchmaker) -> None:
        if not matchmaker.characteristics.shared_across_processes:
            pytest.skip("works within one process")
        matchmaker.register([(KEY, some_record(1))], 60)
        mine, its = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                matchmaker.register([(KEY, some_record(2))], 60)
                os.write(its[1], b"registered")
                os.close(mine[1])
                os.read(mine[0], 1)  # until the parent has looked
                code = 0
            finally:
                os._exit(code)
        try:
            os.close(its[1])
            assert os.read(its[0], 10) == b"registered"
            assert set(records_of(matchmaker, KEY)) == {some_record(1), some_record(2)}
        finally:
            os.close(mine[1])
            _, status = os.waitpid(child, 0)
            os.close(mine[0])
            os.close(its[0])
        assert status == 0
