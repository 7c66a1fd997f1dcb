# SPDX-License-Identifier: Apache-2.0
"""The demo itself, in the environment that bootstrap.py has made."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from typing import Any, NoReturn

import oslo_messaging
from oslo_config import cfg
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from demo_support import load, stage, steps


def main() -> int:
    parser = argparse.ArgumentParser(prog="./demo")
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _terminated)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    cfg.CONF([], project="demo")
    try:
        perform(console, redis=arguments.redis, seconds=arguments.seconds)
    except KeyboardInterrupt:
        console.print("\n[yellow]Interrupted; everything that was started has been ended.[/]")
        return 130
    except stage.DemoError as error:
        console.print(f"\n[bold red]Failed:[/] {escape(str(error))}")
        return 1
    console.print("\n[bold green]All went right.[/] Every process and file of the demo is gone.")
    return 0


def _terminated(*_: object) -> NoReturn:
    # The way out of Ctrl-C is that of SIGTERM too.
    raise KeyboardInterrupt


def perform(console: Console, *, redis: bool, seconds: float) -> None:
    console.print("[bold]oslo.messaging over ZeroMQ[/]: from process to process, no broker\n")
    with stage.registry(redis=redis) as url:
        console.print(f"  transport_url = [cyan]{escape(url)}[/]")
        with stage.servers(url, "alpha", "beta") as servers:
            names = ", ".join(f"{server.name} (pid {server.pid})" for server in servers)
            console.print(f"  servers       = {names}\n  client        = pid {os.getpid()}\n")
            rpc = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
            notify = oslo_messaging.get_notification_transport(cfg.CONF, url=url)
            try:
                client = steps.make_client(rpc)
                show_steps(console, client, steps.make_notifier(notify))
                show_load(console, client, seconds)
            finally:
                rpc.cleanup()
                notify.cleanup()


def show_steps(console: Console, client: Any, notifier: Any) -> None:
    width = max(map(len, steps.STEPS))
    for name, step in steps.STEPS.items():
        started = time.perf_counter()
        try:
            said = step(client, notifier)
        except oslo_messaging.MessagingException as error:
            raise stage.DemoError(f"{name}: {error}") from error
        except stage.DemoError as error:
            raise stage.DemoError(f"{name}: {error}") from error
        elapsed = (time.perf_counter() - started) * 1000
        console.print(
            f"[green]✓[/] [bold]{name:{width}}[/]  {escape(said)} [dim]({elapsed:.0f} ms)[/]"
        )


def show_load(console: Console, client: Any, seconds: float) -> None:
    results = []
    with Progress(
        TextColumn("  load with {task.fields[threads]} threads"),
        BarColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        for threads in (1, 16):
            task = progress.add_task("load", total=seconds, threads=threads)
            results.append(
                load.measure(
                    client,
                    threads,
                    seconds,
                    lambda done, task=task: progress.update(task, completed=done),
                )
            )
    table = Table(title=f"\nLoad: calls of {len(load.BODY)} bytes over both servers")
    for column in ("threads", "calls", "calls/s", "p50 (ms)", "p99 (ms)"):
        table.add_column(column, justify="right")
    for result in results:
        table.add_row(
            str(result.threads),
            f"{result.calls:,}",
            f"{result.rate:,.0f}",
            f"{result.p50 * 1000:.2f}",
            f"{result.p99 * 1000:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
