# SPDX-License-Identifier: Apache-2.0
"""Keeps a process connected to all routers and publishers that are registered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Final

from zmq_core import (
    CoreError,
    Latch,
    Node,
    NodeClosed,
    NoProxy,
    ProxyAddress,
    ProxyEnd,
    RateLimitedLog,
    Subscription,
    TargetKey,
)
from zmq_matchmaker import Directory, Key, Record, Role, Unavailable
from zmq_oslo_driver.options import GROUP
from zmq_oslo_driver.settings import Settings

__all__ = ["Proxies", "publishers", "routers"]

LOG = logging.getLogger(__name__)

ROUTERS: Final = Key(Role.ROUTER)
PUBLISHERS: Final = Key(Role.PUBLISHER)
"""Under which all are found, each by two records of one `node`."""
_FRONTEND: Final = "frontend"
_BACKEND: Final = "backend"
_INTERVAL: Final = 0.5
"""Seconds between two looks; those are lookups that the directory answers from memory."""


class Proxies:
    """The routers and publishers of a deployment, as one node uses them.

    `start` begins with the first use, and waits until those that are known can be
    used, or for the time that a connection may take.  Thread-safe.
    """

    def __init__(
        self,
        node: Node,
        directory: Directory,
        settings: Settings,
        closing: Latch,
        log: RateLimitedLog,
    ) -> None:
        self.routing = settings.router_proxy
        """Whether everything goes through routers."""
        self.publishing = settings.pub_sub
        """Whether what is for all goes through publishers."""
        self._node = node
        self._directory = directory
        self._patience = settings.node.connect_timeout
        self._subscribe_on = settings.subscribe_on
        self._closing = closing
        self._log = log
        self._lock = threading.Lock()
        self._looked = Latch()
        self._thread: threading.Thread | None = None
        self._warned = False
        self._known: dict[Key, Sequence[Record]] = {}

    def start(self) -> None:
        """Be connected to the proxies, from now until `closing` is set."""
        if self._looked.is_set():
            return
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._run, name="zmq-proxies", daemon=True)
                thread.start()
                self._thread = thread
        self._looked.wait(self._patience)

    def close(self) -> None:
        """End the thread, after `closing` was set."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._look(self._patience)
            self._looked.set()
            while not self._closing.wait(_INTERVAL):
                self._look(0.0)
        finally:
            self._looked.set()

    def _look(self, patience: float) -> None:
        try:
            if self.routing:
                found = routers(self._records(ROUTERS, patience))
                self._node.use_proxies(found, timeout=patience)
            if self.publishing:
                frontends, backends = publishers(self._records(PUBLISHERS, patience))
                self._warned = self._warned and not frontends
                self._node.publishers.use(
                    frontends, self._subscribe_on or backends, timeout=patience
                )
        except NodeClosed:
            LOG.debug("the transport was cleaned up")
        except CoreError as error:
            self._log.warning("proxies", "cannot connect to the proxies: %s", error)

    def _records(self, key: Key, patience: float) -> Sequence[Record]:
        """Who is registered; who was, while the matchmaker cannot be asked."""
        try:
            self._known[key] = self._directory.everybody(key, patience)
        except Unavailable as error:
            # Without patience, an answer that is not there yet comes with the next look.
            if patience or error.__cause__ is not None:
                LOG.debug("the proxies that are known stay in use: %s", error)
        return self._known.get(key, ())

    def warn(self, error: NoProxy) -> None:
        """Fanouts go to each listener for now.  Says so once, as long as that is so."""
        if not self._warned:
            self._warned = True
            LOG.warning(
                "fanouts are sent to each of their listeners: %s; run zmq-proxy processes, or set "
                "[%s] use_pub_sub = false if none are wanted",
                error.reason,
                GROUP,
            )

    def subscribe(self, keys: Sequence[TargetKey]) -> Subscription:
        """Get what is published for `keys`, from the moment that this returns.

        Publishers that do not confirm it in time are named in a warning.
        """
        self.start()
        subscription = self._node.publishers.subscribe(keys, timeout=self._patience)
        if subscription.missing:
            LOG.warning(
                "fanouts on %s may be missed for now: no confirmation of the subscription from %s "
                "within %g s; can this host reach the publisher_port of the proxy%s?",
                ", ".join(map(str, keys)),
                ", ".join(subscription.missing),
                self._patience,
                ", and does a local publisher run where subscribe_on says"
                if self._subscribe_on
                else "",
            )
        return subscription


def routers(records: Iterable[Record]) -> list[ProxyAddress]:
    """The routers behind `records`: those of which both endpoints are known."""
    ends: dict[str, dict[str, str]] = {}
    for record in records:
        ends.setdefault(record.node, {})[record.member] = record.endpoint
    return sorted(
        ProxyAddress(node, end[_FRONTEND], end[_BACKEND])
        for node, end in ends.items()
        if {_FRONTEND, _BACKEND} <= set(end)
    )


def publishers(records: Iterable[Record]) -> tuple[list[ProxyEnd], list[ProxyEnd]]:
    """The ends that take messages in, and those that give them out.

    A publisher that is new registers the former a while after the latter, so that it is
    not sent anything before everybody has subscribed at it.
    """
    ends = [(record.member, ProxyEnd(record.node, record.endpoint)) for record in records]
    frontends = [end for member, end in ends if member == _FRONTEND]
    backends = [end for member, end in ends if member == _BACKEND]
    return frontends, backends
