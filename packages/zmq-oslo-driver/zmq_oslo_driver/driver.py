# SPDX-License-Identifier: Apache-2.0
"""The oslo.messaging driver behind `transport_url = zmq://…`."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from oslo_config import cfg
from oslo_messaging import MessageUndeliverable, MessagingException, Target, TransportURL

from zmq_core import NOTIFICATIONS, REQUESTS, Envelope, Flag
from zmq_oslo_driver import runtime as runtimes
from zmq_oslo_driver._compat import BaseDriver
from zmq_oslo_driver.addresses import Address, notification_address, rpc_address
from zmq_oslo_driver.ending import interrupts_us
from zmq_oslo_driver.errors import CleanedUp, SerializationError
from zmq_oslo_driver.leaving import at_exit, at_worker_exit
from zmq_oslo_driver.listener import ZmqListener
from zmq_oslo_driver.routing import Attempts
from zmq_oslo_driver.runtime import Runtime
from zmq_oslo_driver.serialization import Request, load, load_failure
from zmq_oslo_driver.settings import Settings

__all__ = ["ZmqDriver"]


class ZmqDriver(BaseDriver):
    """RPC and notifications straight from process to process.

    Making one checks the configuration and opens nothing: sockets and threads
    come with the first use, in each process of its own.  Thread-safe.

    :raises InvalidConfiguration: an option or the URL cannot work; names which.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        url: TransportURL,
        default_exchange: str | None = None,
        allowed_remote_exmods: list[str] | None = None,
    ) -> None:
        super().__init__(conf, url, default_exchange, allowed_remote_exmods)
        self._settings = Settings.load(conf, url)
        runtimes.check(self._settings)
        self._cleaned_up = False
        self._begin()
        _drivers.add(self)

    def _begin(self) -> None:
        """Begin with nothing opened, also in a forked child: what there was is the parent's."""
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self._making = False
        self._user = object()
        self._listeners: set[ZmqListener] = set()

    def require_features(self, requeue: bool = True) -> None:
        """Everything that can be required is there."""

    def send(
        self,
        target: Target,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        call_monitor_timeout: float | None = None,
        retry: int | None = None,
        transport_options: Any = None,
    ) -> Any:
        """Send a call and return its result, or a cast or a fanout and return None.

        Exceptions beyond those of oslo.messaging are in `zmq_oslo_driver.errors`.
        """
        runtime = self._use()
        settings = runtime.settings
        address = rpc_address(target, self._default_exchange, server=not target.fanout)
        monitor = (call_monitor_timeout or None) if wait_for_reply else None
        body = _body(address, Request(ctxt, message, monitor).dump, settings)
        if timeout is None:
            timeout = settings.send_timeout
        attempts = runtime.sender.attempts(address, timeout, retry)
        if target.fanout:
            runtime.spreader.fanout(address, body, attempts)
            return None
        if _at_least_once(transport_options):
            _require_listener(address, attempts, message)
        if not wait_for_reply:
            runtime.sender.cast(address, body, attempts)
            return None
        return self._result(runtime.sender.call(address, body, attempts, monitor))

    def _result(self, reply: Envelope) -> Any:
        if reply.flags & Flag.FAILED:
            raise load_failure(reply.body, reply.serializer, self._allowed_remote_exmods)
        return load(reply.body, reply.serializer)

    def send_notification(
        self,
        target: Target,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        version: float,
        retry: int | None = None,
    ) -> None:
        """Send to one listener of each pool; drop what nobody takes, counted and logged.

        `version` chooses between envelopes that other transports put around the
        message; ours has one of its own.  `retry` has nothing to repeat here: each
        listener of a pool is tried once, within `zmq_notify_timeout`, so that no
        service is stopped by it.
        """
        runtime = self._use()
        address = notification_address(
            target.exchange or self._default_exchange or "", target.topic
        )
        body = _body(address, Request(ctxt, message).dump, runtime.settings)
        runtime.spreader.notify(address, body, runtime.settings.notify_timeout)

    def listen(self, target: Target, batch_size: int, batch_timeout: float | None) -> ZmqListener:
        """Listen on a topic, and on the same with the server's name."""
        addresses = [
            rpc_address(target, self._default_exchange, server=False),
            rpc_address(target, self._default_exchange),
        ]
        return self._listen(
            addresses,
            REQUESTS,
            published=addresses[:1],
            batch_size=batch_size,
            batch_timeout=batch_timeout,
        )

    def listen_for_notifications(
        self,
        targets_and_priorities: Iterable[tuple[Target, str]],
        pool: str | None,
        batch_size: int,
        batch_timeout: float | None,
    ) -> ZmqListener:
        """Listen on topics and priorities, as a member of `pool`."""
        addresses = [
            notification_address(
                target.exchange or self._default_exchange or "",
                f"{target.topic}.{priority}",
                pool or "",
            )
            for target, priority in targets_and_priorities
        ]
        return self._listen(
            addresses,
            NOTIFICATIONS,
            pool=pool or "",
            batch_size=batch_size,
            batch_timeout=batch_timeout,
        )

    def _listen(self, addresses: list[Address], types: Any, **settings: Any) -> ZmqListener:
        listener = ZmqListener(
            self._use(), addresses, types, closed=self._listeners.discard, **settings
        )
        with self._lock:
            if not self._cleaned_up:
                self._listeners.add(listener)
        if self._cleaned_up:
            listener.cleanup()  # it was being made meanwhile, and must not be started
        return listener

    def cleanup(self) -> None:
        """Stop all listeners and release everything.  Idempotent.

        Takes no lock of ours: a handler of a signal may call it (see `ending`), and what it
        has interrupted then finds out by itself, should it be making the runtime.
        """
        self._cleaned_up = True
        if self._making and interrupts_us():
            return
        runtime = self._runtime or runtimes.used_by(self._user)
        if runtime is not None:
            runtime.ender.do(functools.partial(self._let_go, runtime))

    def _let_go(self, runtime: Runtime) -> None:
        for listener in list(self._listeners):
            listener.cleanup()
        runtimes.release(runtime, self._user)
        self._runtime = None

    def _use(self) -> Runtime:
        """This process's runtime, made now if need be."""
        runtime = self._runtime
        if runtime is not None:
            return runtime
        with self._lock:
            if not self._cleaned_up and self._runtime is None:
                self._make_runtime()
            runtime = self._runtime
        if self._cleaned_up or runtime is None:
            raise CleanedUp("this transport was cleaned up; make a new one")
        return runtime

    def _make_runtime(self) -> None:
        self._making = True
        try:
            self._runtime = runtimes.acquire(self._settings, self._user)
            at_worker_exit(_stop_all, runtimes.close_all)
        finally:
            self._making = False
            if self._cleaned_up:
                self.cleanup()  # that was left to us


_drivers: weakref.WeakSet[ZmqDriver] = weakref.WeakSet()


def _begin_in_child() -> None:
    """Before a thread of the child can use them, and whatever lock the parent's threads held."""
    for driver in list(_drivers):
        driver._begin()


def _stop_all() -> None:
    """Take nothing more; what was accepted is still worked on, and can be answered."""
    for driver in list(_drivers):
        for listener in list(driver._listeners):
            listener.stop()


os.register_at_fork(after_in_child=_begin_in_child)
at_exit(_stop_all, runtimes.close_all)


def _body(address: Address, dump: Any, settings: Settings) -> bytes:
    try:
        body: bytes = dump(settings.serializer)
    except SerializationError as error:
        raise SerializationError(f"the message to {address} is {error}") from error
    return body


def _at_least_once(options: Any) -> bool:
    """Whether it is asked for, in `TransportOptions` or, as services also write it, in a dict."""
    if isinstance(options, Mapping):
        return bool(options.get("at_least_once"))
    return bool(getattr(options, "at_least_once", False))


def _require_listener(address: Address, attempts: Attempts, message: dict[str, Any]) -> None:
    if attempts.nobody_listens():
        problem = MessagingException(f"nobody listens on {address}")
        raise MessageUndeliverable(problem, address.wire.exchange, str(address), message)
