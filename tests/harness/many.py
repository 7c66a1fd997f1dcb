# SPDX-License-Identifier: Apache-2.0
"""Calls to hundreds of servers by one client with dynamic connections, and what it holds after.

    python -m harness.many --targets 500 --calls 100000

Exits with 1 if a call failed, or anything was left.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import oslo_messaging
from oslo_config import cfg

from harness.leaks import open_descriptors, wait_until
from harness.services import Child, python
from harness.traffic import at_once, established
from zmq_matchmaker.testing import RedisServer
from zmq_oslo_driver import options

_TOPIC = "crowd"
_PROCESSES = 4
_IN_A_ROW = 10
"""Calls to one server before the next: so one of ten needs a connection."""
_THREADS = 4
_KEPT = _THREADS - 1
"""Descriptors: each thread waits with one, which is kept for the next.  One was there before."""


@dataclass
class Outcome:
    """What came of it."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    most: int = 0
    """Connections to servers, at the most."""
    left: int = 0
    """Descriptors that are open after it, and were not before."""

    def fault(self, calls: int, most: int) -> str:
        """What is not as it should be; nothing if all is."""
        if self.failures or self.answered != calls:
            return f"{self.answered} of {calls} calls answered: {self.failures[:3]}"
        if not most / 2 < self.most <= most + 2 * _THREADS:  # while others are being closed
            return f"{self.most} connections, where {most} are wanted"
        return f"{self.left} descriptors were left" if self.left > _KEPT else ""


@contextmanager
def crowd(url: str, names: Sequence[str]) -> Iterator[None]:
    """Servers of these names, each with a node of its own."""
    parts = [names[part::_PROCESSES] for part in range(_PROCESSES)]

    def start(part: Sequence[str]) -> Child:
        config = json.dumps({"url": url, "topic": _TOPIC, "names": part})
        child = Child(python("-W", "ignore", "-m", "harness.crowd", config))
        child.hear(timeout=60)
        return child

    children = at_once(functools.partial(start, part) for part in parts)
    try:
        yield
        for child in children:
            child.process.terminate()
        for child in children:
            assert child.hear(timeout=60) == {"stopped": True}
    finally:
        for child in children:
            child.__exit__(None, None, None)


def call_many(
    redis: RedisServer,
    transport: Any,
    names: Sequence[str],
    calls: int,
    tell: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Make so many calls to servers of `names`, in random order, by four threads."""
    outcome = Outcome()
    lock = threading.Lock()

    def links() -> int:
        return sum(link.raddr.port != redis.port for link in established(os.getpid()))

    def call_all(seed: int) -> None:
        order = random.Random(seed)
        target = oslo_messaging.Target(topic=_TOPIC)
        caller = oslo_messaging.get_rpc_client(transport, target, timeout=30)
        for _ in range(calls // _THREADS // _IN_A_ROW):
            name = order.choice(names)
            for _ in range(_IN_A_ROW):
                problem = _call(caller.prepare(server=name), name)
                with lock:
                    outcome.failures += problem
                    outcome.answered += not problem

    call_all_once = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=_TOPIC))
    call_all_once.prepare(server=names[0], timeout=30).call({}, "whoami")
    wait_until(lambda: not links(), "the first connection is closed")
    before = len(open_descriptors())
    workers = [threading.Thread(target=call_all, args=(seed,)) for seed in range(_THREADS)]
    for worker in workers:
        worker.start()
    said = time.monotonic()
    while alive := [worker for worker in workers if worker.is_alive()]:
        outcome.most = max(outcome.most, links())
        if time.monotonic() > said + 5:
            said = time.monotonic()
            tell(f"{outcome.answered} of {calls} calls, {links()} connections")
        alive[0].join(0.2)
    wait_until(lambda: not links(), "those that are idle are closed")
    deadline = time.monotonic() + 5  # the system has closed a connection before we have
    while (left := len(open_descriptors()) - before) > _KEPT and time.monotonic() < deadline:
        time.sleep(0.01)
    outcome.left = left
    return outcome


def _call(caller: Any, name: str) -> list[str]:
    """What went wrong."""
    try:
        answer = caller.call({}, "whoami")
    except Exception as error:  # noqa: BLE001 - what is under test
        return [f"{type(error).__name__}: {error}"]
    return [] if answer == name else [f"{answer} answered instead of {name}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--targets", type=int, default=500, help="servers (default: 500)")
    parser.add_argument("--calls", type=int, default=100_000, help="calls (default: 100000)")
    parser.add_argument("--most", type=int, default=50, help="zmq_max_connections (default: 50)")
    given = parser.parse_args()
    names = [f"server-{number}" for number in range(given.targets)]
    cfg.CONF([], project="harness", default_config_files=[], default_config_dirs=[])
    options.register(cfg.CONF)
    for name, value in {**SETTINGS, "zmq_max_connections": given.most}.items():
        cfg.CONF.set_override(name, value, group=options.GROUP)
    with RedisServer() as redis:
        url = f"zmq+{redis.url}/many"
        with crowd(url, names):
            transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
            began = time.monotonic()
            outcome = call_many(redis, transport, names, given.calls, print)
            print(f"{time.monotonic() - began:.0f} s: {outcome}")
            transport.cleanup()
    fault = outcome.fault(given.calls, given.most)
    print(fault or "all as it should be")
    return 1 if fault else 0


SETTINGS: dict[str, Any] = {
    "rpc_zmq_bind_address": "127.0.0.1",
    "use_dynamic_connections": True,
    "use_pub_sub": False,
    "zmq_idle_timeout": 1,
}

if __name__ == "__main__":
    sys.exit(main())
