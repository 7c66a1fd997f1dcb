# SPDX-License-Identifier: Apache-2.0
"""What a backend does if its characteristics say so, and what it does if they do not."""

from __future__ import annotations

import pytest

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._errors import NotSupported
from zmq_matchmaker._model import Entry, Key, Role
from zmq_matchmaker.testing.conformance._common import (
    KEY,
    NOBODY,
    Connect,
    records_of,
    some_record,
    until,
)
from zmq_matchmaker.testing.conformance._reading import ReadingConformance

__all__ = ["CharacteristicsConformance"]


class CharacteristicsConformance(ReadingConformance):
    """Expiry, push, survey and availability."""

    def test_each_record_expires_by_itself(self, connect: Connect) -> None:
        matchmaker = connect()
        self._needs_expiry(matchmaker)
        matchmaker.register([(KEY, some_record(1))], 0.2)
        matchmaker.register([(KEY, some_record(2))], 60)
        reader = connect()
        assert some_record(2) in records_of(reader, KEY)
        until(lambda: records_of(reader, KEY) == (some_record(2),), "the first has expired")

    def test_registering_again_prolongs_a_record(self, matchmaker: Matchmaker) -> None:
        self._needs_expiry(matchmaker)
        witness = some_record(2)
        matchmaker.register([(KEY, some_record(1)), (KEY, witness)], 0.3)
        matchmaker.register([(KEY, some_record(1))], 60)
        until(lambda: witness not in records_of(matchmaker, KEY), "the other has expired")
        assert records_of(matchmaker, KEY) == (some_record(1),)

    def test_a_record_without_time_to_live_stays(self, matchmaker: Matchmaker) -> None:
        self._needs_expiry(matchmaker)
        matchmaker.register([(KEY, some_record(1))], None)
        matchmaker.register([(KEY, some_record(2))], 0.2)
        until(lambda: some_record(2) not in records_of(matchmaker, KEY), "the other has expired")
        assert records_of(matchmaker, KEY) == (some_record(1),)

    def test_changes_are_pushed_until_the_watch_is_closed(self, connect: Connect) -> None:
        told: list[Key | None] = []
        watcher, writer = connect(), connect()
        watch = watcher.watch(told.append)
        if not watcher.characteristics.push:
            assert watch is None
            return
        assert watch is not None
        watch.follow([KEY])
        assert records_of(watcher, KEY) == ()
        entries: list[Entry] = [(KEY, some_record())]
        writer.register(entries, 60)
        until(lambda: KEY in told or None in told, "the new record was reported")
        told.clear()
        writer.unregister(entries)
        until(lambda: KEY in told or None in told, "its end was reported")
        watch.close()
        watch.close()
        told.clear()
        writer.register(entries, 60)
        assert told == []

    def test_what_one_registers_another_does_not_unregister_but_may_remove(
        self, connect: Connect
    ) -> None:
        one, other = connect(), connect()
        one.register([(KEY, some_record())], 60)
        other.register([(KEY, some_record())], 60)  # the same address: the last one has it
        if one.characteristics.survey:
            one.unregister([(KEY, some_record())])
            assert records_of(one, KEY) == (some_record(),)
        one.remove([(KEY, some_record())])
        assert records_of(other, KEY) == ()

    def test_refreshing_prolongs_all_and_tells_of_what_was_lost(self, connect: Connect) -> None:
        matchmaker = connect()
        entries: list[Entry] = [
            (KEY._replace(topic=str(number)), some_record(number)) for number in range(5)
        ]
        matchmaker.register(entries, 60)
        assert matchmaker.refresh(entries, 60)
        assert records_of(matchmaker, entries[0][0]) == (entries[0][1],)
        if matchmaker.characteristics.expiry:
            matchmaker.register(entries, 0.2)
            until(lambda: records_of(matchmaker, entries[0][0]) == (), "expired")
            if not matchmaker.refresh(entries, 0.2):
                matchmaker.register(entries, 60)
            else:
                matchmaker.refresh(entries, 60)
            assert [records_of(matchmaker, key) for key, _ in entries] == [(r,) for _, r in entries]

    def test_a_record_says_when_it_expires_and_since_when_it_is_there(
        self, connect: Connect
    ) -> None:
        matchmaker = connect()
        matchmaker.register([(KEY, some_record(1))], 60)
        matchmaker.register([(KEY, some_record(2))], None)
        [found] = matchmaker.find([KEY])
        assert found.records == (some_record(1), some_record(2))
        if not matchmaker.characteristics.survey:
            return
        short, endless = found.standings
        assert short.ttl is not None
        assert 50 < short.ttl <= 60
        assert endless.ttl is None
        assert short.registered is not None
        assert matchmaker.refresh([(KEY, some_record(1))], 60)
        [again] = connect().find([KEY])
        assert again.standings[0].registered == short.registered

    def test_everything_can_be_listed(self, connect: Connect) -> None:
        matchmaker = connect()
        if not matchmaker.characteristics.survey:
            with pytest.raises(NotSupported):
                matchmaker.survey()
            return
        assert matchmaker.survey() == []
        entries: list[Entry] = [
            (Key(role, "exchange", topic, server), some_record(number))
            for role in Role
            for number, (topic, server) in enumerate([("a.b", ""), ("a", "host@lvm"), ("", "é")])
        ]
        matchmaker.register(entries, 60)
        listed = [(key, standing.record) for key, standing in connect().survey()]
        assert listed == sorted(entries)

    def test_one_that_is_set_aside_is_so_for_all_until_it_is_back(self, connect: Connect) -> None:
        one, other = connect(), connect()
        one.register([(KEY, some_record(1)), (KEY, some_record(2))], 60)
        if not one.characteristics.availability:
            one.set_aside({(KEY, some_record(1)): 30})
            assert records_of(other, KEY) == (some_record(1), some_record(2))
            return

        def aside() -> list[float]:
            [found] = other.find([KEY])
            return [standing.aside for standing in found.standings]

        assert aside() == [0, 0]
        one.set_aside({(KEY, some_record(1)): 30, (NOBODY, some_record(1)): 30})
        first, second = aside()
        assert 20 < first <= 30
        assert second == 0
        one.set_aside({(KEY, some_record(1)): 0})
        assert aside() == [0, 0]
        one.set_aside({(KEY, some_record(1)): 30})
        [before] = other.find([KEY])
        other.register([(KEY, some_record(1))], 60)
        assert aside() == [0, 0]
        [after] = other.find([KEY])
        assert after.standings[0].registered != before.standings[0].registered
        one.set_aside({(KEY, some_record(2)): 0.1})
        until(lambda: aside() == [0, 0], "its time is over")
        assert records_of(other, NOBODY) == ()

    @staticmethod
    def _needs_expiry(matchmaker: Matchmaker) -> None:
        if not matchmaker.characteristics.expiry:
            pytest.skip("records do not expire")
