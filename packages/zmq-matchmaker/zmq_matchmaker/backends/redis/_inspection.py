# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a Redis, and what to do about it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import redis

from zmq_matchmaker._errors import AccessDenied, MatchmakerError
from zmq_matchmaker._model import Entry, Finding, Key, Record, Role, Severity
from zmq_matchmaker.backends.redis._server import Server
from zmq_matchmaker.backends.redis._settings import PREFIX
from zmq_matchmaker.backends.redis._store import Store

__all__ = ["inspect_all", "unreachable"]

_SLOW: Final = 0.05
_SKEW: Final = 5.0
_OLDEST: Final = (6, 0)
_KINDS: Final = {
    "standalone": "a Redis by itself",
    "sentinel": "a Redis behind Sentinels",
    "cluster": "a cluster",
}
_ACL: Final = (
    f"~{PREFIX}:* &{PREFIX}:* and the commands that docs/matchmaker.md lists under 'A user (ACL)'"
)
_PROBE: Final[Entry] = (
    Key(Role.LISTENER, "", "zmq-matchmaker check"),
    Record(endpoint="tcp://192.0.2.1:1"),
)


def unreachable(error: MatchmakerError) -> Finding:
    """That nothing else can be said."""
    advice = "start it, or correct host and port in the transport URL or [matchmaker_redis]"
    if isinstance(error, AccessDenied):
        advice = "correct user and password in the transport URL or [matchmaker_redis]"
    return Finding(Severity.ERROR, "connection", str(error), advice)


def inspect_all(stores: Sequence[Store]) -> list[Finding]:
    """Everything about each server."""
    kind = _KINDS[stores[0].server.mode]
    if len(stores) > 1:
        kind = f"{len(stores)} Redis servers that know nothing of each other: written to all"
    findings = [Finding(Severity.OK, "mode", kind)]
    for store in stores:
        findings += _of_one(store)
    return findings


def _of_one(store: Store) -> Iterator[Finding]:
    try:
        latency = _latency(store.server)
    except MatchmakerError as error:
        yield unreachable(error)
        return
    yield Finding(Severity.OK, "connection", f"{store.server} answers")
    yield latency
    for look in (_versions, _role, _clock, _memory, _sentinels, _permissions, _records):
        yield from _unless_forbidden(look, store)


def _unless_forbidden(
    look: Callable[[Store], Iterator[Finding]], store: Store
) -> Iterator[Finding]:
    subject = look.__name__.removeprefix("_")
    try:
        yield from look(store)
    except AccessDenied:
        yield Finding(Severity.OK, subject, "not visible to this user, and not needed")
    except MatchmakerError as error:
        yield Finding(Severity.ERROR, subject, str(error), "try again; see the log of Redis")


def _latency(server: Server) -> Finding:
    times = []
    with server.client() as client:
        for _ in range(5):
            began = time.perf_counter()
            client.ping()
            times.append(time.perf_counter() - began)
    median = statistics.median(times)
    text = f"{median * 1000:.1f} ms (median of 5)"
    if median < _SLOW:
        return Finding(Severity.OK, "latency", text)
    return Finding(
        Severity.WARNING,
        "latency",
        text,
        "calls do not wait for it, but first calls and starts do: look at the load of Redis "
        "(SLOWLOG) and the network",
    )


def _info(store: Store, section: str) -> dict[str, Any]:
    with store.server.client() as client:
        info: dict[str, Any] = client.info(section)
    # A cluster answers for each of its nodes.
    nodes = [value for value in info.values() if isinstance(value, dict)]
    return nodes[0] if nodes and store.server.mode == "cluster" else info


def _versions(store: Store) -> Iterator[Finding]:
    version = str(_info(store, "server")["redis_version"])
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers >= _OLDEST:
        yield Finding(Severity.OK, "version", f"Redis {version}")
    else:
        yield Finding(Severity.ERROR, "version", f"Redis {version}", "Redis 6.0 or newer is needed")


def _role(store: Store) -> Iterator[Finding]:
    if store.server.mode == "cluster":
        return
    info = _info(store, "replication")
    if info["role"] == "master":
        yield Finding(Severity.OK, "role", f"master with {info['connected_slaves']} replicas")
    else:
        master = f"{info.get('master_host')}:{info.get('master_port')}"
        yield Finding(
            Severity.ERROR,
            "role",
            f"a replica of {master}: nothing can be registered",
            "name the master in the transport URL, or the Sentinels (zmq+sentinel://)",
        )


def _clock(store: Store) -> Iterator[Finding]:
    if store.server.mode == "cluster":
        return
    with store.server.client() as client:
        seconds, micros = client.time()
    off = time.time() - seconds - micros / 1e6
    text = f"{abs(off):.1f} s {'behind' if off > 0 else 'ahead of'} this host's"
    if abs(off) <= _SKEW:
        yield Finding(Severity.OK, "clock", text)
    else:
        yield Finding(
            Severity.WARNING,
            "clock",
            text,
            "expiry does not mind, since only the clock of Redis counts; but set one of them right",
        )


def _memory(store: Store) -> Iterator[Finding]:
    info = _info(store, "memory")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    limit = int(info.get("maxmemory", 0))
    text = f"{info['used_memory_human']} used, limit {info['maxmemory_human']} ({policy})"
    if limit and policy != "noeviction":
        yield Finding(
            Severity.WARNING,
            "memory",
            text,
            "records may be evicted, and are registered again only seconds later: set "
            "maxmemory-policy noeviction, or use a Redis of its own",
        )
    elif limit and int(info["used_memory"]) > 0.9 * limit:
        yield Finding(Severity.WARNING, "memory", text, "it is nearly full: raise maxmemory")
    else:
        yield Finding(Severity.OK, "memory", text if limit else text.split(",")[0])


def _sentinels(store: Store) -> Iterator[Finding]:
    if store.server.mode != "sentinel":
        return
    with store.server.client() as client:
        pool = client.connection_pool
        state: dict[str, Any] = {}
        for sentinel in pool.sentinel_manager.sentinels:
            try:
                state = sentinel.sentinel_master(pool.service_name)
                break
            except redis.ConnectionError:
                continue
        config = client.config_get("min-replicas-to-write")
    sentinels, replicas = int(state["num-other-sentinels"]) + 1, int(state["num-slaves"])
    text = f"{sentinels} Sentinels, quorum {state['quorum']}, {replicas} replicas"
    if sentinels < 3 or not replicas:
        yield Finding(
            Severity.WARNING, "sentinels", text, "for a failover there have to be 3, and a replica"
        )
    else:
        yield Finding(Severity.OK, "sentinels", text)
    if replicas and not int(config.get("min-replicas-to-write", 0)):
        yield Finding(
            Severity.WARNING,
            "failover",
            "a master that is cut off takes records for nothing",
            "set min-replicas-to-write 1 in the configuration of each Redis",
        )


def _permissions(store: Store) -> Iterator[Finding]:
    try:
        store.register([_PROBE], 5.0)
        store.refresh(5.0)
        store.set_aside({_PROBE: 0.0})
        store.unregister([_PROBE])
    except AccessDenied as error:
        yield Finding(Severity.ERROR, "permissions", str(error), f"give the user {_ACL}")
        return
    except MatchmakerError as error:
        yield Finding(
            Severity.ERROR,
            "permissions",
            f"nothing can be registered: {error}",
            "see what is said of role and memory; commands must not be renamed",
        )
        return
    with store.server.client() as client:
        try:
            client.publish(store.name(_PROBE[0]), "")
            pubsub = client.pubsub()
            try:
                pubsub.subscribe(store.name(_PROBE[0]))
                pubsub.get_message(timeout=store.server.timeout)
            finally:
                pubsub.close()
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            yield Finding(
                Severity.WARNING,
                "permissions",
                f"changes cannot be reported ({error}), and are seen only after seconds",
                f"give the user {_ACL}",
            )
            return
    yield Finding(Severity.OK, "permissions", "may register, look up, and report changes")


def _records(store: Store) -> Iterator[Finding]:
    listings = store.survey()
    hosts = {standing.record.endpoint for _, standing in listings}
    yield Finding(
        Severity.OK,
        "records",
        f"{len(listings)} records, hosts: {len(hosts)}, under {store.prefix.rstrip(':')}",
    )
    aside = sum(standing.aside > 0 for _, standing in listings)
    if aside:
        yield Finding(
            Severity.WARNING,
            "aside",
            f"{aside} records did not answer somebody",
            "zmq-matchmaker list shows which, zmq-matchmaker ping whether they answer now",
        )
    age = store.find([]).age
    if 0 <= age < store.settled and listings:
        yield Finding(
            Severity.WARNING,
            "settling",
            f"processes have registered again since {age:.0f} s",
            f"wait {store.settled:.0f} s; if it stays so, processes cannot reach this Redis all "
            "the time",
        )
