# SPDX-License-Identifier: Apache-2.0
"""The service's HTTP interface as a client sees it, and a server for what it posts itself."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.error
import urllib.request
from typing import Any, Final, Self

from harness.leaks import wait_until

__all__ = ["API", "Hook"]

_TIMEOUT: Final = 60.0
_COMPLETED: Final = ("SUCCESS", "ERROR", "CANCELLED")


class API:
    """Requests to `url`; each fails unless it is answered as expected."""

    def __init__(self, url: str) -> None:
        self._url = url
        # Whatever proxy the caller's environment names is not for this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.requests = 0
        """How many were answered."""

    def ask(self, method: str, path: str, body: Any = None, *, expect: int = 200) -> Any:
        """Send one; what is in the answer's JSON.  A `body` of text is sent as it is."""
        plain = isinstance(body, str)
        data = None if body is None else (body if plain else json.dumps(body)).encode()
        kind = "text/plain" if plain else "application/json"
        request = urllib.request.Request(
            f"{self._url}{path}", data, {"Content-Type": kind}, method=method
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
        self.requests += 1
        if status != expect:
            raise AssertionError(f"{method} {path}: {status} instead of {expect}: {text.decode()}")
        return json.loads(text) if text else None

    def answers(self) -> bool:
        """Whether anybody is there."""
        try:
            self.ask("GET", "/")
        except urllib.error.URLError:
            return False
        return True

    def names(self, kind: str) -> set[str]:
        """The names of all resources of a kind, such as `workflows`."""
        return {str(one["name"]) for one in self.ask("GET", f"/v2/{kind}")[kind]}

    # -- executions of workflows -----------------------------------------------------

    def start(self, workflow: str, params: Any = None, **values: Any) -> str:
        """Begin an execution with these inputs; its id."""
        body = {"workflow_name": workflow, "input": values, "params": params or {}}
        begun = self.ask("POST", "/v2/executions", body, expect=201)
        return str(begun["id"])

    def execution(self, execution: str) -> Any:
        """All about one."""
        return self.ask("GET", f"/v2/executions/{execution}")

    def reaches(self, execution: str, state: str, timeout: float = 30.0) -> Any:
        """Wait until it is in this state; its output.

        :raises AssertionError: it is not in time, or has ended in another state.
        """
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(self.execution(execution))
            if found["state"] != state and found["state"] in _COMPLETED:
                raise AssertionError(f"{found['state']} instead of {state}: {found}")
            return bool(found["state"] == state)

        wait_until(there, f"execution {execution} is in state {state}", timeout)
        return json.loads(found["output"] or "{}")

    def tasks(self, execution: str) -> list[Any]:
        """The tasks of one."""
        found = self.ask("GET", f"/v2/tasks?workflow_execution_id={execution}")
        return list(found["tasks"])

    def actions(self, task: str) -> list[Any]:
        """The executions of actions that a task has had."""
        found = self.ask("GET", f"/v2/tasks/{task}/action_executions")
        return list(found["action_executions"])

    def running_action(self, execution: str) -> str:
        """Wait until an action of it runs; that one's id."""
        found: list[str] = []

        def runs() -> bool:
            found.extend(
                action["id"]
                for task in self.tasks(execution)
                for action in self.actions(task["id"])
                if action["state"] == "RUNNING"
            )
            return bool(found)

        wait_until(runs, f"an action of execution {execution} runs", timeout=30)
        return found[0]


class Hook:
    """Takes what the service posts to `url`, until the end of the block."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        taken = self.taken

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                taken.append(json.loads(self.rfile.read(length)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
