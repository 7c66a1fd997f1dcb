# SPDX-License-Identifier: Apache-2.0
"""One logical server, whatever it consists of: found, connected to, connected to again.

`discover` asks the hosts of the URL what they are.  A Redis by itself, the master
that Sentinels name, and a cluster (all keys of a deployment are on one of its
nodes) are one server each; several Redis that know nothing of each other are
as many.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from zmq_matchmaker._errors import AccessDenied, Unavailable
from zmq_matchmaker.backends.redis._errors import translated
from zmq_matchmaker.backends.redis._scripts import Script
from zmq_matchmaker.backends.redis._settings import Address, RedisSettings
from zmq_matchmaker.backends.redis._worker import Worker

__all__ = ["Server", "discover"]

LOG = logging.getLogger(__name__)

_CHECK_MASTER: Final = 5.0
"""Seconds between two questions to the Sentinels whether the master is still the master."""
_CHECK_MASTER_SELDOM: Final = 15.0
"""The same while no Sentinel answers, which may take its time limit."""
_SENTINEL, _CLUSTER, _STANDALONE = "sentinel", "cluster", "standalone"


class Server:
    """A client that is made at first use.  Thread-safe."""

    def __init__(self, name: str, timeout: float, make: Callable[[], Any], mode: str) -> None:
        self.name = name
        self.timeout = timeout
        self.mode = mode
        self._make = make
        self._lock = threading.Lock()
        self._client: Any = None
        self._check_at = 0.0
        self._check_pause = _CHECK_MASTER

    def __str__(self) -> str:
        return self.name

    def run(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        """The answer to `script`, in one round trip; in two when it is new there.

        :raises Unavailable: there is none.
        """
        with self.client() as client:
            try:
                return _evaluate(client, script, keys, arguments)
            except redis.AuthenticationError:
                raise
            except redis.ConnectionError:
                # The server, or somebody between, has closed the connection: once more, since
                # every script may run twice.  Never for silence.
                return _evaluate(client, script, keys, arguments)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """The client; errors within the block are translated."""
        with translated(self.name, self.timeout):
            with self._lock:
                if self._client is None:
                    self._client = self._make()
                client = self._client
            self._follow_master(client)
            yield client

    def _follow_master(self, client: Any) -> None:
        """A master that was cut off from its Sentinels would take our writes for nothing."""
        pool = getattr(client, "connection_pool", None)
        if not isinstance(pool, SentinelConnectionPool) or time.monotonic() < self._check_at:
            return
        try:
            pool.get_master_address()  # drops the connections if it is another one now
        except MasterNotFoundError:
            if pool.master_address is None:
                raise
            # Nobody names another: the one that we know may well work.
            self._check_pause = min(2 * self._check_pause, _CHECK_MASTER_SELDOM)
            LOG.debug("%s name no master; going on with %s", self.name, pool.master_address)
        else:
            self._check_pause = _CHECK_MASTER
        self._check_at = time.monotonic() + self._check_pause

    def another_client(self) -> Any:
        """A client of the caller's own, to be closed by `close_client`; may connect."""
        return self._make()

    def close(self) -> None:
        """Close the connections.  Idempotent."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            close_client(client)


def _evaluate(client: Any, script: Script, keys: list[str], arguments: list[Any]) -> Any:
    try:
        return client.evalsha(script.sha, len(keys), *keys, *arguments)
    except redis.exceptions.NoScriptError:
        return client.eval(script.text, len(keys), *keys, *arguments)


def close_client(client: Any) -> None:
    """Close all its connections, also those to Sentinels."""
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            sentinel.close()
            sentinel.connection_pool.disconnect()
    client.close()
    if pool is not None:
        pool.disconnect()  # a client with a pool of its own leaves that open


def discover(settings: RedisSettings) -> list[Server]:
    """The servers that the URL's hosts are.

    :raises Unavailable: none of the hosts answers, or they do not fit together.
    """
    modes: dict[Address, str] = {}
    asks_login = False
    problems: list[Unavailable] = []
    with ExitStack() as stack:
        futures = {}
        for number, address in enumerate(settings.addresses):
            worker = Worker("zmq-redis-discover")  # all at once: each may hang
            stack.callback(worker.close)
            futures[address] = worker.submit(functools.partial(_ask_mode, settings, number))
        for address, future in futures.items():
            try:
                modes[address], login = future.result()
                asks_login = asks_login or login
            except Unavailable as error:
                problems.append(error)
    if not modes:
        denied = [error for error in problems if isinstance(error, AccessDenied)]
        raise (denied or problems)[0]
    if len(set(modes.values())) > 1:
        parts = ", ".join(f"{address} is {mode}" for address, mode in modes.items())
        raise Unavailable(f"the hosts of the matchmaker URL are of different kinds: {parts}")
    mode = next(iter(modes.values()))
    if mode == _SENTINEL:
        return [_by_sentinels(settings, login=asks_login)]
    if settings.must_be_sentinels:
        first = next(iter(modes))
        raise Unavailable(f"{first} is no Sentinel but a Redis ({mode}); write redis:// instead")
    if mode == _CLUSTER:
        return [_cluster(settings)]
    return [_single(settings, number) for number in range(len(settings.addresses))]


def _arguments(settings: RedisSettings, number: int, *, login: bool = True) -> dict[str, Any]:
    address = settings.addresses[number]
    username, password = settings.credentials[number] if login else (None, None)
    arguments = settings.arguments | {"username": username, "password": password}
    return arguments | {"host": address.host, "port": address.port}


def _ask_mode(settings: RedisSettings, number: int) -> tuple[str, bool]:
    """What a server is, standalone, sentinel or cluster, and whether it takes a login."""
    name = f"redis at {settings.addresses[number]}"
    try:
        return _hello(name, settings, _arguments(settings, number)), True
    except AccessDenied:
        # Sentinels often have no password, though their Redis have.
        mode = _hello(name, settings, _arguments(settings, number, login=False))
        if mode != _SENTINEL:
            raise
        return mode, False


def _hello(name: str, settings: RedisSettings, arguments: dict[str, Any]) -> str:
    with translated(name, settings.timeout):
        client = redis.Redis(**{**arguments, "db": 0})
        try:
            answer = client.execute_command("HELLO")
        finally:
            close_client(client)
    pairs = (
        answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
    )
    mode = pairs.get(b"mode", b"standalone")
    return str(mode.decode())


def _single(settings: RedisSettings, number: int) -> Server:
    return Server(
        f"redis at {settings.addresses[number]}",
        settings.timeout,
        lambda: redis.Redis(**_arguments(settings, number)),
        _STANDALONE,
    )


def _cluster(settings: RedisSettings) -> Server:
    arguments = _arguments(settings, 0)
    nodes = [(address.host, address.port) for address in settings.addresses]
    name = f"redis cluster at {', '.join(map(str, settings.addresses))}"
    if arguments.pop("db"):
        raise Unavailable(f"{name} has only database 0; leave out db=")
    for unwanted in ("host", "port", "retry"):
        del arguments[unwanted]

    def make() -> Any:
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in nodes],
            require_full_coverage=False,
            **arguments,
        )

    return Server(name, settings.timeout, make, _CLUSTER)


def _by_sentinels(settings: RedisSettings, *, login: bool) -> Server:
    name = f"the sentinels at {', '.join(map(str, settings.addresses))}"
    username, password = settings.credentials[0]
    group: list[str] = [] if settings.group is None else [settings.group]

    def make() -> Any:
        arguments = settings.arguments | {"username": username, "password": password}
        of_sentinels = {**arguments} if login else {**settings.arguments}
        del of_sentinels["db"]
        hosts = [(address.host, address.port) for address in settings.addresses]
        manager = Sentinel(hosts, sentinel_kwargs=of_sentinels, **arguments)
        try:
            if not group:
                group.append(_only_group(manager, name))
            return manager.master_for(group[0], redis_class=redis.Redis)
        except BaseException:
            for sentinel in manager.sentinels:
                sentinel.close()
                sentinel.connection_pool.disconnect()
            raise

    return Server(name, settings.timeout, make, _SENTINEL)


def _only_group(manager: Sentinel, name: str) -> str:
    """The one group that the Sentinels watch, when the URL names none."""
    groups: set[str] = set()
    problem: redis.RedisError | None = None
    for sentinel in manager.sentinels:
        try:
            masters: Any = sentinel.sentinel_masters()
        except redis.RedisError as error:
            problem = error
        else:
            groups.update(masters)
    if len(groups) == 1:
        return groups.pop()
    if not groups and problem is not None:
        raise problem
    raise Unavailable(
        f"{name} watch {', '.join(sorted(groups)) or 'no master'}; say which is meant, as in "
        "sentinel://host:26379/GROUP or redis://host:26379/?sentinel_group=GROUP"
    )
