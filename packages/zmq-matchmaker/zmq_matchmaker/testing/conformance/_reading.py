# SPDX-License-Identifier: Apache-2.0
"""What every backend does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._loader import load
from zmq_matchmaker._url import MatchmakerURL
from zmq_matchmaker.testing.conformance._common import NOBODY, Connect

__all__ = ["ReadingConformance"]


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
        assert matchmaker.lookup([NOBODY, NOBODY]) == [(), ()]

    def test_looking_up_nothing_is_harmless(self, matchmaker: Matchmaker) -> None:
        assert matchmaker.lookup([]) == []

    def test_closing_twice_is_harmless(self, matchmaker: Matchmaker) -> None:
        matchmaker.lookup([NOBODY])
        matchmaker.close()
        matchmaker.close()

    def test_closing_gives_back_all_threads_and_descriptors(self, connect: Connect) -> None:
        before = threading.active_count(), len(os.listdir("/proc/self/fd"))
        matchmaker = connect()
        matchmaker.lookup([NOBODY])
        matchmaker.close()
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before

    def test_its_url_in_text_is_its_own(self, matchmaker: Matchmaker, url: MatchmakerURL) -> None:
        assert str(matchmaker.url) == str(url)
