# SPDX-License-Identifier: Apache-2.0
"""A Redis whose connections are cut, or that forbids what is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from zmq_matchmaker import AccessDenied, Directory, Key, Record, Role, Unavailable
from zmq_matchmaker.testing import RedisServer, Relay

MakeDirectory = Callable[..., Directory]
Until = Callable[..., None]

KEY = Key(Role.LISTENER, "openstack", "conductor")
A, B, C = (Record(endpoint=f"tcp://10.0.0.{number}:49153") for number in (1, 2, 3))


@pytest.fixture
def relay(redis: RedisServer) -> Iterator[Relay]:
    with Relay(redis.port) as relay:
        yield relay


@pytest.mark.parametrize("length", [0, 1, 7, 40])
def test_an_answer_that_is_cut_in_the_middle_is_asked_for_again(
    relay: Relay, redis: RedisServer, make_directory: MakeDirectory, length: int
) -> None:
    url = f"redis://127.0.0.1:{relay.port}/x"
    directory = make_directory(url)
    directory.announce([(KEY, A)])
    assert directory.refresh(KEY, 5) == (A,)
    relay.cut_in_answer(length)
    directory.announce([(KEY, B)])
    assert make_directory(f"{redis.url}/x").lookup(KEY, 5) == (A, B)
    relay.cut_in_answer(length)
    assert directory.refresh(KEY, 5) == (A, B)
    relay.cut_in_answer(length)
    directory.withdraw([(KEY, A)])
    assert make_directory(f"{redis.url}/x").lookup(KEY, 5) == (B,)


@pytest.mark.alone
def test_changes_that_were_not_reported_are_seen_when_the_connection_is_back(
    relay: Relay, redis: RedisServer, make_directory: MakeDirectory, until: Until
) -> None:
    server = make_directory(f"{redis.url}/x")
    client = make_directory(f"redis://127.0.0.1:{relay.port}/x")
    server.announce([(KEY, A)])
    assert client.lookup(KEY, 5) == (A,)
    for record in (B, C):
        relay.cut()
        server.announce([(KEY, record)])
        until(lambda r=record: r in client.lookup(KEY, 5), "seen", seconds=2)
    server.withdraw([(KEY, A)])
    until(lambda: client.lookup(KEY, 5) == (B, C), "reported again", seconds=1)


def test_a_connection_that_went_silent_is_noticed_by_all(
    relay: Relay, redis: RedisServer, make_directory: MakeDirectory, until: Until
) -> None:
    server = make_directory(f"{redis.url}/x")
    client = make_directory(f"redis://127.0.0.1:{relay.port}/x?socket_timeout=0.3", update=0.2)
    server.announce([(KEY, A)])
    assert client.lookup(KEY, 5) == (A,)
    relay.hold()
    until(lambda: not client.statistics.reachable, "noticed", seconds=3)
    server.announce([(KEY, B)])
    assert client.lookup(KEY, 0.01) == (A,)
    relay.cut()
    relay.release()
    until(lambda: client.lookup(KEY, 5) == (A, B), "works again", seconds=8)


def test_a_user_who_may_not_subscribe_finds_changes_by_looking_and_is_told_what_is_missing(
    make_directory: MakeDirectory, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    acl = "~zmq:* resetchannels +@all -subscribe -publish"
    with RedisServer(user="nova", password="secret", acl=acl) as redis:
        server, client = (make_directory(f"{redis.url}/x", update=0.2) for _ in range(2))
        server.announce([(KEY, A)])
        assert client.lookup(KEY, 5) == (A,)
        server.announce([(KEY, B)])
        until(lambda: client.lookup(KEY, 5) == (A, B), "found")
        until(lambda: "+subscribe" in caplog.text, "told")
        assert client.statistics.reachable
        client.close()
        server.close()


@pytest.mark.parametrize("command", ["evalsha", "time", "hgetall"])
def test_a_command_that_the_user_may_not_give_is_named(
    make_directory: MakeDirectory, command: str
) -> None:
    acl = f"~zmq:* resetchannels &zmq:* +@all -{command}"
    with RedisServer(user="nova", password="secret", acl=acl) as redis:
        client = make_directory(f"{redis.url}/x")
        with pytest.raises(AccessDenied, match=r"permissions \(ACL\)") as caught:
            client.lookup(KEY, 5)
        assert f"127.0.0.1:{redis.port}" in str(caught.value)
        assert "secret" not in str(caught.value)
        client.close()


def test_a_command_that_was_renamed_is_named_and_does_not_end_the_thread(
    make_directory: MakeDirectory, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    with RedisServer("--rename-command", "EVALSHA", "") as redis:
        client = make_directory(f"{redis.url}/x")
        with pytest.raises(Unavailable, match="renamed or forbidden"):
            client.lookup(KEY, 5)
        client.announce([(KEY, A)])
        until(lambda: "renamed" in caplog.text, "logged")
        warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warnings) <= 2
        client.close()
