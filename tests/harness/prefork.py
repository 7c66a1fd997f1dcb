# SPDX-License-Identifier: Apache-2.0
"""A service with several worker processes, as oslo.service and cotyledon run them.

Started as `python -m harness.prefork CONFIG`, where CONFIG is JSON (see `PreforkConfig`).
The parent makes the transport, and may use it; each worker serves over what it has
inherited.  Workers say on standard output, one JSON object a line, that they are ready,
that they were told to read their options again, and that they have stopped.
"""

from __future__ import annotations

import sys

if '"launcher": "oslo.service on eventlet"' in sys.argv[-1]:
    import eventlet

    eventlet.monkey_patch()

from oslo_service import backend

if '"launcher": "oslo.service on threads"' in sys.argv[-1]:
    backend.init_backend(backend.BackendType.THREADING)

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any, Final, Literal

import cotyledon
import msgspec
import oslo_messaging
from cotyledon import oslo_config_glue
from oslo_config import cfg
from oslo_service import service

from harness.journal import Journal
from harness.service import Endpoint

EVENTLET: Final = "oslo.service on eventlet"
THREADING: Final = "oslo.service on threads"
COTYLEDON: Final = "cotyledon"
LAUNCHERS: Final = (EVENTLET, THREADING, COTYLEDON)


class PreforkConfig(msgspec.Struct):
    """What a service with workers does."""

    url: str
    launcher: str
    journal: str
    name: str = "one"
    workers: int = 2
    config_file: str = ""
    restart_method: Literal["reload", "mutate"] = "reload"
    """What SIGHUP does: `reload` all files and start new workers, or `mutate` options."""
    parent_sends: bool = False
    """The parent uses the transport, before the first fork and as long as it lives."""
    options: dict[str, Any] = {}


class Worker:
    """The RPC server of one process; made in the parent, used in the workers."""

    def __init__(self, config: PreforkConfig, transport: Any) -> None:
        self._config = config
        self._transport = transport
        self._server: Any = None

    def start(self) -> None:
        """Serve, in the process that calls this."""
        name = f"{self._config.name}/{os.getpid()}"
        endpoint = Endpoint(name, self._transport, Journal(Path(self._config.journal)))
        self._server = oslo_messaging.get_rpc_server(
            self._transport,
            oslo_messaging.Target(topic="work", server=self._config.name),
            [endpoint],
            executor="eventlet" if self._config.launcher == EVENTLET else "threading",
        )
        self._server.start()
        say(ready=os.getpid())

    def stop(self) -> None:
        """As services do it, without `cleanup()`; oslo.service calls it in the parent, too."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            server.wait()
            say(stopped=os.getpid())


class OsloService(service.Service):
    """What oslo.service runs in each worker."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def start(self) -> None:
        self._worker.start()

    def stop(self, graceful: bool = True) -> None:
        self._worker.stop()
        super().stop(graceful)

    def reset(self) -> None:
        say(reset=os.getpid())


class CotyledonService(cotyledon.Service):
    """What cotyledon runs in each worker."""

    def __init__(self, worker_id: Any, worker: Worker, restart_method: str) -> None:
        super().__init__(worker_id)
        self._worker = worker
        self._mutate = restart_method == "mutate"

    def run(self) -> None:
        self._worker.start()

    def terminate(self) -> None:
        self._worker.stop()

    def reload(self) -> None:
        say(reset=os.getpid())
        if not self._mutate:
            super().reload()


def say(**message: Any) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")  # whole, though many processes write


def keep_sending(transport: Any) -> None:
    """Send from the parent, on a thread of its own: to the workers, and to nobody."""
    target = oslo_messaging.Target(topic="work", fanout=True)
    client = oslo_messaging.get_rpc_client(transport, target)
    client.cast({}, "note", text="before the fork")
    forever = threading.Event()

    def send() -> None:
        while not forever.wait(0.005):
            client.cast({}, "note", text="from the parent")

    threading.Thread(target=send, daemon=True).start()


def launch(config: PreforkConfig, worker: Worker) -> None:
    if config.launcher == COTYLEDON:
        manager = cotyledon.ServiceManager()
        arguments = (worker, config.restart_method)
        manager.add(CotyledonService, workers=config.workers, args=arguments)
        oslo_config_glue.setup(manager, cfg.CONF, config.restart_method)
        manager.run()
        return
    service.launch(
        cfg.CONF,
        OsloService(worker),
        workers=config.workers,
        restart_method=config.restart_method,
    ).wait()


def main() -> None:
    config = msgspec.json.decode(sys.argv[1].encode(), type=PreforkConfig)
    logging.basicConfig(level="WARNING", stream=sys.stderr)
    files = [f"--config-file={config.config_file}"] if config.config_file else []
    cfg.CONF(files, project="harness", default_config_files=[], default_config_dirs=[])
    from zmq_oslo_driver import options

    options.register(cfg.CONF)
    for name, value in config.options.items():
        cfg.CONF.set_override(name, value, group=options.GROUP)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=config.url)
    if config.parent_sends:
        keep_sending(transport)
    launch(config, Worker(config, transport))


if __name__ == "__main__":
    main()
