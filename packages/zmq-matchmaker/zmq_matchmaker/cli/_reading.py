# SPDX-License-Identifier: Apache-2.0
"""`list` and `resolve`: who is registered, and whom a client would use."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from zmq_matchmaker import Listing, Role
from zmq_matchmaker.cli._format import COLUMNS, for_programs, row
from zmq_matchmaker.cli._source import MatchmakerCommand, add_target, key_of
from zmq_matchmaker.cli._table import table

__all__ = ["List", "Resolve"]

NOBODY = 3


class List(MatchmakerCommand):
    """List who listens where, with the time that each record has to live."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """What to list, and how."""
        for name in ("exchange", "topic", "server"):
            parser.add_argument(f"--{name}", help=f"only of this {name}")
        parser.add_argument("--role", choices=[str(role) for role in Role], help="only this role")
        parser.add_argument("--json", action="store_true", help="for programs; times in seconds")

    def take_action(self, parsed: argparse.Namespace) -> int:
        """Survey, and show what was asked for."""
        with self.matchmaker(parsed) as matchmaker:
            listings = [one for one in matchmaker.survey() if _is_wanted(one, parsed)]
            _show(self, listings, as_json=parsed.json)
            if not listings:
                self.say(f"nobody is registered in {matchmaker.url}")
        return 0


class Resolve(MatchmakerCommand):
    """Tell whom a client would use for a topic now."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Which topic."""
        add_target(parser)
        parser.add_argument("--json", action="store_true", help="for programs; times in seconds")

    def take_action(self, parsed: argparse.Namespace) -> int:
        """Look up; those that are set aside come last."""
        key = key_of(parsed)
        with self.matchmaker(parsed) as matchmaker:
            [found] = matchmaker.find([key])
            standings = sorted(found.standings, key=lambda one: (one.aside > 0, one.record))
            _show(self, [Listing(key, one) for one in standings], as_json=parsed.json)
            if not found.complete:
                self.say(
                    "the matchmaker is new, or was emptied or away just now: some may be missing"
                )
            if not standings:
                self.say(f"nobody listens on the {key}")
                return NOBODY
        return 0


def _is_wanted(listing: Listing, parsed: argparse.Namespace) -> bool:
    return all(
        getattr(parsed, name) in (None, str(getattr(listing.key, name)))
        for name in ("exchange", "topic", "server", "role")
    )


def _show(command: MatchmakerCommand, listings: Sequence[Listing], *, as_json: bool) -> None:
    if as_json:
        command.show(json.dumps([for_programs(one) for one in listings], indent=1))
    elif listings:
        command.show(table(COLUMNS, [row(one) for one in listings]))
