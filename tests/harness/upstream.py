# SPDX-License-Identifier: Apache-2.0
"""Runs oslo.messaging's own functional suite, as it is in the installed wheel.

`python -m harness.upstream OUTCOMES` with RPC_TRANSPORT_URL and
NOTIFY_TRANSPORT_URL set; writes the outcome of each test to the file OUTCOMES,
as one JSON object.  MetricsTestCase is left out: it fails with the rabbit driver
too, and needs a fixed port of the host.

Two of its tests run only where the URL says rabbit, because upstream knew of no
other driver that can do what they ask for.  Ours can, so here the URL answers
that question with yes; everything else about the tests is upstream's.
"""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path
from typing import Any

from oslo_messaging.tests.functional import test_functional

CASES = (
    test_functional.CallTestCase,
    test_functional.CastTestCase,
    test_functional.NotifyTestCase,
)
ONLY_RABBIT = ("test_mandatory_call", "test_monitor_long_call")


class CapableUrl(str):
    """A transport URL that lets tests through which ask for rabbit's abilities."""

    __slots__ = ()

    def startswith(self, prefix: Any, *limits: Any) -> bool:
        return prefix == "rabbit://" or super().startswith(prefix, *limits)


def allow_all_tests(case: Any) -> None:
    """Let the tests of `case` that ask for rabbit see a capable URL."""
    original = case.setUp

    def set_up(self: Any) -> None:
        original(self)
        if self.id().rpartition(".")[2] in ONLY_RABBIT:
            self.rpc_url = CapableUrl(self.rpc_url)

    case.setUp = set_up


class Outcomes(unittest.TestResult):
    """Keeps each test's outcome and what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}

    def _note(self, test: unittest.TestCase, outcome: str, text: str = "") -> None:
        name = ".".join(test.id().rsplit(".", 2)[1:])
        print(f"{outcome:8} {name}", file=sys.stderr, flush=True)
        self.found[name] = [outcome, text]

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        self._note(test, "passed")

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self._note(test, "error", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]  # of unittest

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self._note(test, "failed", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]  # of unittest

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        self._note(test, "skipped", reason)


def main() -> None:
    allow_all_tests(test_functional.CallTestCase)
    outcomes = Outcomes()
    for case in CASES:
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(outcomes)
    Path(sys.argv[1]).write_text(json.dumps(outcomes.found))


if __name__ == "__main__":
    main()
