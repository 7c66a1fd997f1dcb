# SPDX-License-Identifier: Apache-2.0
"""Measurements of single parts: the first word of the command line chooses one."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["fanout_options", "forwarding_options", "matchmaker_options", "positive"]


def positive(text: str) -> int:
    """A number of at least 1, as argparse wants it."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def matchmaker_options(words: list[str]) -> argparse.Namespace:
    """Of the words after `matchmaker`."""
    made = argparse.ArgumentParser(
        prog="benchmarks/run matchmaker",
        description="Registering, looking up, refreshing and recovering of many processes' "
        "directories, on a Redis that is started for it.",
    )
    made.add_argument("--processes", type=positive, default=100, help="default: %(default)s")
    made.add_argument(
        "--listeners", type=positive, default=100, help="of each process; default: %(default)s"
    )
    made.add_argument(
        "--seconds",
        type=float,
        default=40.0,
        help="for which the steady state is watched, twice; default: %(default)g, in which each "
        "process refreshes once",
    )
    _add_json(made)
    return made.parse_args(words)


def forwarding_options(words: list[str]) -> argparse.Namespace:
    """Of the words after `forwarding`."""
    made = argparse.ArgumentParser(
        prog="benchmarks/run forwarding",
        description="Messages per second and processor time of the proxy's router, beside libzmq's "
        "own zmq_proxy with the same messages, in turns, round by round; and the router's memory.",
    )
    made.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")
    made.add_argument(
        "--seconds", type=float, default=2.0, help="per measurement and round; default: %(default)s"
    )
    made.add_argument(
        "--pairs",
        type=positive,
        default=50,
        help="senders, and as many receivers, where there are many; default: %(default)s",
    )
    made.add_argument(
        "--window",
        type=_window,
        default=400,
        help="messages under way for each receiver, and 5,000 for all together at the most; a "
        "router refuses what exceeds the queue of 1,000; default: %(default)s",
    )
    made.add_argument(
        "--messages",
        type=_window,
        default=1_000_000,
        help="after which the growth of memory is looked at; default: %(default)s",
    )
    made.add_argument(
        "--receivers",
        type=positive,
        default=2000,
        help="connected at once, for their memory; default: %(default)s",
    )
    _add_json(made)
    _add_quick(made)
    options = made.parse_args(words)
    if options.quick:
        options.rounds, options.seconds, options.pairs = 1, 0.1, 3
        options.messages, options.receivers = 1000, 20
    return options


def fanout_options(words: list[str]) -> argparse.Namespace:
    """Of the words after `fanout`."""
    made = argparse.ArgumentParser(
        prog="benchmarks/run fanout",
        description="Fanouts of an oslo.messaging client: how long they take it, and how long "
        "until the last listener has its copy, through a zmq-proxy that publishes and without one.",
    )
    made.add_argument("--rounds", type=positive, default=3, help="default: %(default)s")
    made.add_argument(
        "--fanouts",
        type=positive,
        default=200,
        help="to each number of listeners in a round; default: %(default)s",
    )
    made.add_argument(
        "--interval",
        type=float,
        default=0.05,
        help="seconds from one to the next, to be enough for all copies; default: %(default)s",
    )
    made.add_argument(
        "--listeners",
        type=positive,
        nargs="+",
        default=[1, 100, 1000],
        help="that subscribe, plain sockets; default: 1 100 1000",
    )
    made.add_argument(
        "--direct",
        type=positive,
        nargs="*",
        default=[1, 100],
        help="that get a copy each, whole nodes; default: 1 100; none: go without",
    )
    made.add_argument(
        "--processes", type=positive, default=2, help="of listeners; default: %(default)s"
    )
    _add_json(made)
    _add_quick(made)
    options = made.parse_args(words)
    if options.quick:
        options.rounds, options.fanouts, options.interval = 1, 5, 0.01
        options.listeners, options.direct = [1, 20], [1, 3]
    return options


def _window(text: str) -> int:
    number = int(text)
    if number < 100:
        raise argparse.ArgumentTypeError("must be at least 100, two batches")
    return number


def _add_json(made: argparse.ArgumentParser) -> None:
    made.add_argument("--json", type=Path, metavar="PATH", help="write the results to this file")


def _add_quick(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--quick", action="store_true", help="short, to see that everything works; means nothing"
    )
