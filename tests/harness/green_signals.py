# SPDX-License-Identifier: Apache-2.0
"""Green threads that are killed while they send, and a signal that finds eventlet's hub at work.

Started as `python -m harness.green_signals URL`.
"""

# ruff: noqa: E402 - everything else must be imported after it was patched

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import faulthandler
import json
import logging
import random
import signal
import sys
import time
from collections import Counter
from typing import Any

import oslo_messaging
from oslo_config import cfg

from harness.leaks import holdings, settled_holdings


def outcome_of(call: Any) -> str:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - what is under test
        return type(error).__name__
    return "answered"


def main() -> None:
    faulthandler.dump_traceback_later(60, exit=True)
    logging.basicConfig(level="ERROR", stream=sys.stderr)
    cfg.CONF([], project="green")
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=sys.argv[1])
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic="work"), timeout=30
    )
    client.call({}, "echo", value=0)
    transport.cleanup()  # the hub has what it needs from now on
    before = holdings()

    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=sys.argv[1])
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic="work"), timeout=30
    )
    dice = random.Random(1)
    for number in range(200):
        send = client.cast if number % 4 == 0 else client.call
        method = ("note", {"text": "x"}) if number % 4 == 0 else ("slow", {"seconds": 0.01})
        victim = eventlet.spawn(send, {}, method[0], **method[1])
        eventlet.sleep(dice.uniform(0.0, 0.01))
        victim.kill()
    right = [client.call({}, "echo", value=n) for n in range(20)] == list(range(20))
    links = transport._driver._use().node.links.values()
    out = sum(len(link._outstanding) for link in links)

    def handle(*_: object) -> None:
        began = time.monotonic()
        transport.cleanup()
        handled.append(time.monotonic() - began)

    handled: list[float] = []
    signal.signal(signal.SIGALRM, handle)
    callers = [
        eventlet.spawn(outcome_of, lambda: client.call({}, "slow", seconds=20)) for _ in range(5)
    ]
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    outcomes = Counter(caller.wait() for caller in callers)
    transport.cleanup()
    after = settled_holdings(before)
    print(
        json.dumps(
            {
                "right": right,
                "out": out,
                "handled": handled,
                "outcomes": outcomes,
                "before": before,
                "after": after,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
