# SPDX-License-Identifier: Apache-2.0
"""Several Redis, of which some die: behind Sentinels, as a cluster, and independent ones."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from zmq_matchmaker import (
    AccessDenied,
    Directory,
    Key,
    MatchmakerURL,
    Record,
    Role,
    Unavailable,
    load,
)
from zmq_matchmaker.backends.redis import _independent, _server
from zmq_matchmaker.testing import RedisClusterServers, RedisSentinels, RedisServer

MakeDirectory = Callable[..., Directory]
Until = Callable[..., None]

KEY = Key(Role.LISTENER, "openstack", "conductor")
OTHER = KEY._replace(topic="scheduler")
A, B, C = (Record(endpoint=f"tcp://10.0.0.{number}:49153") for number in (1, 2, 3))


@pytest.fixture
def three() -> Iterator[list[RedisServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(RedisServer()) for _ in range(3)]


def independent(servers: list[RedisServer], query: str = "") -> str:
    return f"redis://{','.join(f'127.0.0.1:{server.port}' for server in servers)}/x{query}"


def known_to(server: RedisServer, key: Key = KEY) -> tuple[Record, ...]:
    """What one server has, asked without the others."""
    matchmaker = load(MatchmakerURL.parse(f"{server.url}/x"))
    try:
        return matchmaker.lookup([key])[0]
    finally:
        matchmaker.close()


def test_f13_calls_go_on_and_records_are_written_while_sentinels_fail_over(
    sentinels: RedisSentinels, make_directory: MakeDirectory, until: Until
) -> None:
    url = f"{sentinels.url}/a"
    server, client = make_directory(url), make_directory(url)
    server.announce([(KEY, A)])
    assert client.lookup(KEY, 5) == (A,)
    old = sentinels.master
    new = sentinels.fail_over()
    assert new is not old
    assert client.lookup(KEY, 5) == (A,)
    server.announce([(KEY, B)])
    until(lambda: client.lookup(KEY, 5) == (A, B), "the new one is used", seconds=10)
    until(lambda: make_directory(url).lookup(KEY, 5) == (A, B), "written", seconds=10)
    # The old one comes back, is made a replica, and is not written to.
    old.start()
    until(lambda: old.role == "slave", "is a replica", seconds=15)
    # (On a busy machine the Sentinels may fail over once more; a replica refuses to be written.)
    server.announce([(KEY, C)])
    until(lambda: make_directory(url).lookup(KEY, 5) == (A, B, C), "written", seconds=10)


def test_a_master_that_only_seems_dead_is_left_when_another_is_named(
    sentinels: RedisSentinels, make_directory: MakeDirectory, until: Until
) -> None:
    url = f"{sentinels.url}/b?socket_timeout=0.5"
    server = make_directory(url)
    server.announce([(KEY, A)])
    old = sentinels.master
    old.stop()
    try:
        until(lambda: sentinels.master is not old, "failed over", seconds=20)
    finally:
        old.cont()
    server.announce([(KEY, B)])
    until(lambda: old.role == "slave", "is a replica", seconds=15)
    until(lambda: server.statistics.unwritten == 0, "written", seconds=10)
    until(lambda: make_directory(url).lookup(KEY, 5) == (A, B), "at the new one", seconds=10)


def test_sentinels_are_recognized_whatever_the_scheme_and_their_only_group_is_found(
    sentinels: RedisSentinels, make_directory: MakeDirectory
) -> None:
    login = ":p%20w@"
    make_directory(f"sentinel://{login}{sentinels.hosts}/zmq/y").announce([(KEY, A)])
    for url in (
        f"redis://{login}{sentinels.hosts}/y",
        f"redis://{login}{sentinels.hosts}/y?sentinel_group=zmq",
        f"sentinel://{login}{sentinels.hosts}/y?sentinel_group=zmq",
    ):
        assert make_directory(url).lookup(KEY, 5) == (A,), url
    with pytest.raises(Unavailable, match=r"No master found for 'nonsense'\)") as caught:
        make_directory(f"sentinel://{login}{sentinels.hosts}/nonsense/x").lookup(KEY, 5)
    assert len(str(caught.value)) < 400


def test_sentinels_that_ask_for_the_password_are_given_it(make_directory: MakeDirectory) -> None:
    with RedisSentinels(replicas=0, sentinels=1, password="p w", guarded=True) as guarded:
        for scheme, group in (("sentinel", "zmq/"), ("redis", "")):
            url = f"{scheme}://:p%20w@{guarded.hosts}/{group}x"
            directory = make_directory(url)
            directory.announce([(KEY, A)])
            assert make_directory(url).lookup(KEY, 5) == (A,)
        for login in ("", ":wrong@"):
            with pytest.raises(AccessDenied, match="check user and password"):
                make_directory(f"sentinel://{login}{guarded.hosts}/zmq/x").lookup(KEY, 5)


@pytest.mark.parametrize("how", [RedisServer.kill, RedisServer.stop])
def test_a_master_is_used_although_no_sentinel_answers(
    make_directory: MakeDirectory, monkeypatch: pytest.MonkeyPatch, how: Callable[..., None]
) -> None:
    monkeypatch.setattr(_server, "_CHECK_MASTER", 0.1)
    with RedisSentinels(replicas=0, sentinels=1) as one:
        directory = make_directory(f"{one.url}/x?socket_timeout=0.3")
        directory.announce([(KEY, A)])
        how(one.sentinels[0])
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < 1.5:
            assert directory.lookup(KEY._replace(topic=str(number)), 5) == ()
            number += 1
        assert directory.statistics.failures == 0


def test_a_redis_that_is_called_a_sentinel_says_that_it_is_none(
    redis: RedisServer, make_directory: MakeDirectory
) -> None:
    url = f"sentinel://127.0.0.1:{redis.port}/zmq"
    with pytest.raises(Unavailable, match=rf"127.0.0.1:{redis.port} is no Sentinel"):
        make_directory(url).lookup(KEY, 5)


def test_a_cluster_goes_on_when_the_node_of_the_deployment_dies(
    make_directory: MakeDirectory, until: Until
) -> None:
    with RedisClusterServers() as cluster:
        url = f"{cluster.url}/x"
        server, client = make_directory(url), make_directory(url)
        server.announce([(KEY, A), (OTHER, B)])
        assert client.lookup(KEY, 5) == (A,)
        server.announce([(KEY, B)])
        until(lambda: client.lookup(KEY, 5) == (A, B), "pushed", seconds=1)
        cluster.fail_over("zmq:{x}:leases")
        assert client.lookup(KEY, 5) == (A, B)
        server.announce([(KEY, C)])
        until(lambda: client.lookup(KEY, 5) == (A, B, C), "the new one is used", seconds=10)
        assert make_directory(url).lookup(OTHER, 5) == (B,)
        with pytest.raises(Unavailable, match="only database 0"):
            make_directory(f"{url}?db=1").lookup(KEY, 5)
        client.close()
        server.close()


def test_independent_servers_are_written_to_all_and_any_is_enough_to_read(
    three: list[RedisServer], make_directory: MakeDirectory, until: Until
) -> None:
    url = independent(three)
    server, client = make_directory(url), make_directory(url)
    server.announce([(KEY, A)])
    assert [known_to(one) for one in three] == [(A,)] * 3
    for dead in three[:2]:
        dead.kill()
        assert make_directory(url).lookup(KEY, 5) == (A,)
    server.announce([(KEY, B)])
    until(lambda: client.refresh(KEY, 5) == (A, B), "the one that is left is enough")
    server.withdraw([(KEY, A)])
    until(lambda: make_directory(url).lookup(KEY, 5) == (B,), "withdrawn")


def test_an_independent_server_that_comes_back_empty_is_told_all_and_read_only_then(
    three: list[RedisServer],
    make_directory: MakeDirectory,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    url = independent(three)
    server = make_directory(url)
    server.announce([(KEY, A), (OTHER, B)])
    three[0].kill()
    server.announce([(KEY, A)])
    assert not server.statistics.reachable
    three[0].start()  # empty, and the first of the list
    began = time.monotonic()
    while known_to(three[0]) != (A,) or known_to(three[0], OTHER) != (B,):
        assert make_directory(url).lookup(KEY, 5) == (A,)
        assert time.monotonic() - began < 10
    until(lambda: server.statistics.reachable, "all are written to again")
    problems = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert any(f"127.0.0.1:{three[0].port}" in problem for problem in problems)
    for dead in three[1:]:
        dead.kill()
    assert make_directory(url).lookup(KEY, 5) == (A,)


def test_the_independent_server_is_read_that_was_told_everything_for_the_longest_time(
    three: list[RedisServer], make_directory: MakeDirectory
) -> None:
    url = independent(three)
    server = make_directory(url)
    server.announce([(KEY, A)])
    with three[0].client() as admin:
        admin.flushall()  # and somebody registers there, long before the others look
    matchmaker = load(MatchmakerURL.parse(f"{three[0].url}/x"))
    matchmaker.register([(OTHER, B)], 60)
    matchmaker.close()
    now = time.time()
    for one, seconds in zip(three, (100, 1000, 500), strict=True):
        with one.client() as admin:
            admin.set("zmq:{x}:since", now - seconds)
    client = make_directory(url)
    assert client.lookup(KEY, 5) == (A,)
    three[1].kill()
    assert client.refresh(KEY, 5) == (A,)


def test_an_independent_server_that_was_emptied_in_a_moment_is_told_all_within_seconds(
    three: list[RedisServer], make_directory: MakeDirectory, until: Until
) -> None:
    servers = [make_directory(independent(three)) for _ in range(5)]
    for number, server in enumerate(servers):
        server.announce([(KEY, Record(endpoint=f"tcp://h:{number}"))])
        server.lookup(KEY, 5)
    three[2].restart()  # nobody writes meanwhile, and for 40 s nobody would
    until(lambda: len(known_to(three[2])) == 5, "all have registered", seconds=10)


def test_an_independent_server_that_hangs_delays_nobody(
    three: list[RedisServer], make_directory: MakeDirectory, until: Until
) -> None:
    url = independent(three, "?socket_timeout=2")
    server, client = make_directory(url), make_directory(url)
    server.announce([(KEY, A)])
    assert client.lookup(KEY, 5) == (A,)
    three[2].stop()  # the last of the list: reading does not meet it
    try:
        for number in range(5):
            began = time.monotonic()
            server.announce([(OTHER, Record(endpoint=f"tcp://h:{number}"))])
            assert time.monotonic() - began < 1.0
            assert client.lookup(KEY, 0.5) == (A,)
    finally:
        three[2].cont()
    until(lambda: server.statistics.reachable, "all are written to again")
    assert len(known_to(three[2], OTHER)) == 5


def test_an_independent_server_that_hangs_delays_no_lookup(
    three: list[RedisServer], make_directory: MakeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_independent, "_AVOID", 0.05)
    monkeypatch.setattr(_independent, "_AVOID_LONGEST", 0.05)
    client = make_directory(independent(three, "?socket_timeout=2"))
    client.announce([(KEY, A)])
    assert client.lookup(KEY, 5) == (A,)
    three[0].stop()
    try:
        longest = 0.0
        for number in range(100):
            began = time.monotonic()
            assert client.lookup(OTHER._replace(topic=str(number)), 5) == ()
            longest = max(longest, time.monotonic() - began)
    finally:
        three[0].cont()
    assert longest < 1.2  # 0.3 s are waited for the one that hangs


def test_all_that_hang_are_waited_for_at_once(three: list[RedisServer]) -> None:
    matchmaker = load(MatchmakerURL.parse(independent(three, "?socket_timeout=0.5")))
    for one in three:
        one.stop()
    try:
        for _ in range(2):  # before and after it is known what they are
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s"):
                matchmaker.find([KEY])
            assert time.monotonic() - began < 1.2
    finally:
        for one in three:
            one.cont()
        matchmaker.close()


AT_EXIT = """
import atexit, sys
from zmq_matchmaker import Directory, Key, MatchmakerURL, Record, Role, load
directory = Directory(load(MatchmakerURL.parse(sys.argv[1])))
atexit.register(directory.close)
directory.announce([(Key(Role.LISTENER, "openstack", "conductor"), Record(endpoint="tcp://h:1"))])
print("announced", flush=True)
sys.stdin.read()
"""


def test_a_program_that_ends_by_itself_withdraws_from_all_of_them(
    three: list[RedisServer],
) -> None:
    command = [sys.executable, "-c", AT_EXIT, independent(three)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "announced\n"
        assert [len(known_to(one)) for one in three] == [1, 1, 1]
        assert process.communicate(timeout=30)[1] == ""
    assert [known_to(one) for one in three] == [(), (), ()]


def test_hosts_of_different_kinds_are_refused_by_name(
    redis: RedisServer, sentinels: RedisSentinels, make_directory: MakeDirectory
) -> None:
    hosts = f"127.0.0.1:{sentinels.ports[0]},127.0.0.1:{redis.port}"
    with pytest.raises(Unavailable, match=r"different kinds: .* is sentinel, .* is standalone"):
        make_directory(f"redis://{hosts}/x").lookup(KEY, 5)
