# SPDX-License-Identifier: Apache-2.0
"""From `--url` or `--config-file` to the matchmaker, and from arguments to a key."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cliff.command import Command
from oslo_config import cfg

from zmq_matchmaker import (
    InvalidURL,
    Key,
    Matchmaker,
    MatchmakerError,
    MatchmakerURL,
    Role,
    UnknownMatchmaker,
    load,
)
from zmq_matchmaker.cli._errors import Usage
from zmq_matchmaker.configuration import of_transport_url, register

__all__ = ["MatchmakerCommand", "add_target", "key_of"]


class MatchmakerCommand(Command):
    """A command that talks to a matchmaker."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Its arguments: where the matchmaker is, and those of the subclass."""
        parser = super().get_parser(prog_name)
        where = parser.add_argument_group("matchmaker")
        where.add_argument(
            "--config-file",
            action="append",
            default=[],
            metavar="FILE",
            help="configuration of a service, of which transport_url, [oslo_messaging_zmq] and "
            "[matchmaker_redis] are read; may be repeated",
        )
        where.add_argument(
            "--url",
            help="the matchmaker itself, such as redis://host:6379/deployment, or a transport URL",
        )
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Arguments of this command alone."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Do it; what goes wrong is one line, and an exit code: 2 for the command line, else 1."""
        try:
            return int(super().run(parsed_args))
        except MatchmakerError as error:
            self.say(f"zmq-matchmaker: {error}")
            return 2 if isinstance(error, (Usage, InvalidURL, UnknownMatchmaker)) else 1

    @contextmanager
    def matchmaker(self, parsed: argparse.Namespace) -> Iterator[Matchmaker]:
        """The matchmaker that the arguments name; closed with the block."""
        logging.getLogger("zmq_matchmaker").setLevel(logging.ERROR)  # commands say it themselves
        matchmaker = load(_url(parsed))
        try:
            yield matchmaker
        finally:
            matchmaker.close()

    def say(self, text: str) -> None:
        """A line for people, which is no result."""
        self.app.stderr.write(f"{text}\n")

    def show(self, text: str) -> None:
        """A line of the result, at once."""
        self.app.stdout.write(f"{text}\n")
        self.app.stdout.flush()


def _url(parsed: argparse.Namespace) -> MatchmakerURL:
    if bool(parsed.url) == bool(parsed.config_file):
        raise Usage("say where the matchmaker is: either --config-file FILE or --url URL")
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("transport_url", secret=True))
    register(conf)
    try:
        conf(args=[], project="zmq-matchmaker", default_config_files=parsed.config_file)
        text = parsed.url or conf.transport_url
    except cfg.Error as error:
        raise Usage(f"--config-file: {error}") from error
    if not text:
        raise Usage(f"transport_url is not set in {', '.join(parsed.config_file)}")
    return of_transport_url(text, conf)


def add_target(parser: argparse.ArgumentParser, *, topic: dict[str, Any] | None = None) -> None:
    """Arguments that make a key."""
    parser.add_argument("topic", **(topic or {}))
    parser.add_argument("--server", default="", help="a server of the topic")
    parser.add_argument("--exchange", default="openstack", help="(default: %(default)s)")
    parser.add_argument(
        "--role",
        choices=[str(role) for role in Role],
        default=str(Role.LISTENER),
        help="(default: %(default)s, which is RPC)",
    )


def key_of(parsed: argparse.Namespace) -> Key:
    """The key that the arguments of `add_target` make."""
    return Key(Role(parsed.role), parsed.exchange, parsed.topic, parsed.server)
