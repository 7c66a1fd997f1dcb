# SPDX-License-Identifier: Apache-2.0
"""What is seen of the options of `[matchmaker_redis]`."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from harness.leaks import wait_until
from harness.options.bench import Bench
from harness.options.peers import Ear
from zmq_matchmaker.testing import RedisSentinels, RedisServer

__all__ = [
    "database",
    "hosts_asked",
    "is_admitted",
    "ports_asked",
    "registering",
    "seconds_of_patience",
    "sentinels_asked",
    "user",
    "usual_pause",
    "which_master",
]

_URL: Final = "zmq+redis:///bench"


@contextmanager
def registering(bench: Bench, **redis: Any) -> Iterator[None]:
    """A server that wants to register, with these options and the one under test."""
    with bench.server(_URL, redis=redis, use_pub_sub=False):
        yield


def hosts_asked(bench: Bench) -> list[str]:
    """Which of two hosts it connects to."""
    hosts = ("127.0.0.1", "127.0.0.2")
    with ExitStack() as stack:
        ears = [stack.enter_context(Ear(bench.base, host)) for host in hosts]
        stack.enter_context(registering(bench, port=bench.base, socket_timeout=50))
        wait_until(lambda: any(ear.heard for ear in ears), "one was asked")
        return [host for host, ear in zip(hosts, ears, strict=True) if ear.heard]


def ports_asked(bench: Bench) -> list[int]:
    """Which of two ports it connects to, counted from the first."""
    with ExitStack() as stack:
        ears = [stack.enter_context(Ear(bench.base + n)) for n in (0, 1)]
        stack.enter_context(registering(bench, socket_timeout=50))
        wait_until(lambda: any(ear.heard for ear in ears), "one was asked")
        return [n for n, ear in enumerate(ears) if ear.heard]


def user(bench: Bench) -> set[str]:
    """As whom it logs in."""
    with RedisServer() as server, server.client() as admin:
        for name in ("nova", "glance"):
            admin.execute_command(f"ACL SETUSER {name} on >secret ~* &* +@all")
        with registering(bench, port=server.port, password="secret"):
            wait_until(lambda: _users(admin), "it is logged in")
            return _users(admin)


def _users(admin: Any) -> set[str]:
    return {each["user"] for each in admin.client_list()} - {"default"}


def is_admitted(bench: Bench) -> bool:
    """Whether Redis lets it in."""
    with (
        RedisServer(user="nova", password="secret") as server,
        server.client() as admin,
        registering(bench, port=server.port, username="nova"),
    ):
        wait_until(lambda: "nova" in _users(admin) or admin.acl_log(), "in or refused")
        return not admin.acl_log()


def database(bench: Bench) -> set[int]:
    """Which databases it uses."""
    with RedisServer() as server, server.client() as admin:

        def used() -> set[int]:
            clients = admin.client_list()
            return {int(each["db"]) for each in clients if "eval" in each["cmd"]}

        with registering(bench, port=server.port):
            wait_until(used, "it was asked")
            return used()


def sentinels_asked(bench: Bench) -> list[int]:
    """The master of which of two Sentinels it asks."""
    with ExitStack() as stack:
        both = [stack.enter_context(RedisSentinels(replicas=0, sentinels=1)) for _ in (0, 1)]
        for number, one in enumerate(both):
            bench.places[f"sentinel{number}"] = one.hosts
        stack.enter_context(registering(bench, host="127.0.0.3"))
        masters = [one.servers[0] for one in both]
        wait_until(lambda: any(map(_was_asked, masters)), "one was asked")
        return [n for n, master in enumerate(masters) if _was_asked(master)]


def which_master(bench: Bench) -> str:
    """Which of the two masters that one Sentinel watches it asks."""
    with (
        RedisSentinels(replicas=0, sentinels=1, group="one") as sentinels,
        RedisServer() as other,
    ):
        with sentinels.sentinels[0].client() as admin:
            admin.execute_command("SENTINEL", "MONITOR", "other", "127.0.0.1", other.port, 1)
        masters = {"one": sentinels.servers[0], "other": other}
        with registering(bench, sentinel_hosts=sentinels.hosts):
            wait_until(lambda: any(map(_was_asked, masters.values())), "one was asked")
            [name] = [name for name, master in masters.items() if _was_asked(master)]
            return name


def _was_asked(server: RedisServer) -> bool:
    with server.client() as admin:
        return any("eval" in name for name in admin.info("commandstats"))


def seconds_of_patience(bench: Bench) -> float:
    """How long an answer is waited for: less, if the beginning is noticed late."""
    with Ear(bench.base) as mute, registering(bench, port=bench.base):
        wait_until(lambda: mute.ended, "it was given up")
        return mute.ended[0] - mute.connected[0]


def usual_pause(bench: Bench) -> float:
    """The usual pause between the later of a dozen attempts to reach a Redis that is down."""
    with Ear(bench.base, drops=True) as down, registering(bench, port=bench.base):
        wait_until(lambda: len(down.connected) >= 12, "tried again", timeout=20)
        pauses = [b - a for a, b in itertools.pairwise(down.connected[:12])]
        return statistics.median(pauses[-6:])
