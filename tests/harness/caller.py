# SPDX-License-Identifier: Apache-2.0
"""A process whose threads send without pause, until SIGTERM.

Started as `python -m harness.caller CONFIG`, where CONFIG is JSON (see
`CallerConfig`).  It says every tenth of a second how far it is, and at the end what it
still held when everything was cleaned up.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
import oslo_messaging
from oslo_config import cfg
from oslo_messaging import Target

from harness.asked import AskedToEnd
from harness.journal import BEGUN, FAILED, SUCCEEDED, Journal
from harness.leaks import holdings, peak_memory, settled_holdings

_REPORT_INTERVAL: Final = 0.1


class CallerConfig(msgspec.Struct):
    """What a caller process does."""

    url: str
    name: str
    journal: str
    topic: str = "work"
    server: str | None = None
    threads: int = 4
    patterns: dict[str, int] = msgspec.field(default_factory=lambda: {"call": 1})
    """How often to `call`, `cast`, `fanout` and `notify`, in proportion."""
    timeout: float = 10.0
    pause: float = 0.0
    """Seconds between two messages of a thread."""
    most: int = 0
    """Messages to send in all; 0: until it is stopped."""
    size: int = 0
    """Octets that go along with each call, cast and fanout."""
    work: float = 0.0
    """Seconds that it takes to execute one."""
    seed: int = 0
    options: dict[str, Any] = {}


class Caller:
    """Sends messages that are told apart, and writes down what became of each."""

    def __init__(self, config: CallerConfig, journal: Journal) -> None:
        self._config = config
        self._journal = journal
        self.rpc = oslo_messaging.get_rpc_transport(cfg.CONF, url=config.url)
        self.notify = oslo_messaging.get_notification_transport(cfg.CONF, url=config.url)
        target = Target(topic=config.topic, server=config.server)
        client = oslo_messaging.get_rpc_client(self.rpc, target, timeout=config.timeout)
        everybody = client.prepare(fanout=True)
        notifier = oslo_messaging.Notifier(
            self.notify, publisher_id=config.name, driver="messaging", topics=["events"]
        )
        load = {"payload": "x" * config.size, "seconds": config.work}
        self._send = {
            "call": lambda message: client.call({}, "run", pattern="call", message=message, **load),
            "cast": lambda message: client.cast({}, "run", pattern="cast", message=message, **load),
            "fanout": lambda message: everybody.cast(
                {}, "run", pattern="fanout", message=message, **load
            ),
            "notify": lambda message: notifier.info({}, message, {}),
        }
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._failures: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._last = time.monotonic()
        self._longest_gap = 0.0
        self._longest = 0.0

    def run(self, asked: AskedToEnd) -> None:
        """Send until this process is asked to end."""
        threads = [
            threading.Thread(
                target=self._send_on, args=(random.Random(f"{self._config.seed}/{n}"),)
            )
            for n in range(self._config.threads)
        ]
        for thread in threads:
            thread.start()
        while not asked.wait(_REPORT_INTERVAL):
            say(**self.report(), done=not any(thread.is_alive() for thread in threads))
        self._stopping.set()
        for thread in threads:
            thread.join()
        self.rpc.cleanup()
        self.notify.cleanup()

    def report(self) -> dict[str, Any]:
        """What was sent until now."""
        with self._lock:
            return {
                "time": time.monotonic(),
                "answers": dict(self._answers),
                "failures": dict(self._failures),
                "longest_gap": self._longest_gap,
                "longest": self._longest,
                "peak_memory": peak_memory(),
            }

    def _send_on(self, chance: random.Random) -> None:
        patterns, weights = zip(*self._config.patterns.items(), strict=True)
        for number in self._numbers:
            if self._stopping.is_set() or 0 < self._config.most <= number:
                return
            pattern = chance.choices(patterns, weights)[0]
            self._send_one(pattern, f"{self._config.name}-{number}")
            if self._config.pause:
                self._stopping.wait(self._config.pause * chance.uniform(0.5, 1.5))

    def _send_one(self, pattern: str, message: str) -> None:
        self._journal.note(BEGUN, pattern, message)
        began = time.monotonic()
        try:
            answer = self._send[pattern](message)
        except Exception as error:  # noqa: BLE001 - what is under test
            kind = type(error).__name__
            self._journal.note(FAILED, pattern, message, f"{kind}: {error}".replace("\n", " "))
            with self._lock:
                self._failures[kind] += 1
                self._longest = max(self._longest, time.monotonic() - began)
        else:
            self._journal.note(SUCCEEDED, pattern, message, answer or "")
            with self._lock:
                now = time.monotonic()
                self._answers[answer or pattern] += 1
                self._longest = max(self._longest, now - began)
                self._longest_gap = max(self._longest_gap, now - self._last)
                self._last = now


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    config = msgspec.json.decode(sys.argv[1].encode(), type=CallerConfig)
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    cfg.CONF([], project="harness", default_config_files=[], default_config_dirs=[])
    from zmq_oslo_driver import options

    options.register(cfg.CONF)
    for name, value in config.options.items():
        cfg.CONF.set_override(name, value, group=options.GROUP)
    before = holdings()
    with Journal(Path(config.journal)) as journal:
        caller = Caller(config, journal)
        caller.run(AskedToEnd())
    say(stopped=True, before=before, after=settled_holdings(before), **caller.report())


if __name__ == "__main__":
    main()
