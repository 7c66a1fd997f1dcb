# SPDX-License-Identifier: Apache-2.0
"""Types of each ``conftest.py``, in a mypy run of its own.

Every folder of tests may have one, and mypy refuses several modules of one name in one run. So
BUILD files keep them out of the common run (``skip_mypy``) and they are checked here, one by
one, with the same options and cache.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonSourceField
from pants.backend.python.typecheck.mypy.rules import MyPyPartition
from pants.backend.python.typecheck.mypy.subsystem import MyPy, MyPyFieldSet
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.core.goals.check import CheckRequest, CheckResult, CheckResults
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import CoarsenedTargets, CoarsenedTargetsRequest, Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel
from pants.util.ordered_set import FrozenOrderedSet


@dataclass(frozen=True)
class ConftestFieldSet(MyPyFieldSet):
    """A file named ``conftest.py``."""

    @classmethod
    def opt_out(cls, tgt: Target) -> bool:
        """All other files."""
        return os.path.basename(tgt[PythonSourceField].file_path) != "conftest.py"


class ConftestsRequest(CheckRequest):
    """Asks for the types of all of them."""

    field_set_type = ConftestFieldSet
    tool_name = "mypy-conftests"


@rule(desc="Typecheck each conftest.py", level=LogLevel.DEBUG)
async def check_conftests(
    request: ConftestsRequest, mypy: MyPy, python_setup: PythonSetup
) -> CheckResults:
    """One partition, as the mypy backend calls it, for each file."""
    if mypy.skip:
        return CheckResults([], checker_name=request.tool_name)
    targets = await MultiGet(
        Get(CoarsenedTargets, CoarsenedTargetsRequest([field_set.address]))
        for field_set in request.field_sets
    )
    results = await MultiGet(
        Get(
            CheckResult,
            MyPyPartition(
                field_sets=FrozenOrderedSet([field_set]),
                root_targets=roots,
                resolve_description=field_set.sources.file_path,
                interpreter_constraints=InterpreterConstraints(
                    python_setup.interpreter_constraints
                ),
            ),
        )
        for field_set, roots in zip(request.field_sets, targets)
    )
    return CheckResults(results, checker_name=request.tool_name)


def rules() -> Iterable[Any]:
    """The rules of this module."""
    return (*collect_rules(), UnionRule(CheckRequest, ConftestsRequest))
