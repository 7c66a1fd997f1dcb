# SPDX-License-Identifier: Apache-2.0
"""Whom a message is tried with, and what its sender is told when nobody took it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence

import pytest
from oslo_messaging import Target

from zmq_core import Latch
from zmq_matchmaker import Directory, Found, Key, MatchmakerURL
from zmq_matchmaker.backends.dummy import DummyMatchmaker
from zmq_oslo_driver.addresses import rpc_address
from zmq_oslo_driver.routing import Attempts
from zmq_oslo_driver.turns import Turns

ADDRESS = rpc_address(Target(topic="work"), "openstack")


class Stalling(DummyMatchmaker):
    """Gives so many answers, and no more until it is let."""

    answers = 1

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        self.go_on = Latch()

    def find(self, keys: Sequence[Key]) -> list[Found]:
        self.answers -= 1
        if self.answers < 0:
            self.go_on.wait(30)
        return super().find(keys)


@pytest.fixture
def matchmaker() -> Stalling:
    return Stalling(MatchmakerURL.parse(f"dummy:///{uuid.uuid4().hex}"))


@pytest.fixture
def directory(matchmaker: Stalling) -> Iterator[Directory]:
    directory = Directory(matchmaker)
    yield directory
    matchmaker.go_on.set()
    directory.close()


def problem(directory: Directory) -> str:
    deadline = time.monotonic() + 0.5
    attempts = Attempts(directory, Turns(), ADDRESS, deadline, None, Latch())
    assert list(attempts) == []
    assert time.monotonic() >= deadline
    return attempts.problem


def test_that_nobody_listens_is_said_also_if_the_matchmaker_could_not_say_it_again(
    directory: Directory,
) -> None:
    assert problem(directory) == f"nobody listens on {ADDRESS}"


def test_a_matchmaker_that_has_not_answered_is_named(
    directory: Directory, matchmaker: Stalling
) -> None:
    matchmaker.answers = 0
    assert problem(directory).startswith(f"the matchmaker cannot be asked: {matchmaker.url}")
