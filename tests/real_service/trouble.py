# SPDX-License-Identifier: Apache-2.0
"""Many executions at a time, and executors that are killed, stopped and started meanwhile."""

from __future__ import annotations

import time
from typing import Final

from harness.leaks import wait_until
from harness.traffic import at_once
from real_service.mistral import Mistral

__all__ = ["lose_an_executor", "replace_an_executor", "run_many"]

_EXECUTIONS: Final = 10
_ITEMS: Final = 10


def run_many(mistral: Mistral) -> str:
    """Ten executions of ten actions each, all begun at once, over two executors."""
    api = mistral.api
    items = list(range(_ITEMS))
    began, before = time.monotonic(), _begun(mistral)
    executions = at_once([lambda: api.start("many", items=items)] * _EXECUTIONS)
    for execution in executions:
        done = api.reaches(execution, "SUCCESS", timeout=90)["done"]
        assert sorted(done) == items, done
    seconds = time.monotonic() - began
    shares = [now - then for now, then in zip(_begun(mistral), before, strict=True)]
    assert sum(shares) == _EXECUTIONS * _ITEMS, f"the executors have run {shares}"
    assert all(shares), f"an executor has had nothing to do: {shares}"
    return f"{sum(shares)} actions in {seconds:.1f} s, shared {shares}"


def lose_an_executor(mistral: Mistral) -> str:
    """One is killed with actions in its hands; the service runs these again with the other."""
    api = mistral.api
    before = sum(_begun(mistral))
    executions = at_once([lambda: api.start("slow", item="done", seconds=3)] * _EXECUTIONS)
    wait_until(lambda: sum(_begun(mistral)) >= before + _EXECUTIONS, "all have begun", timeout=30)
    mistral.kill("executor-1")
    killed = time.monotonic()
    lost = _await_all(mistral, executions)
    assert lost, "the executor that was killed had nothing to do"
    seconds = time.monotonic() - killed
    return (
        f"{lost} of {_EXECUTIONS} actions were run again; {seconds:.1f} s after the kill all ended"
    )


def replace_an_executor(mistral: Mistral) -> str:
    """A rolling restart while actions run: a new one comes, the old one goes in order."""
    api = mistral.api
    mistral.start("executor-3")
    executions = at_once([lambda: api.start("slow", item="done", seconds=1)] * _EXECUTIONS)
    seconds = mistral.stop("executor-2")
    executions += at_once([lambda: api.start("slow", item="done", seconds=0)] * _EXECUTIONS)
    lost = _await_all(mistral, executions)
    return f"{len(executions)} executions, {lost} run again; the old one stopped in {seconds:.1f} s"


def _begun(mistral: Mistral) -> list[int]:
    """How many actions each executor has begun."""
    names = [name for name in mistral.names if name.startswith("executor")]
    return [mistral.process(name).said.count("Running echo action") for name in names]


def _await_all(mistral: Mistral, executions: list[str]) -> int:
    """Wait until all have ended well, each by one action; how many others there were."""
    api = mistral.api
    for execution in executions:
        assert api.reaches(execution, "SUCCESS", timeout=90) == {"done": "done"}
    states = [
        action["state"]
        for execution in executions
        for task in api.tasks(execution)
        for action in api.actions(task["id"])
    ]
    assert states.count("SUCCESS") == len(executions), states
    return len(states) - len(executions)
