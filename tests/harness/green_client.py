# SPDX-License-Identifier: Apache-2.0
"""A client under eventlet's monkey-patching, in a process of its own.

`python -m harness.green_client URL` calls a service of topic `work` and says, as
JSON lines, how long things took, how long the hub stood still, and what was left.
"""

# ruff: noqa: E402 - everything else must be imported after it was patched

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import json
import sys
import time
from typing import Any

import oslo_messaging
from oslo_config import cfg

from harness.leaks import holdings, settled_holdings


class Ticker:
    """A green thread that notices when it is not let run."""

    def __init__(self, interval: float = 0.005) -> None:
        self._interval = interval
        self.stalls: list[float] = []
        self._thread = eventlet.spawn(self._run)

    def _run(self) -> None:
        while True:
            before = time.perf_counter()
            eventlet.sleep(self._interval)
            self.stalls.append(time.perf_counter() - before - self._interval)

    def stop(self) -> None:
        self._thread.kill()


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    cfg.CONF([], project="green")
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=sys.argv[1])
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic="work"), timeout=30
    )
    pool = eventlet.GreenPool(1000)
    before = holdings()
    client.call({}, "echo", value=0)

    started = time.monotonic()
    list(pool.imap(lambda _: client.call({}, "slow", seconds=1.0), range(20)))
    say(slow_calls=time.monotonic() - started)

    ticker = Ticker()
    # One after another into the pool, as requests come into a service.
    answers = [pool.spawn(client.call, {}, "echo", value=number) for number in range(1000)]
    right = [answer.wait() for answer in answers] == list(range(1000))
    ticker.stop()
    say(right=right, stalls=sorted(ticker.stalls))

    ticker = Ticker()
    try:
        client.prepare(timeout=1).call({}, "slow", seconds=3.0)
    except oslo_messaging.MessagingTimeout:
        ticker.stop()
        say(timed_out=True, stalls=sorted(ticker.stalls))
    started = time.monotonic()
    transport.cleanup()
    say(cleanup=time.monotonic() - started, before=before, after=settled_holdings(before))


if __name__ == "__main__":
    main()
