# SPDX-License-Identifier: Apache-2.0
"""Each case of docs/faults.md has tests that are named after it, and the page names them all."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/faults.md"
CASES = [f"F{number:02}" for number in range(1, 36)]


@functools.cache
def named_after_cases() -> dict[str, set[str]]:
    """By case the names of its tests, read from their sources."""
    found: dict[str, set[str]] = defaultdict(set)
    files = [*ROOT.glob("tests/test_*.py"), *ROOT.glob("packages/*/tests/test_*.py")]
    assert len(files) > 80, "the tests of all packages are here"
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for number in re.findall(r"(?<=_f)\d\d(?=_)", node.name):
                    found[f"F{number}"].add(node.name)
    return found


def rows() -> dict[str, list[str]]:
    """The lines of the page's table by their first cell: the cells after it."""
    lines = (line.strip("| \n").split(" | ") for line in PAGE.read_text().splitlines())
    return {cells[0]: cells[1:] for cells in lines if re.fullmatch(r"F\d\d", cells[0])}


def test_each_case_has_tests_and_the_page_names_them() -> None:
    for case, (_fault, happens, tests) in rows().items():
        assert happens, case
        assert named_after_cases()[case], f"no test is named after {case}"
        assert set(re.findall(r"test_\w+", tests)) == named_after_cases()[case], case


def test_the_cases_are_all_there_and_no_test_is_named_after_another() -> None:
    assert named_after_cases().keys() == {*CASES} == rows().keys()
