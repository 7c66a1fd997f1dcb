# SPDX-License-Identifier: Apache-2.0
"""Redis that outlives the death of a server: behind Sentinels, and as a cluster."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import redis

from zmq_matchmaker.testing._redis import RedisServer, find_redis_server

__all__ = ["RedisClusterServers", "RedisSentinels"]

_DEADLINE: Final = 30.0
_SLOTS: Final = 16384
_BUS: Final = 10000
"""A node talks to the others on its port plus this."""


class RedisSentinels:
    """A master, replicas, and Sentinels that watch them; ended with the block.

    With `password` the Redis ask for it, the Sentinels do not.
    """

    def __init__(
        self,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        group: str = "zmq",
        password: str | None = None,
    ) -> None:
        self.group = group
        self.servers: list[RedisServer] = []
        self.ports: list[int] = []
        self._replicas = replicas
        self._sentinels = sentinels
        self._password = password
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """`sentinel://…/group`, to which a deployment can be added."""
        login = f":{self._password}@" if self._password else ""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"sentinel://{login}{hosts}/{self.group}"

    @property
    def hosts(self) -> str:
        """The Sentinels, as a URL has them."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def master(self) -> RedisServer:
        """The server that the Sentinels name at this moment."""
        for sentinel in self._clients():
            with suppress(redis.RedisError):
                port = self._port_of_master(sentinel)
                return next(server for server in self.servers if server.port == port)
        raise RuntimeError("no Sentinel answers")

    def fail_over(self) -> RedisServer:
        """Kill the master, and return the new one when all Sentinels name it and it is one."""
        old = self.master
        old.kill()

        def done() -> bool:
            named = {self._port_of_master(sentinel) for sentinel in self._clients()}
            if len(named) != 1 or old.port in named:
                return False
            with self.master.client() as client:
                return bool(client.execute_command("ROLE")[0] == b"master")

        _until(done, "another master")
        return self.master

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        login = ("--masterauth", self._password) if self._password else ()
        master = self._stack.enter_context(RedisServer(*login, password=self._password))
        self.servers.append(master)
        follow = ("--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0")
        for _ in range(self._replicas):
            server = RedisServer(*follow, *login, password=self._password)
            self.servers.append(self._stack.enter_context(server))
        for _ in range(self._sentinels):
            self.ports.append(self._stack.enter_context(self._sentinel(master.port)))
        _until(self._all_know_all, "the Sentinels know the replicas and each other")

    @contextmanager
    def _sentinel(self, master_port: int) -> Iterator[int]:
        port = _free_port()
        with tempfile.TemporaryDirectory(prefix="sentinel-") as folder:
            file = Path(folder) / "sentinel.conf"
            lines = [
                f"port {port}",
                "bind 127.0.0.1",
                f"dir {folder}",
                f"sentinel monitor {self.group} 127.0.0.1 {master_port} {self._sentinels // 2 + 1}",
                f"sentinel down-after-milliseconds {self.group} 1000",
                f"sentinel failover-timeout {self.group} 3000",
            ]
            if self._password:
                lines.append(f'sentinel auth-pass {self.group} "{self._password}"')
            file.write_text("\n".join(lines) + "\n")
            process = subprocess.Popen(
                [find_redis_server(), str(file), "--sentinel"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
            )
            try:
                yield port
            finally:
                process.kill()
                process.wait()

    def _all_know_all(self) -> bool:
        for sentinel in self._clients():
            state: Any = sentinel.sentinel_master(self.group)
            if state["num-slaves"] < self._replicas:
                return False
            if state["num-other-sentinels"] < self._sentinels - 1:
                return False
            slaves: Any = sentinel.sentinel_slaves(self.group)
            if any(slave["master-link-status"] != "ok" for slave in slaves):
                return False
        return True

    def _port_of_master(self, sentinel: redis.Redis) -> int:
        address: Any = sentinel.sentinel_get_master_addr_by_name(self.group)
        return int(address[1])

    def _clients(self) -> Iterator[redis.Redis]:
        for port in self.ports:
            with redis.Redis(port=port, socket_timeout=2, decode_responses=True) as client:
                yield client


class RedisClusterServers:
    """Masters that share the slots, each with replicas; ended with the block."""

    def __init__(self, *, masters: int = 3, replicas_each: int = 1) -> None:
        self.servers: list[RedisServer] = []
        self._masters = masters
        self._replicas_each = replicas_each
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """`redis://…` with all nodes, without a path."""
        return "redis://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def owner(self, key: str) -> RedisServer:
        """The node that has the slot of `key` now."""
        ports = {server.port: server for server in self.servers}
        for server in self.servers:
            with suppress(redis.RedisError), server.client() as client:
                slot = int(client.execute_command("CLUSTER KEYSLOT", key))
                for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                    if first <= slot <= last:
                        return ports[port]
        raise RuntimeError(f"no node has the slot of {key}")

    def fail_over(self, key: str) -> RedisServer:
        """Kill the node that has `key`, and return its replica when that has taken over."""
        old = self.owner(key)
        old.kill()
        alive = [server for server in self.servers if server is not old]

        def done() -> bool:
            return all(_cluster_is_ok(server) for server in alive) and self.owner(key) is not old

        _until(done, "a replica has taken over")
        return self.owner(key)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500")
        for _ in range(self._masters * (1 + self._replicas_each)):
            server = RedisServer(*options, highest_port=65535 - _BUS)
            self.servers.append(self._stack.enter_context(server))
        masters, replicas = self.servers[: self._masters], self.servers[self._masters :]
        for number, server in enumerate(masters):
            first = _SLOTS * number // self._masters
            last = _SLOTS * (number + 1) // self._masters
            _ask(server, "CLUSTER ADDSLOTS", *range(first, last))
        for server in self.servers[1:]:
            _ask(server, "CLUSTER MEET", "127.0.0.1", self.servers[0].port)
        known = len(self.servers)
        _until(lambda: all(_knows(server, known) for server in self.servers), "all have met")
        for number, server in enumerate(replicas):
            name = _ask(masters[number % self._masters], "CLUSTER MYID")
            _ask(server, "CLUSTER REPLICATE", name)
        _until(lambda: all(map(_cluster_is_ok, self.servers)), "the cluster works")
        _until(lambda: all(map(_is_in_sync, replicas)), "the replicas follow")


def _ask(server: RedisServer, *command: Any) -> Any:
    with server.client() as client:
        return client.execute_command(*command)


def _knows(server: RedisServer, number: int) -> bool:
    with server.client() as client:
        nodes = client.execute_command("CLUSTER NODES")
    lines = nodes if isinstance(nodes, dict) else nodes.splitlines()
    return len(lines) == number and "handshake" not in str(nodes)


def _cluster_is_ok(server: RedisServer) -> bool:
    with server.client() as client:
        state = client.execute_command("CLUSTER INFO")
    return "ok" in str(state["cluster_state"] if isinstance(state, dict) else state.split()[0])


def _is_in_sync(server: RedisServer) -> bool:
    with server.client() as client:
        info: Any = client.info("replication")
    return bool(info.get("master_link_status") == "up")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while True:
        with suppress(redis.RedisError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {_DEADLINE:g} s: {what}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
