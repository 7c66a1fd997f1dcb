# SPDX-License-Identifier: Apache-2.0
"""A service of its own process: RPC servers and notification listeners.

Started as `python -m harness.service CONFIG`, where CONFIG is JSON (see
`ServiceConfig`).  Says on its standard output, one JSON object a line, that it
is ready and, after SIGTERM or the end of its standard input, what it still held
when everything was cleaned up.
"""

from __future__ import annotations

import sys

if '"eventlet": true' in sys.argv[-1]:
    import eventlet

    eventlet.monkey_patch()

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import futurist  # noqa: F401 - services have it before there is a transport: oslo.service does
import msgspec
import oslo_messaging
from oslo_config import cfg

from harness.asked import AskedToEnd
from harness.journal import RUN, Journal
from harness.leaks import holdings, settled_holdings


class Listening(msgspec.Struct):
    """A notification listener of the service."""

    topics: list[str]
    pool: str | None = None
    batch_size: int = 1
    batch_timeout: float | None = None
    requeue_first: int = 0
    """How many events are put back when they come for the first time."""


class ServiceConfig(msgspec.Struct):
    """What a service process does."""

    url: str
    servers: list[tuple[str, str, str]] = []
    """Exchange (or nothing), topic and server of each RPC server."""
    notifications: list[Listening] = []
    options: dict[str, Any] = {}
    config_file: str = ""
    eventlet: bool = False
    executor: str = ""
    """Of its servers; empty: the one that goes with `eventlet` or without."""
    hasty: bool = False
    """End without waiting for what is being worked on, and without `cleanup()`."""
    fork_before_start: bool = False
    """Make and use the transport in a parent process, serve in its child."""
    log_level: str = "WARNING"
    workers: int | None = None
    """Messages that a server works on at a time; None: as oslo.messaging has it."""
    label: str = ""
    """Its name in the journal; empty: that of its first server."""
    journal: str = ""
    """A file in which to write what is being worked on."""


class Endpoint:
    """The methods that tests call."""

    def __init__(
        self, name: str, transport: Any, journal: Journal | None = None, label: str = ""
    ) -> None:
        self.name = name
        self.label = label or name
        self.journal = journal
        self._transport = transport
        self.casts: list[str] = []
        self.events: list[list[Any]] = []
        self.at_work = 0
        self._lock = threading.Lock()

    def echo(self, ctxt: dict[str, Any], value: Any) -> Any:
        return value

    def run(
        self,
        ctxt: dict[str, Any],
        pattern: str,
        message: str,
        payload: str = "",
        seconds: float = 0.0,
    ) -> str:
        assert self.journal is not None, "this service was given no journal"
        self.journal.note(RUN, pattern, message, self.label)
        if seconds:
            time.sleep(seconds)
        return self.name

    def context(self, ctxt: dict[str, Any]) -> dict[str, Any]:
        return ctxt

    def whoami(self, ctxt: dict[str, Any]) -> list[Any]:
        return [self.name, os.getpid()]

    def slow(self, ctxt: dict[str, Any], seconds: float) -> str:
        with self._lock:
            self.at_work += 1
        time.sleep(seconds)
        return self.name

    def begun(self, ctxt: dict[str, Any]) -> int:
        """How many slow calls have begun."""
        return self.at_work

    def fail(self, ctxt: dict[str, Any], kind: str, text: str) -> None:
        kinds: dict[str, type[Exception]] = {"ValueError": ValueError, "KeyError": KeyError}
        raise kinds.get(kind, _Peculiar)(text)

    def fail_unserialisably(self, ctxt: dict[str, Any]) -> None:
        loop: list[Any] = []
        loop.append(loop)
        raise ValueError("the text survives", loop)

    def unserialisable(self, ctxt: dict[str, Any]) -> list[Any]:
        loop: list[Any] = []
        loop.append(loop)
        return loop

    def note(self, ctxt: dict[str, Any], text: str) -> None:
        with self._lock:
            self.casts.append(text)

    def fan_out(self, ctxt: dict[str, Any], topic: str, text: str, seconds: float = 0.0) -> None:
        """Send a note to all who listen on `topic`, after some work."""
        self.slow(ctxt, seconds)
        target = oslo_messaging.Target(topic=topic, fanout=True)
        oslo_messaging.get_rpc_client(self._transport, target).cast({}, "note", text=text)

    def noted(self, ctxt: dict[str, Any]) -> list[str]:
        return list(self.casts)

    def notified(self, ctxt: dict[str, Any]) -> list[list[Any]]:
        return list(self.events)


class _Peculiar(Exception):
    """Of a module that no caller allows."""


class NotificationEndpoint:
    """Records what comes, and puts back what it is told to."""

    def __init__(self, endpoint: Endpoint, requeue_first: int) -> None:
        self._record = endpoint.events
        self._journal = endpoint.journal
        self._name = endpoint.label
        self._left = requeue_first

    def info(self, ctxt: Any, publisher: str, event: str, payload: Any, metadata: Any) -> str:
        if self._journal is not None:
            self._journal.note(RUN, "notify", event, self._name)
        if self._left > 0:
            self._left -= 1
            self._record.append(["requeued", event])
            return str(oslo_messaging.NotificationResult.REQUEUE)
        self._record.append(["info", event, payload, publisher])
        return str(oslo_messaging.NotificationResult.HANDLED)

    def error(self, ctxt: Any, publisher: str, event: str, payload: Any, metadata: Any) -> None:
        self._record.append(["error", event, payload, publisher])


class BatchEndpoint:
    """Records batches."""

    def __init__(self, record: list[list[Any]]) -> None:
        self._record = record

    def info(self, messages: list[dict[str, Any]]) -> None:
        self._record.append(["batch", [message["event_type"] for message in messages]])


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def serve(config: ServiceConfig, before: dict[str, int]) -> None:
    rpc = oslo_messaging.get_rpc_transport(cfg.CONF, url=config.url)
    notify = oslo_messaging.get_notification_transport(cfg.CONF, url=config.url)
    if config.fork_before_start:
        client = oslo_messaging.get_rpc_client(rpc, oslo_messaging.Target(topic="before-fork"))
        client.prepare(fanout=True).cast({}, "nobody")
        if os.fork():
            os.wait()
            os._exit(0)
    executor = config.executor or ("eventlet" if config.eventlet else "threading")
    journal = Journal(Path(config.journal)) if config.journal else None
    endpoints = [Endpoint(name, rpc, journal, config.label) for _, _, name in config.servers]
    servers: list[Any] = [
        oslo_messaging.get_rpc_server(
            rpc,
            oslo_messaging.Target(exchange=exchange or None, topic=topic, server=server),
            [endpoint],
            executor=executor,
        )
        for (exchange, topic, server), endpoint in zip(config.servers, endpoints, strict=True)
    ]
    servers += [listener(notify, item, endpoints[0], executor) for item in config.notifications]
    for server in servers:
        server.start(override_pool_size=config.workers)
    asked = AskedToEnd()
    say(ready=True, pid=os.getpid())
    asked.wait()
    if config.hasty:
        for server in servers:
            server.stop()
        say(stopped=True)
        return
    started = time.monotonic()
    for server in servers:
        server.stop()
        server.wait()
    rpc.cleanup()
    notify.cleanup()
    if journal is not None:
        journal.close()
    say(
        stopped=True,
        seconds=time.monotonic() - started,
        before=before,
        after=settled_holdings(before),
        noted=sum(len(endpoint.casts) for endpoint in endpoints),
    )


def listener(transport: Any, item: Listening, endpoint: Endpoint, executor: str) -> Any:
    targets = [oslo_messaging.Target(topic=topic) for topic in item.topics]
    if item.batch_size > 1:
        return oslo_messaging.get_batch_notification_listener(
            transport,
            targets,
            [BatchEndpoint(endpoint.events)],
            executor=executor,
            pool=item.pool,
            batch_size=item.batch_size,
            batch_timeout=item.batch_timeout,
        )
    return oslo_messaging.get_notification_listener(
        transport,
        targets,
        [NotificationEndpoint(endpoint, item.requeue_first)],
        executor=executor,
        pool=item.pool,
        allow_requeue=True,
    )


def main() -> None:
    config = msgspec.json.decode(sys.argv[1].encode(), type=ServiceConfig)
    logging.basicConfig(level=config.log_level, stream=sys.stderr)
    files = [f"--config-file={config.config_file}"] if config.config_file else []
    cfg.CONF(files, project="harness", default_config_files=[], default_config_dirs=[])
    from zmq_oslo_driver import options

    options.register(cfg.CONF)
    for name, value in config.options.items():
        cfg.CONF.set_override(name, value, group=options.GROUP)
    serve(config, holdings())


if __name__ == "__main__":
    main()
