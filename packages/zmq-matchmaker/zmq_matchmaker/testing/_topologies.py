# SPDX-License-Identifier: Apache-2.0
"""Redis that outlives the death of a server: behind Sentinels, and as a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import redis

from zmq_matchmaker.testing._redis import RedisServer, never_again

__all__ = ["RedisClusterServers", "RedisSentinels"]

_DEADLINE: Final = 30.0
_SLOTS: Final = 16384
"""A node talks to the others on its port plus this."""
_SYNC_AT_ONCE: Final = ("--repl-diskless-sync-delay", "0")
"""Of a master: it need not wait 5 s for more replicas to come.  Any server may become one."""


class _Servers:
    """Processes that are started in a with statement, and ended with it."""

    def __init__(self) -> None:
        self.servers: list[RedisServer] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self.servers:
            raise RuntimeError(f"this {type(self).__name__} is in use")
        self._stack.callback(self.servers.clear)
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
        raise NotImplementedError


class RedisSentinels(_Servers):
    """A master, replicas, and Sentinels that watch them; ended with the block.

    With `password` the Redis ask for it, and if `guarded` the Sentinels, too.
    """

    def __init__(
        self,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        group: str = "zmq",
        password: str | None = None,
        guarded: bool = False,
    ) -> None:
        super().__init__()
        self.group = group
        self.sentinels: list[RedisServer] = []
        self._replicas = replicas
        self._number = sentinels
        self._password = password
        self._sentinel_password = password if guarded else None

    @property
    def url(self) -> str:
        """`sentinel://…/group`, to which a deployment can be added."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"sentinel://{login}{self.hosts}/{self.group}"

    @property
    def ports(self) -> list[int]:
        """Of the Sentinels."""
        return [sentinel.port for sentinel in self.sentinels]

    @property
    def hosts(self) -> str:
        """The Sentinels, as a URL has them."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def master(self) -> RedisServer:
        """The server that the Sentinels name at this moment.

        :raises RuntimeError: no Sentinel answers.
        """
        for sentinel in self._clients():
            with suppress(redis.RedisError):
                port = self._port_of_master(sentinel)
                return next(server for server in self.servers if server.port == port)
        raise RuntimeError("no Sentinel answers")

    def fail_over(self) -> RedisServer:
        """Kill the master, and return the new one when all Sentinels name it and it is one.

        :raises RuntimeError: that was not so within 30 s, as when no replica runs.
        """
        old = self.master
        old.kill()

        def done() -> bool:
            named = {self._port_of_master(sentinel) for sentinel in self._clients()}
            if len(named) != 1 or old.port in named:
                return False
            return self.master.role == "master"

        _until(done, "another master")
        return self.master

    def _start(self) -> None:
        self._stack.callback(self.sentinels.clear)
        options: tuple[str, ...] = _SYNC_AT_ONCE
        if self._password:
            options += ("--masterauth", self._password)
        master = self._stack.enter_context(RedisServer(*options, password=self._password))
        self.servers.append(master)
        options += ("--replicaof", "127.0.0.1", str(master.port))
        for _ in range(self._replicas):
            server = RedisServer(*options, password=self._password)
            self.servers.append(self._stack.enter_context(server))
        # What a Sentinel does not see when it starts it looks for only 10 s later.
        _until(lambda: all(map(_is_in_sync, self.servers[1:])), "the replicas follow")
        settings = [
            f"sentinel monitor {self.group} 127.0.0.1 {master.port} {self._number // 2 + 1}",
            f"sentinel down-after-milliseconds {self.group} 1000",
            f"sentinel failover-timeout {self.group} 2000",
        ]
        if self._password:
            settings.append(f"sentinel auth-pass {self.group} {_quoted(self._password)}")
        for _ in range(self._number):
            sentinel = _Sentinel(settings, self._sentinel_password)
            self.sentinels.append(self._stack.enter_context(sentinel))
        _until(self._all_know_all, "the Sentinels know the replicas and each other")

    def _all_know_all(self) -> bool:
        for sentinel in self._clients():
            state: Any = sentinel.sentinel_master(self.group)
            if state["num-slaves"] < self._replicas:
                return False
            if state["num-other-sentinels"] < self._number - 1:
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
            with redis.Redis(
                host="127.0.0.1",
                port=port,
                password=self._sentinel_password,
                socket_timeout=2,
                decode_responses=True,
                retry=never_again(),
            ) as client:
                yield client


class _Sentinel(RedisServer):
    """A Sentinel process; it writes what it learns to its configuration, in its own folder."""

    def __init__(self, settings: list[str], password: str | None) -> None:
        super().__init__("--sentinel", password=password)
        self._settings = [*settings, f"requirepass {_quoted(password)}"] if password else settings

    def _options(self) -> Iterator[str]:
        file = self._folder / "sentinel.conf"
        own = [f"port {self.port}", "bind 127.0.0.1", f"dir {_quoted(str(self._folder))}"]
        file.write_text("\n".join([*own, *self._settings, ""]))
        yield str(file)


class RedisClusterServers(_Servers):
    """Masters that share the slots, each with replicas; ended with the block."""

    def __init__(self, *, masters: int = 3, replicas_each: int = 1) -> None:
        super().__init__()
        self._masters = masters
        self._replicas_each = replicas_each

    @property
    def url(self) -> str:
        """`redis://…` with all nodes, without a path."""
        return "redis://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def owner(self, key: str | bytes) -> RedisServer:
        """The node that has the slot of `key` now.

        :raises RuntimeError: none has, or no node answers.
        """
        for server in self.servers:
            with suppress(redis.RedisError):
                return self._owner(key, server)
        raise RuntimeError(f"no node has the slot of {key!r}")

    def fail_over(self, key: str | bytes) -> RedisServer:
        """Kill the node that has `key`, and return its replica when that has taken over.

        :raises RuntimeError: it has not within 30 s, as when no replica of it runs.
        """
        old = self.owner(key)
        old.kill()
        alive = [server for server in self.servers if server.role]

        def done() -> bool:
            owners = {self._owner(key, server) for server in alive}
            if len(owners) != 1 or old in owners:
                return False
            return owners.pop().role == "master" and all(map(_cluster_is_ok, alive))

        _until(done, "a replica has taken over")
        return self.owner(key)

    def _owner(self, key: str | bytes, asked: RedisServer) -> RedisServer:
        slot = int(_ask(asked, "CLUSTER KEYSLOT", key))
        for first, last, (_, port, *_), *_ in _ask(asked, "CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == port)
        raise redis.RedisError(f"nobody has slot {slot}")

    def _start(self) -> None:
        options = (*_SYNC_AT_ONCE, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        for _ in range(self._masters * (1 + self._replicas_each)):
            self.servers.append(self._stack.enter_context(RedisServer(*options)))
        masters, replicas = self.servers[: self._masters], self.servers[self._masters :]
        for number, server in enumerate(masters):
            first = _SLOTS * number // self._masters
            last = _SLOTS * (number + 1) // self._masters
            _ask(server, "CLUSTER ADDSLOTS", *range(first, last))
            # Masters of one epoch would first have to settle whose is the newer.
            _ask(server, "CLUSTER SET-CONFIG-EPOCH", number + 1)
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


def _quoted(text: str) -> str:
    """As a word of a configuration file."""
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def _knows(server: RedisServer, number: int) -> bool:
    nodes = _ask(server, "CLUSTER NODES")
    lines = nodes if isinstance(nodes, dict) else nodes.splitlines()
    return len(lines) == number and "handshake" not in str(nodes)


def _cluster_is_ok(server: RedisServer) -> bool:
    state = _ask(server, "CLUSTER INFO")
    return "ok" in str(state["cluster_state"] if isinstance(state, dict) else state.split()[0])


def _is_in_sync(server: RedisServer) -> bool:
    role, *details = _ask(server, "ROLE")
    return bool(role == b"slave" and details[2] == b"connected")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while True:
        with suppress(redis.RedisError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {_DEADLINE:g} s: {what}")
        time.sleep(0.05)
