# SPDX-License-Identifier: Apache-2.0
"""The program as cliff sees it: all commands by their names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final

from cliff.app import App
from cliff.commandmanager import CommandManager

from zmq_matchmaker import __version__
from zmq_matchmaker.cli._checking import Check
from zmq_matchmaker.cli._pinging import Ping
from zmq_matchmaker.cli._reading import List, Resolve
from zmq_matchmaker.cli._removing import Remove
from zmq_matchmaker.cli._source import MatchmakerCommand
from zmq_matchmaker.cli._watching import Watch

__all__ = ["COMMANDS", "run"]

COMMANDS: Final[dict[str, type[MatchmakerCommand]]] = {
    "check": Check,
    "list": List,
    "ping": Ping,
    "remove": Remove,
    "resolve": Resolve,
    "watch": Watch,
}

_NAME: Final = "zmq-matchmaker"


class _App(App):
    """Has the same name, however it was started."""

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        """The options before the command."""
        return super().build_option_parser(
            description, version, {**(argparse_kwargs or {}), "prog": _NAME}
        )


def run(words: Sequence[str], description: str) -> int:
    """Run the command that `words` name; returns the exit code."""
    App.NAME = _NAME  # which cliff shows with the version
    manager = CommandManager("zmq_matchmaker.cli", convert_underscores=False)
    for name, command in COMMANDS.items():
        manager.add_command(name, command)
    return int(_App(description, __version__, manager, deferred_help=True).run(list(words)))
