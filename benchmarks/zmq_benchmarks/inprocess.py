# SPDX-License-Identifier: Apache-2.0
"""A driver without a transport: what oslo.messaging itself costs.

oslo.messaging's own `fake` driver cannot tell: it looks for messages every 50 ms.
This one hands a message to the server on the thread that sends it, with nothing
serialised; the server's executor is the only hand-over.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from oslo_config import cfg
from oslo_messaging import Target, TransportURL
from oslo_messaging._drivers import base
from oslo_messaging.transport import RPCTransport

__all__ = ["make_transport"]

Answer = tuple[Any, Any]


class _Incoming(base.RpcIncomingMessage):  # type: ignore[misc]  # oslo.messaging is untyped
    def __init__(self, ctxt: Any, message: Any, answers: queue.SimpleQueue[Answer] | None) -> None:
        super().__init__(ctxt, message)
        self._answers = answers

    def acknowledge(self) -> None:
        """Nothing waits for it."""

    def requeue(self) -> None:
        raise NotImplementedError

    def heartbeat(self) -> None:
        """Nobody dies alone in one process."""

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        if self._answers is not None:
            self._answers.put((reply, failure))


class _Listener(base.Listener):  # type: ignore[misc]  # oslo.messaging is untyped
    def cleanup(self) -> None:
        """Nothing was opened."""


class _Driver(base.BaseDriver):  # type: ignore[misc]  # oslo.messaging is untyped
    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf, TransportURL(conf, "inprocess"))
        self._listener = _Listener(1, None)

    def send(
        self,
        target: Target,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Any:
        answers: queue.SimpleQueue[Answer] | None = queue.SimpleQueue() if wait_for_reply else None
        deliver: Callable[[Sequence[_Incoming]], object] = self._listener.on_incoming_callback
        deliver([_Incoming(ctxt, message, answers)])
        if answers is None:
            return None
        reply, failure = answers.get(timeout=timeout)
        if failure is not None:
            raise failure[1]
        return reply

    def send_notification(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def listen(self, target: Target, batch_size: int, batch_timeout: float | None) -> _Listener:
        return self._listener

    def listen_for_notifications(self, targets: Iterable[Any], *_: Any) -> _Listener:
        raise NotImplementedError

    def cleanup(self) -> None:
        """Nothing was opened."""


def make_transport(conf: cfg.ConfigOpts) -> RPCTransport:
    """A transport whose server and client are in this process."""
    return RPCTransport(_Driver(conf))
