# SPDX-License-Identifier: Apache-2.0
"""The command `zmq-matchmaker`, as operators start it, with a real Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zmq_matchmaker import Directory, Key, Record, Role
from zmq_matchmaker.testing import RedisSentinels, RedisServer

MakeDirectory = Callable[..., Directory]
Until = Callable[..., None]

KEY = Key(Role.LISTENER, "openstack", "conductor")
DIRECTED = KEY._replace(server="host@lvm")
ONE = Record(endpoint="tcp://127.0.0.1:1", node="host-1/7/oslo")
TWO = Record(endpoint="tcp://127.0.0.1:2", node="host-2/8/oslo", pool="audit")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "zmq_matchmaker.cli", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """What the command said; it ended with `code`, without a traceback."""
    done = subprocess.run(
        command(*arguments),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def filled(redis_url: str, make_directory: MakeDirectory) -> str:
    """The URL of a deployment with three records of two processes."""
    make_directory(redis_url).announce([(KEY, ONE), (DIRECTED, ONE)])
    make_directory(redis_url, expire=0).announce([(KEY, TWO)])
    return redis_url


def test_list_shows_all_and_what_was_asked_for(filled: str) -> None:
    table = run("list", "--url", filled).stdout
    for word in ("conductor", "host@lvm", "127.0.0.1:1", "host-2/8/oslo", "audit", "never ends"):
        assert word in table
    assert len(table.splitlines()) == 4
    listed = json.loads(run("list", "--url", filled, "--server", "host@lvm", "--json").stdout)
    [one] = listed
    assert one["host"] == "127.0.0.1:1"
    assert 0 < one["ttl"] <= 120
    assert one["aside"] == 0
    assert json.loads(run("list", "--url", filled, "--role", "router", "--json").stdout) == []


def test_list_of_nothing_says_so(redis_url: str) -> None:
    done = run("list", "--url", redis_url)
    assert done.stdout == ""
    assert "nobody is registered" in done.stderr


def test_the_file_of_a_service_says_where_the_matchmaker_is(filled: str, tmp_path: Path) -> None:
    address = filled.removeprefix("redis://")
    host, _, rest = address.partition(":")
    port, _, deployment = rest.partition("/")
    for url, more in (
        (f"zmq+{filled}?rpc_zmq_bind_address=eth0&db=0", ""),
        (f"zmq://{address}", "[oslo_messaging_zmq]\nrpc_zmq_matchmaker = redis\n"),
        (f"zmq://{address}?rpc_zmq_matchmaker=redis", ""),
        (f"zmq+redis:///{deployment}", f"[matchmaker_redis]\nhost = {host}\nport = {port}\n"),
    ):
        file = tmp_path / "service.conf"
        file.write_text(f"[DEFAULT]\ntransport_url = {url}\n{more}")
        assert "host@lvm" in run("list", "--config-file", str(file)).stdout


def test_resolve_tells_whom_a_client_would_use_those_that_answer_first(
    filled: str, make_directory: MakeDirectory, until: Until
) -> None:
    client = make_directory(filled)
    client.lookup(KEY, 5)

    def set_aside() -> bool:
        client.nack(KEY, ONE)  # again, if the pause was over before anybody saw it
        return bool(json.loads(_resolved(filled))[-1]["aside"] > 0)

    until(set_aside, "set aside", seconds=20)
    client.ack(KEY, ONE)
    until(lambda: json.loads(_resolved(filled))[-1]["aside"] == 0, "back", seconds=20)
    said = run("resolve", "--url", filled, "conductor", "--server", "nobody", code=3)
    assert "nobody listens on the listener" in said.stderr


def _resolved(url: str) -> str:
    return run("resolve", "--url", url, "conductor", "--json").stdout


def test_remove_asks_and_removes_what_was_named(filled: str) -> None:
    assert "add --yes" in run("remove", "--url", filled, "--host", "127.0.0.1:1", code=2).stderr
    run("remove", "--url", filled, "--yes", code=2)
    run("remove", "--url", filled, "--host", "127.0.0.1:9", "--yes", code=3)
    assert "removed 1;" in run("remove", "--url", filled, "--node", TWO.node, "--yes").stdout
    assert "removed 2;" in run("remove", "--url", filled, "--host", "127.0.0.1", "--yes").stdout


class Watching:
    """`watch --json` as a process, line by line."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command("watch", "--json", *arguments),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> str:
        """Interrupt it; it ends well.  What it said to its user."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, errors
        return errors


@pytest.fixture
def watching() -> Iterator[Callable[..., Watching]]:
    made: list[Watching] = []

    def start(*arguments: str) -> Watching:
        made.append(Watching(*arguments))
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_watch_shows_who_comes_does_not_answer_and_goes(
    redis: RedisServer,
    make_directory: MakeDirectory,
    watching: Callable[..., Watching],
    until: Until,
) -> None:
    url = f"{redis.url}/x"
    one, two = make_directory(url), make_directory(url)
    one.announce([(KEY, ONE)])
    watch = watching("--url", url, "conductor")
    assert (watch.line()["change"], one.lookup(KEY, 5)) == ("came", (ONE,))
    two.announce([(KEY, TWO), (KEY._replace(topic="other"), TWO)])
    line = watch.line()
    assert (line["change"], line["host"], line["topic"]) == ("came", "127.0.0.1:2", "conductor")
    until(lambda: TWO in one.lookup(KEY, 5), "known")
    one.nack(KEY, TWO)
    assert watch.line()["change"] == "aside"
    one.ack(KEY, TWO)
    assert watch.line()["change"] == "back"
    two.close()
    line = watch.line()
    assert (line["change"], line["host"]) == ("left", "127.0.0.1:2")
    redis.restart(empty=False)
    one.announce([(DIRECTED, ONE)])
    assert watch.line()["server"] == "host@lvm"
    watch.end()


def test_watch_goes_on_when_redis_is_away(
    redis: RedisServer, make_directory: MakeDirectory, watching: Callable[..., Watching]
) -> None:
    url = f"{redis.url}/x"
    server = make_directory(url)
    server.announce([(KEY, ONE)])
    watch = watching("--url", url, "--interval", "0.1")
    assert watch.line()["change"] == "came"
    redis.kill()
    assert watch.process.stderr is not None
    assert "trying on" in watch.process.stderr.readline()
    redis.start()
    assert "works again" in watch.process.stderr.readline()
    assert {watch.line()["change"], watch.line()["change"]} == {"left", "came"}
    watch.end()


def test_watch_ends_when_nobody_reads_it(filled: str) -> None:
    text = " ".join(command("watch", "--url", filled, "--interval", "0.05")) + " | head -n 1"
    done = subprocess.run(
        text, shell=True, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert "came" in done.stdout
    assert "Traceback" not in done.stderr


def findings(*arguments: str, code: int = 0) -> dict[str, dict[str, str]]:
    found = json.loads(run("check", "--json", *arguments, code=code).stdout)
    assert all(one["advice"] for one in found if one["severity"] != "ok")
    return {one["subject"]: one for one in found}


def test_check_of_a_redis_that_is_well(redis: RedisServer) -> None:
    found = findings("--url", f"{redis.url}/x")
    assert {one["severity"] for one in found.values()} == {"ok"}
    assert found.keys() >= {"mode", "version", "role", "clock", "latency", "memory", "permissions"}
    assert "a Redis by itself" in run("check", "--url", f"{redis.url}/x").stdout


def test_check_says_what_is_wrong_and_what_to_do(redis: RedisServer) -> None:
    with redis.client() as admin:
        admin.config_set("maxmemory", "100mb")
        admin.config_set("maxmemory-policy", "allkeys-lru")
    with RedisServer("--replicaof", "127.0.0.1", str(redis.port)) as replica:
        found = findings("--url", f"{replica.url}/x", code=1)
    assert found["role"]["severity"] == "error"
    assert f"127.0.0.1:{redis.port}" in found["role"]["text"]
    assert found["permissions"]["severity"] == "error"
    assert found["mode"]["severity"] == "ok"
    evicting = findings("--url", f"{redis.url}/x")
    assert evicting["memory"]["severity"] == "warning"
    assert "noeviction" in evicting["memory"]["advice"]


def test_check_of_a_user_who_may_not_do_what_is_needed() -> None:
    for acl, severity, code in (
        ("~zmq:* resetchannels &zmq:* +@all -hset", "error", 1),
        ("~zmq:* resetchannels +@all", "warning", 0),
        ("~zmq:* resetchannels &zmq:* +@all -info -config", "ok", 0),
    ):
        with RedisServer(user="nova", password="open-sesame", acl=acl) as server:
            found = findings("--url", f"{server.url}/x", code=code)
            assert found["permissions"]["severity"] == severity, acl
            assert "sesame" not in json.dumps(found)


def test_check_of_sentinels_and_of_servers_of_which_one_is_dead(
    sentinels: RedisSentinels, redis: RedisServer
) -> None:
    found = findings("--url", f"{sentinels.url}/check")
    assert "behind Sentinels" in found["mode"]["text"]
    assert "3 Sentinels, quorum 2, 2 replicas" in found["sentinels"]["text"]
    assert "min-replicas-to-write" in found["failover"]["advice"]
    with RedisServer() as second:
        url = f"redis://127.0.0.1:{redis.port},127.0.0.1:{second.port}/x"
        assert "know nothing of each other" in findings("--url", url)["mode"]["text"]
        second.kill()
        assert str(second.port) in findings("--url", url, code=1)["connection"]["text"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["list"], 2, "either --config-file FILE or --url URL"),
        (["list", "--url", "x"], 2, "has no scheme"),
        (["list", "--url", "zoo://h"], 2, "there is no matchmaker 'zoo'"),
        (["list", "--url", "redis://:sesame@127.0.0.1:1/"], 1, "127.0.0.1:1 cannot be reached"),
        (["list", "--config-file", "/does/not/exist"], 2, "/does/not/exist"),
        (["remove", "--url", "dummy:///x"], 2, "say what to remove"),
        (["resolve", "--url", "dummy:///x"], 2, "topic"),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_why(
    arguments: list[str], code: int, message: str
) -> None:
    said = run(*arguments, code=code).stderr
    assert message in said
    assert "sesame" not in said


def test_a_check_that_reaches_nothing_names_host_and_port() -> None:
    found = findings("--url", "redis://:sesame@127.0.0.1:1/x", code=1)
    assert "127.0.0.1:1 cannot be reached" in found["connection"]["text"]
    assert "sesame" not in json.dumps(found)


def test_help_and_version() -> None:
    assert "usage: zmq-matchmaker" in run("--help").stdout
    assert "usage: zmq-matchmaker" in run().stdout
    assert run("--version").stdout.startswith("zmq-matchmaker 0.")
    for name in ("check", "list", "ping", "remove", "resolve", "watch"):
        assert "--config-file FILE" in run(name, "--help").stdout
