# SPDX-License-Identifier: Apache-2.0
"""Handlers of signals that raise, as Ctrl-C does, where a thread uses a directory."""

from __future__ import annotations

import random
import signal
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest

from zmq_matchmaker import Directory, Key, MatchmakerURL, Record, Role, load

KEY = Key(Role.LISTENER, "nova", "conductor")
ONE = Record(endpoint="tcp://127.0.0.1:1")


class Interrupt(BaseException):
    """What the handler raises."""


@pytest.fixture
def directory() -> Iterator[Directory]:
    directory = Directory(load(MatchmakerURL.parse(f"dummy:///{uuid.uuid4().hex}")))
    yield directory
    closing = threading.Thread(target=directory.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive(), "nothing is left locked"


@pytest.fixture
def interrupted_after() -> Iterator[Callable[[float], None]]:
    """Has the handler raise in so many seconds."""

    def interrupt(*_: object) -> None:
        raise Interrupt

    previous = signal.signal(signal.SIGALRM, interrupt)

    def after(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield after
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("seed", range(3))
def test_lookups_that_are_interrupted_anywhere_hold_up_nobody(
    directory: Directory, interrupted_after: Callable[[float], None], seed: int
) -> None:
    directory.announce([(KEY, ONE)])
    chance = random.Random(seed)
    for _ in range(2000):
        try:
            interrupted_after(chance.uniform(5e-5, 5e-4))
            while True:
                directory.lookup(KEY._replace(topic=str(chance.random())), 20)
        except Interrupt:
            pass
    found: list[tuple[Record, ...]] = []
    others = threading.Thread(target=lambda: found.append(directory.refresh(KEY, 20)), daemon=True)
    others.start()
    others.join(20)
    assert found == [(ONE,)]


@pytest.mark.parametrize("started", [True, False])
def test_there_is_one_thread_where_its_start_was_interrupted(
    directory: Directory,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[..., None],
    started: bool,
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if started:
            start(thread)
        raise Interrupt

    before = threading.active_count()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(Interrupt):
            directory.lookup(KEY, 20)
    directory.announce([(KEY, ONE)])
    assert directory.lookup(KEY, 20) == (ONE,)
    until(lambda: threading.active_count() == before + 1, "one of them has left")
    directory.close()
    until(lambda: threading.active_count() == before, "so has the other")
