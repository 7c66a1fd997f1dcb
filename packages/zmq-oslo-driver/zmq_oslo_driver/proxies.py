# SPDX-License-Identifier: Apache-2.0
"""Keeps a process connected to all router proxies that are registered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Final

from zmq_core import CoreError, Node, NodeClosed, ProxyAddress, RateLimitedLog
from zmq_matchmaker import Directory, Key, Record, Role, Unavailable

__all__ = ["Proxies", "addresses"]

LOG = logging.getLogger(__name__)

ROUTERS: Final = Key(Role.ROUTER)
"""Under which all proxies are found, each by two records of one `node`."""
_INTERVAL: Final = 0.5
"""Seconds between two looks; those are lookups that the directory answers from memory."""


class Proxies:
    """The router proxies of a deployment, as one node uses them.

    `start` begins with the first use, and waits until the proxies that are known
    can be used, or `patience` seconds.  Thread-safe.
    """

    def __init__(
        self,
        node: Node,
        directory: Directory,
        patience: float,
        closing: threading.Event,
        log: RateLimitedLog,
    ) -> None:
        self._node = node
        self._directory = directory
        self._patience = patience
        self._closing = closing
        self._log = log
        self._lock = threading.Lock()
        self._looked = threading.Event()
        self._thread: threading.Thread | None = None
        self._known: list[ProxyAddress] = []

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
            self._known = addresses(self._directory.everybody(ROUTERS, patience))
        except Unavailable as error:
            LOG.debug("the proxies that are known stay in use: %s", error)
        try:
            self._node.use_proxies(self._known, timeout=patience)
        except NodeClosed:
            LOG.debug("the transport was cleaned up")
        except CoreError as error:
            self._log.warning("proxies", "cannot connect to the proxies: %s", error)


def addresses(records: Iterable[Record]) -> list[ProxyAddress]:
    """The proxies behind `records`: those of which both endpoints are known."""
    ends: dict[str, dict[str, str]] = {}
    for record in records:
        ends.setdefault(record.node, {})[record.member] = record.endpoint
    return sorted(
        ProxyAddress(node, end["frontend"], end["backend"])
        for node, end in ends.items()
        if {"frontend", "backend"} <= set(end)
    )
