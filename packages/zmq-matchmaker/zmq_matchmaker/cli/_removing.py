# SPDX-License-Identifier: Apache-2.0
"""`remove`: records of what an operator knows to be dead."""

from __future__ import annotations

import argparse

from zmq_matchmaker import Listing
from zmq_matchmaker.cli._errors import Usage
from zmq_matchmaker.cli._format import COLUMNS, host_of, row
from zmq_matchmaker.cli._source import MatchmakerCommand
from zmq_matchmaker.cli._table import table

__all__ = ["Remove"]

NOBODY = 3


class Remove(MatchmakerCommand):
    """Remove the records of hosts or processes that are dead.

    One that lives is registered again within seconds.
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Which records."""
        parser.add_argument("topic", nargs="*", help="only of these topics")
        parser.add_argument("--host", help="HOST:PORT, or HOST for all its ports")
        parser.add_argument("--node", help="name of the process")
        parser.add_argument("--all", action="store_true", help="all records of the topics")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def take_action(self, parsed: argparse.Namespace) -> int:
        """Show what would be removed, ask, and remove it."""
        if not (parsed.host or parsed.node or (parsed.all and parsed.topic)):
            raise Usage("say what to remove: --host HOST[:PORT], --node NODE, or TOPIC --all")
        with self.matchmaker(parsed) as matchmaker:
            found = [one for one in matchmaker.survey() if _is_meant(one, parsed)]
            if not found:
                self.say("no such record")
                return NOBODY
            self.say(table(COLUMNS, [row(one) for one in found]))
            if not parsed.yes and not self._is_sure(len(found)):
                self.say("nothing was removed")
                return 1
            matchmaker.remove([(key, standing.record) for key, standing in found])
            self.show(
                f"removed {len(found)}; processes that live register again with their next refresh "
                "(zmq_target_update, 40 s unless set)"
            )
        return 0

    def _is_sure(self, number: int) -> bool:
        if not self.app.stdin.isatty():
            raise Usage("there is nobody to ask; add --yes")
        self.app.stderr.write(f"remove {'it' if number == 1 else f'these {number}'}? [y/N] ")
        self.app.stderr.flush()
        return self.app.stdin.readline().strip().lower() in ("y", "yes")


def _is_meant(listing: Listing, parsed: argparse.Namespace) -> bool:
    key, standing = listing
    host = host_of(standing)
    return (
        (not parsed.topic or key.topic in parsed.topic)
        and (not parsed.host or parsed.host in (host, host.rpartition(":")[0]))
        and (not parsed.node or parsed.node == standing.record.node)
    )
