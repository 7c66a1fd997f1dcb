# SPDX-License-Identifier: Apache-2.0
"""The demo itself, in the environment that bootstrap.py has made."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator

import oslo_messaging
from oslo_config import cfg

from demo_support import load, stage, steps
from demo_support.interrupts import Interrupts
from demo_support.screen import Screen

THREADS = (1, 16)


def main() -> int:
    """The exit code: 0 if all went right, 130 after Ctrl-C, else 1."""
    parser = argparse.ArgumentParser(prog="./demo")
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level="WARNING", format="%(levelname)s client %(name)s: %(message)s")
    cfg.CONF([], project="demo")
    screen = Screen()
    interrupts = Interrupts()
    try:
        with interrupts.heard():
            perform(screen, interrupts, redis=arguments.redis, seconds=arguments.seconds)
    except KeyboardInterrupt:
        screen.interrupted()
        return 130
    except stage.DemoError as error:
        screen.failed(str(error))
        return 1
    screen.succeeded()
    return 0


def perform(screen: Screen, interrupts: Interrupts, *, redis: bool, seconds: float) -> None:
    """The whole demo; what it starts is gone when it ends.

    :raises DemoError: something did not do what it claims.
    """
    screen.title()
    with contextlib.ExitStack() as stack:
        with screen.busy("starting two servers"):
            url = stack.enter_context(stage.registry(interrupts, redis=redis))
            # Made before the servers and cleaned up after them, which answer before they end.
            app = stack.enter_context(application(interrupts, url))
            servers = stack.enter_context(stage.servers(interrupts, url, *steps.SERVERS))
        screen.facts(
            {
                "transport_url": url,
                "servers": ", ".join(f"{server.name} (pid {server.pid})" for server in servers),
                "client": f"pid {os.getpid()}",
            }
        )
        for step in steps.STEPS:
            show_step(screen, step, app)
        results = []
        for threads in THREADS:
            what = f"load, {threads} thread{'s' if threads > 1 else ''}"
            with screen.progress(what, seconds) as progress:
                results.append(load.measure(app.client, threads, seconds, progress))
        screen.load(results)


@contextlib.contextmanager
def application(interrupts: Interrupts, url: str) -> Iterator[steps.Application]:
    """What uses the two transports; they are cleaned up with the block."""
    rpc = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    notify = oslo_messaging.get_notification_transport(cfg.CONF, url=url)
    try:
        yield steps.Application.make(rpc, notify)
    finally:
        with interrupts.hold():
            rpc.cleanup()
            notify.cleanup()


def show_step(screen: Screen, step: steps.Step, app: steps.Application) -> None:
    """Do it and show what came of it.

    :raises DemoError: it did not do what it claims.
    """
    started = time.perf_counter()
    try:
        with screen.busy(step.name):
            said = step.run(app)
    except (oslo_messaging.MessagingException, stage.DemoError) as error:
        raise stage.DemoError(f"{step.name}: {error}") from error
    screen.step(step.name, step.code, said, time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
