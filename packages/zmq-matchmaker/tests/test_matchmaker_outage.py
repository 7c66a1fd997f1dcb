# SPDX-License-Identifier: Apache-2.0
"""The directory over a Redis that is killed, stopped, emptied, full, or not there yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest
from redis.exceptions import OutOfMemoryError

from zmq_matchmaker import AccessDenied, Directory, Key, Matchmaker, Record, Role, Unavailable
from zmq_matchmaker.testing import RedisServer

MakeDirectory = Callable[..., Directory]
Until = Callable[..., None]

KEY = Key(Role.LISTENER, "openstack", "conductor")
OTHER = KEY._replace(topic="scheduler")
A, B = (Record(endpoint=f"tcp://10.0.0.{number}:49153") for number in (1, 2))


@pytest.fixture
def url(redis: RedisServer) -> str:
    return f"{redis.url}/x"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_known_routes_stay_while_redis_is_dead(
    redis: RedisServer, url: str, make_directory: MakeDirectory, until: Until
) -> None:
    server, client = make_directory(url, expire=0.5), make_directory(url, expire=0.5)
    server.announce([(KEY, A)])
    assert client.lookup(KEY, 5) == (A,)
    redis.kill()
    until(lambda: not client.statistics.reachable, "noticed")
    dead_until = time.monotonic() + 1.5  # three times what a record lives
    while time.monotonic() < dead_until:
        assert client.lookup(KEY, 0.01) == (A,)
        assert client.refresh(KEY, 1) == (A,)
        time.sleep(0.01)


def test_an_empty_redis_is_told_everything_again_and_clients_do_not_notice(
    redis: RedisServer, url: str, make_directory: MakeDirectory, until: Until
) -> None:
    # The times are those of a service: a record is refreshed every 40 s.
    server, client = make_directory(url), make_directory(url)
    server.announce([(KEY, A), (OTHER, B)])
    assert client.lookup(KEY, 5) == (A,)
    redis.restart(empty=True)
    began = time.monotonic()
    with redis.client() as admin:
        while len(admin.keys("zmq:{x}:listener:*")) < 2:
            assert client.lookup(KEY, 5) == (A,)
            assert time.monotonic() - began < 10
            time.sleep(0.005)
    assert client.lookup(KEY, 5) == (A,)
    assert make_directory(url).lookup(OTHER, 5) == (B,)


def test_an_empty_redis_after_an_outage_is_told_everything_again(
    redis: RedisServer, url: str, make_directory: MakeDirectory, until: Until
) -> None:
    server = make_directory(url)
    server.announce([(KEY, A)])
    redis.kill()
    until(lambda: server.statistics.failures >= 3, "tried in vain")
    redis.start()
    began = time.monotonic()
    until(lambda: make_directory(url).lookup(KEY, 5) == (A,), "registered", seconds=10)
    assert time.monotonic() - began < 10
    until(lambda: server.statistics.reachable, "known to be reachable")


class Clock:
    """The real one, and what was added."""

    added = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.added


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(
    redis: RedisServer,
    url: str,
    process: Matchmaker,
    make_directory: MakeDirectory,
    until: Until,
    clock: Clock,
) -> Directory:
    """Knows of a record that has ended while Redis hung, and has asked again since."""
    client = make_directory(url, expire=0.6, clock=clock)
    process.register([(KEY, A)], 2.0)
    with redis.client() as admin:
        admin.set("zmq:{x}:since", 0)  # it was told everything long ago
    ends = time.monotonic() + 2.0
    assert client.lookup(KEY, 5) == (A,)
    redis.stop()
    try:
        until(lambda: not client.reachable, "noticed")
        until(lambda: time.monotonic() > ends, "ended")
    finally:
        redis.cont()
    until(lambda: client.reachable, "asked again")
    return client


@pytest.fixture
def still_finds(client: Directory, until: Until) -> Callable[[], None]:
    """Checks that it finds the record, however often it has asked."""

    def check() -> None:
        rounds = client.statistics.rounds

        def asked_again() -> bool:
            assert client.lookup(KEY, 0.01) == (A,)
            return client.statistics.rounds >= rounds + 3

        until(asked_again, "asked again")

    return check


def test_a_record_that_ended_while_redis_hung_is_used_until_its_process_registers_it_again(
    still_finds: Callable[[], None], process: Matchmaker, url: str, make_directory: MakeDirectory
) -> None:
    still_finds()
    make_directory(url).announce([(OTHER, B)])  # which collects what has ended
    still_finds()
    assert not process.refresh([(KEY, A)], 60)
    process.register([(KEY, A)], 60)
    still_finds()


def test_a_record_that_ended_while_redis_hung_is_dropped_when_it_does_not_answer(
    client: Directory, still_finds: Callable[[], None]
) -> None:
    still_finds()
    client.nack(KEY, A)
    assert client.lookup(KEY, 5) == ()


@pytest.mark.parametrize("collected", [False, True])
def test_a_record_that_ended_while_redis_hung_is_withdrawn_like_any_other(
    client: Directory,
    still_finds: Callable[[], None],
    process: Matchmaker,
    url: str,
    make_directory: MakeDirectory,
    until: Until,
    collected: bool,
) -> None:
    if collected:
        make_directory(url).announce([(OTHER, B)])
    still_finds()
    process.unregister([(KEY, A)])
    until(lambda: client.lookup(KEY, 5) == (), "withdrawn")


def test_a_record_that_ended_while_redis_hung_is_gone_if_its_process_does_not_come_back(
    client: Directory, still_finds: Callable[[], None], clock: Clock, until: Until
) -> None:
    still_finds()
    clock.added = 15.0
    until(lambda: client.lookup(KEY, 5) == (), "gone", seconds=5)


def test_a_service_that_starts_before_redis_is_registered_when_it_comes(
    redis: RedisServer,
    url: str,
    make_directory: MakeDirectory,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis.kill()
    server = make_directory(url)
    began = time.monotonic()
    server.announce([(KEY, A)])
    assert time.monotonic() - began < 1
    until(lambda: warnings(caplog), "warned of it")
    [warning] = warnings(caplog)
    assert f"127.0.0.1:{redis.port}" in warning
    assert "refused" in warning
    assert server.statistics.unwritten == 1
    redis.start()
    until(lambda: server.statistics.unwritten == 0, "registered", seconds=10)
    assert make_directory(url).lookup(KEY, 5) == (A,)


def test_a_key_that_was_never_known_is_an_error_that_names_the_server(
    redis: RedisServer, url: str, make_directory: MakeDirectory
) -> None:
    redis.kill()
    client = make_directory(url)
    for _ in range(2):
        with pytest.raises(Unavailable, match=f"redis at 127.0.0.1:{redis.port}.*refused"):
            client.lookup(KEY, 5)


def test_that_nobody_listened_is_not_believed_during_an_outage(
    redis: RedisServer, url: str, make_directory: MakeDirectory, until: Until
) -> None:
    client = make_directory(url)
    assert client.lookup(KEY, 5) == ()
    redis.kill()

    def says_so() -> bool:
        try:
            return client.lookup(KEY, 5) is None
        except Unavailable:
            return True

    until(says_so, "an error instead of an old answer", seconds=3)


@pytest.mark.alone
def test_nobody_waits_for_a_redis_that_hangs_longer_than_they_want_to(
    redis: RedisServer, url: str, make_directory: MakeDirectory, until: Until
) -> None:
    client = make_directory(f"{url}?socket_timeout=0.5")
    client.announce([(KEY, A)])
    assert client.lookup(KEY, 5) == (A,)
    redis.stop()
    try:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"no answer within 0.2 s"):
            client.lookup(OTHER, 0.2)
        assert 0.2 <= time.monotonic() - began < 0.45
        with pytest.raises(Unavailable, match=r"did not answer within 0.5 s"):
            client.lookup(OTHER, 5)
        until(lambda: not client.statistics.reachable, "known to hang")
        began = time.monotonic()
        for _ in range(100):
            assert client.lookup(KEY, None) == (A,)
            assert client.refresh(KEY, None) == (A,)
            client.nack(KEY, A)
            client.ack(KEY, A)
        assert time.monotonic() - began < 0.2
        began = time.monotonic()
        client.announce([(OTHER, B)])
        client.withdraw([(OTHER, B)])
        assert time.monotonic() - began < 2
    finally:
        redis.cont()
    until(lambda: client.statistics.reachable, "works again")


def test_closing_does_not_wait_for_a_redis_that_hangs(
    redis: RedisServer, url: str, make_directory: MakeDirectory
) -> None:
    directory = make_directory(f"{url}?socket_timeout=0.3")
    directory.announce([(KEY, A)])
    redis.stop()
    began = time.monotonic()
    directory.close()
    assert time.monotonic() - began < 2
    redis.cont()


def test_closing_waits_once_for_a_redis_that_hangs_whatever_is_under_way(
    redis: RedisServer, make_directory: MakeDirectory, until: Until
) -> None:
    directory = make_directory(f"{redis.url}/x?socket_timeout=1")
    redis.stop()
    directory.announce([(KEY, A)])
    rounds = directory.statistics.failures
    until(lambda: directory.statistics.failures > rounds, "and again")
    began = time.monotonic()
    directory.close()
    assert time.monotonic() - began < 1.9
    redis.cont()


@pytest.mark.parametrize("host", ["host..example", f"{'x' * 70}.example", "no-such-host.invalid"])
def test_a_host_name_that_is_none_is_named(make_directory: MakeDirectory, host: str) -> None:
    with pytest.raises(Unavailable, match=f"redis at {host}:6379 cannot be reached"):
        make_directory(f"redis://{host}/x").lookup(KEY, 10)


def test_f11_an_outage_is_told_once_and_so_is_its_end(
    redis: RedisServer,
    url: str,
    make_directory: MakeDirectory,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    directory = make_directory(url, update=0.05)
    directory.announce([(KEY, A)])
    redis.kill()
    until(lambda: directory.statistics.failures >= 5, "failed often")
    redis.start()
    until(lambda: directory.statistics.reachable, "reachable")
    assert len(warnings(caplog)) == 1
    ends = [r for r in caplog.records if "works again" in r.getMessage()]
    assert len(ends) == 1


def test_what_is_withdrawn_during_an_outage_is_removed_after_it(
    redis: RedisServer, url: str, make_directory: MakeDirectory, until: Until
) -> None:
    server = make_directory(url, expire=0)  # nothing else would ever remove it
    server.announce([(KEY, A), (KEY, B)])
    redis.stop()
    began = time.monotonic()
    server.withdraw([(KEY, A)])
    assert time.monotonic() - began < 6
    redis.cont()
    client = make_directory(url)
    until(lambda: client.refresh(KEY, 5) == (B,), "removed")


def test_a_redis_that_is_full_takes_the_few_bytes_of_a_record_all_the_same(
    redis: RedisServer, url: str, make_directory: MakeDirectory
) -> None:
    server = make_directory(url)
    with redis.client() as admin:
        admin.config_set("maxmemory", 1)
        server.announce([(KEY, A)])
        with pytest.raises(OutOfMemoryError):
            admin.set("others", "x")
        assert make_directory(url).lookup(KEY, 5) == (A,)
        admin.config_set("maxmemory", 0)


def test_a_redis_that_takes_no_writes_still_answers_and_gets_them_when_it_does(
    redis: RedisServer,
    url: str,
    make_directory: MakeDirectory,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_directory(url).announce([(KEY, A)])
    with RedisServer("--replicaof", "127.0.0.1", str(redis.port)) as replica:
        server = make_directory(f"{replica.url}/x")
        until(lambda: server.refresh(KEY, 5) == (A,), "replicated")
        server.announce([(KEY, B)])
        until(lambda: "read only replica" in " ".join(warnings(caplog)), "warned of it")
        assert server.statistics.unwritten == 1
        assert not server.statistics.reachable
        assert server.refresh(KEY, 5)
        with replica.client() as admin:
            admin.execute_command("REPLICAOF", "NO", "ONE")
        until(lambda: server.statistics.reachable, "written")
        assert make_directory(f"{replica.url}/x").lookup(KEY, 5) == (A, B)
        server.close()


def test_garbage_under_our_keys_is_ignored_and_named(
    redis: RedisServer,
    url: str,
    make_directory: MakeDirectory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_directory(url, update=0.1)
    server.announce([(KEY, A), (OTHER, B)])
    with redis.client() as admin:
        [name] = admin.keys("zmq:{x}:*conductor*")
        [value] = admin.hvals(name)
        admin.hset(name, mapping={b"\xff\x00 no record": "x", b'{"endpoint": 3}': value})
        [name] = admin.keys("zmq:{x}:*scheduler*")
        admin.delete(name)
        admin.set(name, "a string")
    client = make_directory(url)
    assert client.lookup(KEY, 5) == (A,)
    assert client.lookup(OTHER, 5) == ()
    messages = " ".join(warnings(caplog))
    assert "not a record" in messages
    assert "DEL" in messages
    assert server.statistics.reachable


def test_scripts_that_redis_has_forgotten_are_sent_again(
    redis: RedisServer, url: str, make_directory: MakeDirectory
) -> None:
    server = make_directory(url)
    server.announce([(KEY, A)])
    with redis.client() as admin:
        admin.script_flush()
    server.announce([(KEY, B)])
    with redis.client() as admin:
        admin.script_flush()
    assert make_directory(url).lookup(KEY, 5) == (A, B)
    assert server.statistics.failures == 0


def test_nothing_that_is_logged_or_raised_tells_the_password(
    make_directory: MakeDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with RedisServer(password="open sesame") as server:
        good = make_directory(f"{server.url}/x")
        good.announce([(KEY, A)])
        bad = make_directory(f"redis://:sesame%20street@127.0.0.1:{server.port}/x")
        bad.announce([(KEY, B)])
        with pytest.raises(AccessDenied) as caught:
            bad.lookup(KEY, 5)
        server.kill()
        with pytest.raises(Unavailable):
            good.lookup(OTHER, 5)
        assert "sesame" not in f"{caught.value!r} {caught.value}"
    assert "sesame" not in caplog.text
    assert warnings(caplog)


def test_two_deployments_on_one_redis_know_nothing_of_each_other(
    redis: RedisServer, make_directory: MakeDirectory
) -> None:
    deployments = ("", "/", "/a", "/a/b", "/a:b", "/a%253Ab")
    directories = [make_directory(f"{redis.url}{path}") for path in deployments]
    for number, directory in enumerate(directories[1:]):
        directory.announce([(KEY, Record(endpoint=f"tcp://h:{number}"))])
    found = [make_directory(f"{redis.url}{path}").lookup(KEY, 5) for path in deployments]
    assert found[0] == found[1]
    assert len({*found}) == len(deployments) - 1
    assert all(len(records) == 1 for records in found)
