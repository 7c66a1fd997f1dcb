# SPDX-License-Identifier: Apache-2.0
"""The whole life of the service's resources, one step after another.

Each step returns what is worth to be shown, and fails with an `AssertionError`.
"""

from __future__ import annotations

from typing import Any

from harness.leaks import wait_until
from real_service.api import API, Hook
from real_service.definitions import ACTION, WORKBOOK, WORKFLOWS
from real_service.mistral import Mistral

__all__ = ["Life"]


def same(found: object, expected: object) -> None:
    """Fail unless they are equal."""
    assert found == expected, f"{found!r} instead of {expected!r}"


class Life:
    """Of one deployment, whose API, engine, executor and notifier run."""

    def __init__(self, mistral: Mistral) -> None:
        self.mistral = mistral
        self.api: API = mistral.api

    # -- definitions: the API and the database ---------------------------------------

    def define(self) -> str:
        """Create and change what there is to run."""
        api = self.api
        values = {"word": "hello"}
        api.ask("POST", "/v2/environments", {"name": "words", "variables": values}, expect=201)
        api.ask("POST", "/v2/actions", ACTION.format("?"), expect=201)
        api.ask("POST", "/v2/workflows", WORKFLOWS, expect=201)
        api.ask("POST", "/v2/workbooks", WORKBOOK, expect=201)
        api.ask("PUT", "/v2/actions", ACTION.format("!"))
        assert "!" in api.ask("GET", "/v2/actions/shout")["definition"]
        api.ask("PUT", "/v2/environments", {"name": "words", "variables": {"word": "good day"}})
        assert "good day" in str(api.ask("GET", "/v2/environments/words"))
        assert {"greet", "book.squares"} <= api.names("workflows")
        checked = api.ask("POST", "/v2/workflows/validate", "version: '2.0'\nbad: {}\n")
        same(checked["valid"], False)
        return f"{len(api.names('workflows'))} workflows, {len(api.names('actions'))} actions"

    # -- one execution ---------------------------------------------------------------

    def execute(self) -> str:
        """API calls engine, engine casts to executor, executor casts its result back."""
        api = self.api
        execution = api.start("greet", {"env": "words"}, name="Ada")
        same(api.reaches(execution, "SUCCESS"), {"greeting": "good day Ada!"})
        [task] = api.tasks(execution)
        [action] = api.actions(task["id"])
        same((task["name"], action["name"], action["state"]), ("say", "shout", "SUCCESS"))
        changed = {"description": "the first one"}
        api.ask("PUT", f"/v2/executions/{execution}", changed)
        same(api.execution(execution)["description"], "the first one")
        return "'good day Ada!'"

    def combine(self) -> str:
        """Workflows within a workflow, side by side, and joined."""
        numbers = list(range(1, 11))
        execution = self.api.start("book.squares", numbers=numbers)
        output = self.api.reaches(execution, "SUCCESS", timeout=60)
        same(sorted(output["squares"]), [number * number for number in numbers])
        same(output["count"], len(numbers))
        return "10 executions within one, joined"

    def act(self) -> str:
        """One action: the API calls the engine, which calls the executor meanwhile."""
        body: dict[str, Any] = {
            "name": "std.echo",
            "input": {"output": "at once"},
            "params": {"run_sync": True},
        }
        done = self.api.ask("POST", "/v2/action_executions", body, expect=201)
        same((done["state"], "at once" in done["output"]), ("SUCCESS", True))
        body["params"] = {"save_result": True}
        begun = self.api.ask("POST", "/v2/action_executions", body, expect=201)
        path = f"/v2/action_executions/{begun['id']}"
        wait_until(lambda: self.api.ask("GET", path)["state"] == "SUCCESS", "it has run")
        return "a call within a call"

    def refuse(self) -> str:
        """What the engine raises comes back over RPC as what it is."""
        body: dict[str, Any] = {"workflow_name": "unheard_of", "input": {}}
        unknown = self.api.ask("POST", "/v2/executions", body, expect=404)
        assert "unheard_of" in unknown["faultstring"], unknown
        body = {"workflow_name": "greet", "input": {"nobody": 1}}
        wrong = self.api.ask("POST", "/v2/executions", body, expect=400)
        assert "nobody" in wrong["faultstring"], wrong
        execution = self.api.start("fail")
        self.api.reaches(execution, "ERROR")
        return f"404, 400, {self.api.execution(execution)['state_info'].splitlines()[0][:60]!r}"

    # -- changed while it runs -------------------------------------------------------

    def run_again(self) -> str:
        """An action that others complete: first with an error, run again, then well."""
        api = self.api
        execution = api.start("approve")
        first = f"/v2/action_executions/{api.running_action(execution)}"
        api.ask("PUT", first, {"state": "ERROR", "output": '{"said": "no"}'})
        api.reaches(execution, "ERROR")
        [task] = api.tasks(execution)
        again = {"id": task["id"], "state": "RUNNING", "reset": True}
        api.ask("PUT", f"/v2/tasks/{task['id']}", again)
        second = f"/v2/action_executions/{api.running_action(execution)}"
        api.ask("PUT", second, {"state": "SUCCESS", "output": '{"said": "yes"}'})
        same(api.reaches(execution, "SUCCESS"), {"answer": {"said": "yes"}})
        return "ERROR, then SUCCESS"

    def hold(self) -> str:
        """Paused, completed behind its back, resumed; another is cancelled."""
        api = self.api
        execution = api.start("approve")
        action = api.running_action(execution)
        api.ask("PUT", f"/v2/executions/{execution}", {"state": "PAUSED"})
        api.reaches(execution, "PAUSED")
        done = {"state": "SUCCESS", "output": '{"said": "in time"}'}
        api.ask("PUT", f"/v2/action_executions/{action}", done)
        same([task["name"] for task in api.tasks(execution)], ["ask"])
        api.ask("PUT", f"/v2/executions/{execution}", {"state": "RUNNING"})
        same(api.reaches(execution, "SUCCESS"), {"answer": {"said": "in time"}})
        other = api.start("approve")
        api.running_action(other)
        api.ask("PUT", f"/v2/executions/{other}", {"state": "CANCELLED"})
        api.reaches(other, "CANCELLED")
        return "PAUSED, SUCCESS; CANCELLED"

    def tell(self) -> str:
        """The engine casts each change of state to the notifier, which posts it."""
        with Hook() as hook:
            publishers = [{"type": "webhook", "url": hook.url}]
            execution = self.api.start("greet", {"env": "words", "notify": publishers}, name="Bea")
            self.api.reaches(execution, "SUCCESS")
            wait_until(lambda: len(hook.taken) >= 4, "begin and end of workflow and task")
            same(len(hook.taken), 4)
        return "4 posts"

    # -- the end of everything -------------------------------------------------------

    def delete(self) -> str:
        """Nothing is left of it all."""
        api = self.api
        executions = api.ask("GET", "/v2/executions")["executions"]
        for execution in executions:
            if execution["task_execution_id"] is None:
                api.ask("DELETE", f"/v2/executions/{execution['id']}", expect=204)
        same(api.ask("GET", "/v2/executions")["executions"], [])
        api.ask("DELETE", "/v2/workbooks/book", expect=204)
        for name in sorted(api.names("workflows")):
            api.ask("DELETE", f"/v2/workflows/{name}", expect=204)
        api.ask("DELETE", "/v2/actions/shout", expect=204)
        api.ask("DELETE", "/v2/environments/words", expect=204)
        same(api.names("workflows") | api.names("workbooks") | api.names("environments"), set())
        api.ask("GET", "/v2/actions/shout", expect=404)
        return f"{len(executions)} executions and all definitions"
