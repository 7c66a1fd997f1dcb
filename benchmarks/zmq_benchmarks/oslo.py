# SPDX-License-Identifier: Apache-2.0
"""The ends of an oslo.messaging transport: a server that echoes and counts, and a client."""

from __future__ import annotations

from typing import Any, Final

import oslo_messaging
from oslo_config import cfg

from zmq_benchmarks.inprocess import make_transport
from zmq_benchmarks.load import CastCounter, run_load
from zmq_benchmarks.protocol import Calls, CastReport, Casts, LoadReport, Ready, Role, WorkerConfig

__all__ = ["OsloWorker"]

_TOPIC: Final = "benchmark"
_TIMEOUT: Final = 60


class _Endpoint:
    """The methods that are called."""

    def __init__(self, casts: CastCounter) -> None:
        self._casts = casts

    def echo(self, ctxt: dict[str, Any], body: str) -> str:
        return body

    def note(self, ctxt: dict[str, Any], body: str) -> None:
        self._casts.note()


class OsloWorker:
    """One end, or both, of the transport that the configuration names."""

    def __init__(self, config: WorkerConfig) -> None:
        cfg.CONF([], project="benchmarks")
        self.casts = CastCounter()
        self._transport = (
            make_transport(cfg.CONF)
            if config.kind == "inprocess"
            else oslo_messaging.get_rpc_transport(cfg.CONF, url=config.url)
        )
        self._server: Any = None
        if config.role is not Role.CLIENT:
            self._server = oslo_messaging.get_rpc_server(
                self._transport,
                oslo_messaging.Target(topic=_TOPIC, server="server"),
                [_Endpoint(self.casts)],
                executor="threading",
            )
            self._server.start()
        self._client = oslo_messaging.get_rpc_client(
            self._transport, oslo_messaging.Target(topic=_TOPIC), timeout=_TIMEOUT
        )

    def ready(self) -> Ready:
        """The other end needs to know nothing but the URL."""
        return Ready()

    def calls(self, command: Calls) -> LoadReport:
        """Call the server."""
        body = "x" * command.size
        client = self._client

        def call() -> None:
            if len(client.call({}, "echo", body=body)) != len(body):
                raise AssertionError("the answer is not what was sent")

        return run_load(lambda: call, command.threads, command.seconds, command.limit)

    def cast(self, command: Casts) -> LoadReport:
        """Cast to the server."""
        body = "x" * command.size
        client = self._client
        return run_load(lambda: lambda: client.cast({}, "note", body=body), 1, command.seconds)

    def counted(self) -> CastReport:
        """What the server has processed."""
        return self.casts.report()

    def close(self) -> None:
        """Stop the server and give everything back."""
        if self._server is not None:
            self._server.stop()
            self._server.wait()
        self._transport.cleanup()
