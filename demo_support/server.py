# SPDX-License-Identifier: Apache-2.0
"""One server process of the demo: `python -m demo_support.server URL NAME`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import Any

import oslo_messaging
from oslo_config import cfg

TOPIC = "demo"
EVENTS = "demo-events"


class Endpoint:
    """The methods that the client calls; an endpoint of RPC is an object like any other."""

    def __init__(self, name: str, stopping: threading.Event) -> None:
        self._name = name
        self._stopping = stopping
        self._notes: list[str] = []
        self._lock = threading.Lock()

    def whoami(self, ctxt: dict[str, Any]) -> dict[str, Any]:
        return {"server": self._name, "pid": os.getpid()}

    def add(self, ctxt: dict[str, Any], left: int, right: int) -> int:
        return left + right

    def echo(self, ctxt: dict[str, Any], value: Any) -> Any:
        return value

    def note(self, ctxt: dict[str, Any], text: str) -> None:
        with self._lock:
            self._notes.append(text)

    def notes(self, ctxt: dict[str, Any]) -> list[str]:
        with self._lock:
            return list(self._notes)

    @oslo_messaging.expected_exceptions(ZeroDivisionError)
    def divide(self, ctxt: dict[str, Any], left: int, right: int) -> float:
        return left / right

    def work(self, ctxt: dict[str, Any], seconds: float) -> None:
        self._stopping.wait(seconds)


class Notifications:
    """Notes what it is notified of, where the client can ask for it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def info(self, ctxt: Any, publisher: str, event: str, payload: Any, metadata: Any) -> None:
        self._endpoint.note({}, f"{event} from {publisher}: {payload}")


def main() -> None:
    """Serve until SIGTERM, or until whoever holds our standard input has gone."""
    url, name = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # in all threads to come, too
    stopping = threading.Event()
    logging.basicConfig(level="WARNING", format=f"%(levelname)s {name} %(name)s: %(message)s")
    cfg.CONF([], project="demo")
    rpc = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    notify = oslo_messaging.get_notification_transport(cfg.CONF, url=url)
    endpoint = Endpoint(name, stopping)
    servers = [
        oslo_messaging.get_rpc_server(
            rpc,
            oslo_messaging.Target(topic=TOPIC, server=name),
            [endpoint],
            executor="threading",
        ),
        oslo_messaging.get_notification_listener(
            notify,
            [oslo_messaging.Target(topic=EVENTS)],
            [Notifications(endpoint)],
            executor="threading",
        ),
    ]
    for server in servers:
        server.start()
    threading.Thread(target=_follow_client, daemon=True).start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    stopping.set()
    # A client that was interrupted may have left a call, which is refused now: no news.
    logging.disable(logging.WARNING)
    for server in servers:
        server.stop()
        server.wait()
    rpc.cleanup()
    notify.cleanup()


def _follow_client() -> None:
    """The client holds the other end of standard input: should it be killed, we end too."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
