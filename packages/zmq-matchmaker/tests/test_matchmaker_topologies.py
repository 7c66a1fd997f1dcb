# SPDX-License-Identifier: Apache-2.0
"""What the helpers for tests say of themselves: failovers, and what they leave behind."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from zmq_matchmaker.testing import (
    RedisClusterServers,
    RedisSentinels,
    RedisServer,
    Relay,
    _redis,
)


@pytest.fixture(autouse=True)
def nothing_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test ends the processes that it started, and removes their folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = _children()
    yield
    assert _children() == before
    assert list(tmp_path.iterdir()) == []


def _children() -> str:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()


def _write(server: RedisServer, key: str) -> None:
    """Returns when a replica has it, too."""
    with server.client() as client:
        client.set(key, "value")
        assert client.wait(1, 5000) >= 1


def _read(server: RedisServer, key: str) -> object:
    with server.client() as client:
        return client.get(key)


def test_sentinels_name_another_master_when_theirs_dies() -> None:
    with RedisSentinels(group="any", password='p w"\\@/') as sentinels:
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels.ports)
        assert sentinels.url == f"sentinel://:p%20w%22%5C%40%2F@{hosts}/any"
        assert (len(sentinels.servers), len(sentinels.ports)) == (3, 3)
        first = sentinels.master
        _write(first, "key")
        second = sentinels.fail_over()
        assert second is sentinels.master is not first
        assert (first.role, second.role) == ("", "master")
        assert _read(second, "key") == b"value"


def test_a_cluster_survives_one_death_after_the_other() -> None:
    with RedisClusterServers() as cluster:
        assert cluster.url.count("127.0.0.1:") == len(cluster.servers) == 6
        keys = ["a", "b", "c"]  # each another master's
        owners = [cluster.owner(key) for key in keys]
        assert owners == [cluster.owner(key.encode()) for key in keys]
        assert len({owner.port for owner in owners}) == 3
        for key, old in zip(keys[:2], owners, strict=False):
            _write(old, key)
            new = cluster.fail_over(key)
            assert new is cluster.owner(key)
            assert new not in owners
            assert new.role == "master"
            assert _read(new, key) == b"value"
        assert cluster.owner(keys[2]) is owners[2]


def test_a_port_that_another_process_took_first_is_left_to_it(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = _redis._free_port
    with socket.create_server(("127.0.0.1", 0)) as bus:
        proposed = iter([shared_redis.port, 0, shared_redis.port, 0, bus.getsockname()[1] - 10000])
        monkeypatch.setattr(_redis, "_free_port", lambda: next(proposed, 0) or free())
        with RedisSentinels(replicas=0, sentinels=1) as sentinels:
            ports = [sentinels.master.port, *sentinels.ports]
            assert len({*ports, shared_redis.port}) == 3
        with RedisClusterServers(masters=1, replicas_each=0) as cluster:
            assert cluster.owner("key").port != bus.getsockname()[1] - 10000
        assert next(proposed, None) is None


def test_what_runs_is_ended_when_the_rest_cannot_start() -> None:
    with pytest.raises(RuntimeError, match=r"sentinel monitor"), RedisSentinels(group="two words"):
        pass


Connected = tuple[Relay, socket.socket, socket.socket]


@pytest.fixture
def relay() -> Iterator[Connected]:
    """A relay, a connection to it, and where that arrives."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Relay(listener.getsockname()[1]) as relay,
        socket.create_connection(("127.0.0.1", relay.port), 5) as client,
    ):
        server, _ = listener.accept()
        with server:
            server.settimeout(5)
            yield relay, client, server


def test_a_relay_passes_on_both_ways_until_an_end_closes(relay: Connected) -> None:
    _, client, server = relay
    client.sendall(b"question")
    assert server.recv(100) == b"question"
    server.sendall(b"answer")
    assert client.recv(100) == b"answer"
    client.close()
    with suppress(ConnectionResetError):
        assert server.recv(100) == b""


def test_a_relay_that_is_cut_resets_both_ends(relay: Connected) -> None:
    one, client, server = relay
    client.sendall(b"x")
    assert server.recv(100) == b"x"
    one.cut()
    for end in (client, server):
        with pytest.raises(ConnectionResetError):
            end.recv(100)


def test_a_relay_cuts_an_answer_where_it_is_told(relay: Connected) -> None:
    one, client, server = relay
    one.cut_in_answer(3)
    server.sendall(b"answer")
    assert client.recv(3, socket.MSG_WAITALL) == b"ans"
    with pytest.raises(ConnectionResetError):
        client.recv(100)


def test_a_relay_holds_what_it_passes_on_later(relay: Connected) -> None:
    one, client, server = relay
    one.hold()
    client.sendall(b"x")
    server.settimeout(0.2)
    with pytest.raises(TimeoutError):
        server.recv(100)
    server.settimeout(5)
    one.release()
    assert server.recv(100) == b"x"
    one.delay(0.2)
    began = time.monotonic()
    client.sendall(b"y")
    assert server.recv(100) == b"y"
    assert time.monotonic() - began >= 0.2
