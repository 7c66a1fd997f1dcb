# SPDX-License-Identifier: Apache-2.0
"""A process that a signal interrupts at random moments, again and again.

Started as `python -m harness.interrupted CONFIG`, where CONFIG is JSON (see
`InterruptedConfig`).  The handler runs on the main thread, in the midst of whatever that
is at, and does what `handler` says.  At the end it says how often that was, what came of
it, and what is left.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import futurist  # noqa: F401 - as in services: oslo.service loads it
import msgspec
import oslo_messaging
from oslo_config import cfg

from harness.leaks import holdings, settled_holdings
from harness.service import Endpoint
from zmq_matchmaker import Key, Role

_HANGS: Final = 60
"""Seconds after which it tells where it hangs, and ends."""


class InterruptedConfig(msgspec.Struct):
    """What is interrupted, and by what."""

    url: str
    work: str
    """`call`, `cast`, `serve` (start and stop a server), `cleanup`, or `all` in turn.

    `locked`: the signal comes while a lock of ours is held by the thread that it interrupts.
    """
    handler: str
    """`cleanup`, `stop` (a server that was started before) or `raise`."""
    turns: int = 100
    seed: int = 0
    latest: float = 0.004
    """Seconds, at the most, after which the signal comes."""
    options: dict[str, Any] = {}


class Interrupted(BaseException):
    """What the handler raises, as Ctrl-C does."""


class Victim:
    """A transport, used and cleaned up while signals come."""

    def __init__(self, config: InterruptedConfig) -> None:
        self._config = config
        self._dice = random.Random(config.seed)
        self._works: dict[str, Callable[[], None]] = {
            "call": self._call,
            "cast": self._cast,
            "serve": self._serve,
            "cleanup": self._clean_up,
        }
        if config.work == "locked":
            self._works["locked"] = self._raise_the_signal_with_a_lock
        self.outcomes: Counter[str] = Counter()
        self.handled = 0
        self.longest = 0.0
        """Seconds that a handler took, at the most."""
        self.slow = 0
        signal.signal(signal.SIGALRM, self._handle)

    def run(self) -> None:
        names = list(self._works) if self._config.work == "all" else [self._config.work]
        for turn in range(self._config.turns):
            self._turn(names[turn % len(names)])

    def _turn(self, name: str) -> None:
        self._transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=self._config.url)
        target = oslo_messaging.Target(topic="work")
        self._client = oslo_messaging.get_rpc_client(self._transport, target, timeout=10)
        self._server: Any = oslo_messaging.get_rpc_server(
            self._transport,
            oslo_messaging.Target(topic="own", server="interrupted"),
            [Endpoint("interrupted", self._transport)],
            executor="threading",
        )
        if self._dice.random() < 0.7:  # else the first use is what is interrupted
            self._client.call({}, "echo", value=0)
        if self._config.handler == "stop":
            self._server.start()
        after = self._dice.uniform(0.00001, self._config.latest)
        try:
            if name != "locked":
                signal.setitimer(signal.ITIMER_REAL, after)
            self._works[name]()
            outcome = "done"
        except Interrupted:
            outcome = "interrupted"
        except Exception as error:  # noqa: BLE001 - looked at by the test
            outcome = f"{type(error).__name__}: {str(error)[-60:]}"
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            outcome = "interrupted"
        self.outcomes[outcome] += 1
        if self._config.handler == "stop":
            self._server.stop()
            self._server.wait()
        self._transport.cleanup()

    def _handle(self, *_: object) -> None:
        self.handled += 1
        if self._config.handler == "raise":
            raise Interrupted
        began = time.monotonic()
        if self._config.handler == "stop":
            self._server.stop()
        else:
            self._transport.cleanup()
        took = time.monotonic() - began
        self.slow += took > 0.5
        self.longest = max(self.longest, took)

    def _call(self) -> None:
        for number in range(20):
            assert self._client.call({}, "echo", value=number) == number

    def _cast(self) -> None:
        for _ in range(50):
            self._client.cast({}, "note", text="x")

    def _serve(self) -> None:
        self._server.start()
        self._server.stop()

    def _raise_the_signal_with_a_lock(self) -> None:
        self._call()  # so that there is something to be asked after
        directory = self._transport._driver._use().directory

        def clock() -> float:
            directory._clock = time.monotonic
            signal.raise_signal(signal.SIGALRM)
            return time.monotonic()

        directory._clock = clock  # asked with the directory's lock held
        directory.refresh(Key(Role.LISTENER, "openstack", "work"), 5)

    def _clean_up(self) -> None:
        self._call()
        self._transport.cleanup()


def main() -> None:
    config = msgspec.json.decode(sys.argv[1].encode(), type=InterruptedConfig)
    logging.basicConfig(level="ERROR", stream=sys.stderr)
    faulthandler.dump_traceback_later(_HANGS, exit=True)
    cfg.CONF([], project="harness", default_config_files=[], default_config_dirs=[])
    from zmq_oslo_driver import options, runtime

    options.register(cfg.CONF)
    for name, value in config.options.items():
        cfg.CONF.set_override(name, value, group=options.GROUP)
    before = holdings()
    victim = Victim(config)
    began = time.monotonic()
    victim.run()
    print(
        json.dumps(
            {
                "handled": victim.handled,
                "outcomes": victim.outcomes,
                "longest": victim.longest,
                "slow": victim.slow,
                "seconds": time.monotonic() - began,
                "runtimes": len(runtime._runtimes),
                "before": before,
                "after": settled_holdings(before),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
