# SPDX-License-Identifier: Apache-2.0
"""A real Redis, waiting without sleeping blindly, and the proof that nothing is left."""

from __future__ import annotations

import gc
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from zmq_matchmaker import Directory, Matchmaker, MatchmakerURL, load
from zmq_matchmaker.testing import RedisSentinels, RedisServer

Until = Callable[..., None]
MakeDirectory = Callable[..., Directory]


def _held() -> tuple[int, int]:
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def _until(condition: Callable[[], object], what: str = "", seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


@pytest.fixture(scope="session", autouse=True)
def cheap_collections() -> Iterator[None]:
    """Spare the garbage collections of each test what pytest and the modules hold anyway."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One Redis for the tests that leave it running."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def sentinels() -> Iterator[RedisSentinels]:
    """All servers run when a test ends, so that the next can use them; which is master varies."""
    with RedisSentinels(password="p w") as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test returns every thread and descriptor that it took."""
    for name in ("shared_redis", "restricted_redis", "tls_redis", "sentinels"):
        if name in request.fixturenames:
            request.getfixturevalue(name)  # lives longer than this test
    before = _held()
    yield
    _until(lambda: all(now <= then for now, then in zip(_held(), before, strict=True)), "released")


@pytest.fixture
def until() -> Until:
    """Waits for a condition, with a deadline."""
    return _until


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """A deployment that nobody else uses, in the Redis that stays up."""
    return f"{shared_redis.url}/{uuid.uuid4().hex}"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, to be treated badly."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def commands(redis: RedisServer) -> Iterator[Callable[[], list[str]]]:
    """The commands that clients have sent since the last call, as MONITOR shows them."""
    marker = uuid.uuid4().hex
    with redis.client() as client, client.monitor() as monitor:

        def sent() -> list[str]:
            with redis.client() as other:
                other.echo(marker)
            found: list[str] = []
            while True:
                entry = monitor.next_command()
                if marker in entry["command"]:
                    return found
                words = entry["command"].split(maxsplit=1)
                if entry["client_type"] != "lua" and words[0] not in ("CLIENT", "HELLO", "AUTH"):
                    found.append(words[0].upper())

        sent()
        yield sent


@pytest.fixture
def make_directory() -> Iterator[MakeDirectory]:
    """Makes directories, each like another process's, and closes them."""
    made: list[Directory] = []

    def make(
        url: str,
        expire: float = 120.0,
        update: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Directory:
        backend = load(MatchmakerURL.parse(url))
        made.append(Directory(backend, expire=expire, update=update, clock=clock))
        return made[-1]

    yield make
    for directory in made:
        directory.close()


@pytest.fixture
def process(url: str) -> Iterator[Matchmaker]:
    """What a process has that does not refresh its records; `url` is the test module's own."""
    matchmaker = load(MatchmakerURL.parse(url))
    yield matchmaker
    matchmaker.close()
