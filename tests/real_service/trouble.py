# SPDX-License-Identifier: Apache-2.0
"""Many executions at a time, and executors that are killed, stopped and started meanwhile."""

from __future__ import annotations

import time
from typing import Final

from harness.traffic import at_once
from real_service.mistral import Mistral

__all__ = ["lose_an_executor", "replace_the_executors", "run_many"]

_EXECUTIONS: Final = 10
_ITEMS: Final = 10


def run_many(mistral: Mistral) -> str:
    """Ten executions of ten actions each, all begun at once, over two executors."""
    api = mistral.api
    items = list(range(_ITEMS))
    began = time.monotonic()
    executions = at_once([lambda: api.start("many", items=items)] * _EXECUTIONS)
    for execution in executions:
        done = api.reaches(execution, "SUCCESS", timeout=90)["done"]
        assert sorted(done) == items, done
    seconds = time.monotonic() - began
    shares = [
        mistral.process(name).said.count("Running echo action")
        for name in mistral.names
        if name.startswith("executor")
    ]
    assert all(shares), f"an executor has had nothing to do: {shares}"
    return f"{_EXECUTIONS * _ITEMS} actions in {seconds:.1f} s; executors have run {shares}"


def lose_an_executor(mistral: Mistral) -> str:
    """One is killed with actions in its hands; the service runs these again with the other."""
    api = mistral.api
    executions = at_once([lambda: api.start("slow", item="done", seconds=2)] * _EXECUTIONS)
    for execution in executions:
        api.running_action(execution)
    mistral.kill("executor-1")
    killed = time.monotonic()
    for execution in executions:
        assert api.reaches(execution, "SUCCESS", timeout=90) == {"done": "done"}
    seconds = time.monotonic() - killed
    states = [
        action["state"]
        for execution in executions
        for task in api.tasks(execution)
        for action in api.actions(task["id"])
    ]
    lost = states.count("ERROR")
    assert lost, "the executor that was killed had nothing to do"
    assert states.count("SUCCESS") == _EXECUTIONS, states
    return f"{lost} of {_EXECUTIONS} actions run again; all ended {seconds:.1f} s after the kill"


def replace_the_executors(mistral: Mistral) -> str:
    """A rolling restart while actions run: a new one comes, the old one goes in order."""
    api = mistral.api
    executions = at_once([lambda: api.start("slow", item="done", seconds=1)] * _EXECUTIONS)
    mistral.start("executor-3")
    seconds = mistral.stop("executor-2")
    executions += at_once([lambda: api.start("slow", item="done", seconds=0)] * _EXECUTIONS)
    for execution in executions:
        assert api.reaches(execution, "SUCCESS", timeout=90) == {"done": "done"}
    return f"{len(executions)} executions; the old one stopped in {seconds:.1f} s"
