# SPDX-License-Identifier: Apache-2.0
"""`check`: is the matchmaker well, and what to do if not."""

from __future__ import annotations

import argparse
import json

from zmq_matchmaker import Severity
from zmq_matchmaker.cli._source import MatchmakerCommand

__all__ = ["Check"]


class Check(MatchmakerCommand):
    """Connect, look at everything that can be wrong, and advise."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """How to say it."""
        parser.add_argument("--json", action="store_true", help="for programs")

    def take_action(self, parsed: argparse.Namespace) -> int:
        """Exit code 1 if anything is an error."""
        with self.matchmaker(parsed) as matchmaker:
            findings = matchmaker.inspect()
        if parsed.json:
            self.show(json.dumps([finding._asdict() for finding in findings], indent=1))
        else:
            width = max(len(finding.subject) for finding in findings)
            for finding in findings:
                self.show(f"{finding.severity:<7}  {finding.subject:<{width}}  {finding.text}")
                if finding.advice:
                    self.show(f"{'':<7}  {'':<{width}}  -> {finding.advice}")
        return int(any(finding.severity is Severity.ERROR for finding in findings))
