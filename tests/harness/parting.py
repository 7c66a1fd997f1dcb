# SPDX-License-Identifier: Apache-2.0
"""A process that casts as fast as it can, and ends by itself with casts still unsent.

Started as `python -m harness.parting CONFIG`, where CONFIG is JSON (see `PartingConfig`).
Each cast is in the journal; the last thing that it says is when it began to end.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import futurist  # noqa: F401 - as in services: oslo.service loads it
import msgspec
import oslo_messaging
from oslo_config import cfg

from harness.journal import BEGUN, FAILED, SUCCEEDED, Journal

WAYS = {
    "the end of main": 0,
    "sys.exit": 3,
    "an exception": 1,
    "SIGTERM, whose handler raises SystemExit": 4,
    "the end of a multiprocessing worker": 0,
    "cleanup": 0,
}
"""How it may end, and with which code."""


class PartingConfig(msgspec.Struct):
    """What the process sends, and how it ends."""

    url: str
    journal: str
    way: str
    casts: int = 300
    size: int = 10_000
    options: dict[str, Any] = {}


def send_all(transport: Any, config: PartingConfig) -> None:
    """Cast until all is sent, or nobody takes any more."""
    target = oslo_messaging.Target(topic="work")
    client = oslo_messaging.get_rpc_client(transport, target)
    load = {"payload": "x" * config.size}
    with Journal(Path(config.journal)) as journal:
        for number in range(config.casts):
            message = f"cast-{number}"
            journal.note(BEGUN, "cast", message)
            try:
                client.cast({}, "run", pattern="cast", message=message, **load)
            except oslo_messaging.MessageDeliveryFailure as error:
                journal.note(FAILED, "cast", message, type(error).__name__)
                return
            journal.note(SUCCEEDED, "cast", message)


def exit_by_signal(*_: object) -> NoReturn:
    sys.exit(WAYS["SIGTERM, whose handler raises SystemExit"])


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    config = msgspec.json.decode(sys.argv[1].encode(), type=PartingConfig)
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    cfg.CONF([], project="harness", default_config_files=[], default_config_dirs=[])
    from zmq_oslo_driver import options

    options.register(cfg.CONF)
    for name, value in config.options.items():
        cfg.CONF.set_override(name, value, group=options.GROUP)
    signal.signal(signal.SIGTERM, exit_by_signal)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=config.url)
    if config.way == "the end of a multiprocessing worker":
        worker = multiprocessing.get_context("fork").Process(
            target=send_all, args=(transport, config)
        )
        worker.start()
        worker.join()
        say(ends=time.monotonic())
        sys.exit(worker.exitcode)
    send_all(transport, config)
    say(ends=time.monotonic())
    if config.way == "sys.exit":
        sys.exit(WAYS["sys.exit"])
    elif config.way == "an exception":
        raise RuntimeError("nobody catches this")
    elif config.way == "SIGTERM, whose handler raises SystemExit":
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    elif config.way == "cleanup":
        transport.cleanup()


if __name__ == "__main__":
    main()
