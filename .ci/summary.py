# SPDX-License-Identifier: Apache-2.0
"""Adds up the junit reports of a folder: ``summary.py dist/test/reports``.

Ends with the line ``N passed, N failed, N skipped``. Exits 1 if a test failed, if none ran, or
if one was skipped for want of root, which CI has.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

NEEDS_ROOT = "needs root"


def main(folder: str) -> int:
    """Print the sum and say whether it is good enough."""
    failed: list[str] = []
    skipped: dict[str, str] = {}
    passed = 0
    for report in sorted(Path(folder).glob("*.xml")):
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            skip = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append(name)
            elif skip is not None:
                skipped[name] = skip.get("message", "")
            else:
                passed += 1
    print()
    for name in failed:
        print(f"FAILED {name}")
    for name, reason in skipped.items():
        print(f"SKIPPED {name}: {reason}")
    rootless = [name for name, reason in skipped.items() if NEEDS_ROOT in reason]
    if rootless:
        print(f"summary: {len(rootless)} tests lacked root; run CI as root")
    if not passed:
        print(f"summary: no test passed; are there reports in {folder}?")
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped", flush=True)
    return int(bool(failed or rootless or not passed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
