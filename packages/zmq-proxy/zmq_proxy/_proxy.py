# SPDX-License-Identifier: Apache-2.0
"""The control plane: what starts the forwarding, tells others of it, and ends it."""

from __future__ import annotations

import logging
import os
import time
from types import TracebackType
from typing import Final, Self

from zmq_matchmaker import Entry, Key, Matchmaker, MatchmakerError, Record, Role, load
from zmq_proxy._errors import ForwardingFailed, InvalidConfiguration
from zmq_proxy._forwarder import Forwarder, Statistics
from zmq_proxy._options import GROUP
from zmq_proxy._settings import Settings
from zmq_proxy._sockets import Sockets

__all__ = ["BACKEND", "FRONTEND", "ROUTERS", "Proxy"]

LOG = logging.getLogger(__name__)

ROUTERS: Final = Key(Role.ROUTER)
"""Under which all proxies are found, each by two records of one `node`."""
FRONTEND: Final = "frontend"
"""`member` of the record whose endpoint takes messages in."""
BACKEND: Final = "backend"
"""`member` of the record whose endpoint gives them out."""


class Proxy:
    """Forwards messages between peers, from `start` to `stop`.

    For one thread; it has threads of its own.  Making one opens nothing.

    :raises InvalidConfiguration: there is no such matchmaker, or it cannot serve a proxy.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.identity = f"{os.uname().nodename}/{os.getpid()}/proxy/{os.urandom(3).hex()}"
        self._directory = settings.directory.directory(_load(settings))
        self._sockets: Sockets | None = None
        self._forwarder: Forwarder | None = None

    def start(self) -> None:
        """Bind, begin to forward, and register.

        A matchmaker that cannot be reached is logged and tried again, not raised.

        :raises InvalidConfiguration: a port or address cannot be bound; names the option.
        """
        sockets = self._sockets = Sockets(self._settings)
        self._forwarder = Forwarder(sockets, self.identity.encode())
        self._forwarder.start()
        self._directory.announce(self._entries(sockets))
        LOG.info(
            "%s forwards from %s to %s; matchmaker %s",
            self.identity,
            sockets.frontend_endpoint,
            sockets.backend_endpoint,
            self._settings.matchmaker,
        )
        if not self._settings.used:
            LOG.warning(
                "use_router_proxy is false in this configuration: services that share it do not "
                "use this proxy, and those that use it cannot reach them; set [%s] "
                "use_router_proxy = true in all of them",
                GROUP,
            )

    def _entries(self, sockets: Sockets) -> list[Entry]:
        endpoints = {FRONTEND: sockets.frontend_endpoint, BACKEND: sockets.backend_endpoint}
        return [
            (ROUTERS, Record(endpoint=endpoint, node=self.identity, member=member))
            for member, endpoint in endpoints.items()
        ]

    @property
    def statistics(self) -> Statistics:
        """A copy of the counters."""
        return Statistics() if self._forwarder is None else self._forwarder.statistics

    def look(self) -> None:
        """To be called about once a second while it runs.

        :raises ForwardingFailed: it forwards no more; stop it.
        """
        if self._forwarder is None:
            return
        if self._forwarder.failure is not None:
            raise ForwardingFailed(
                f"forwarding ended: {self._forwarder.failure}"
            ) from self._forwarder.failure
        self._forwarder.look()

    def stop(self) -> None:
        """Unregister, pass on what is inside, end all threads and close all sockets.

        Takes at most the linger time, and what a matchmaker that hangs adds to it.
        Idempotent.
        """
        deadline = time.monotonic() + self._settings.sockets.linger
        self._directory.close()
        forwarder, self._forwarder = self._forwarder, None
        sockets, self._sockets = self._sockets, None
        if forwarder is not None:
            forwarder.stop(deadline)
            LOG.info("stopped; %s", forwarder.statistics)
        if sockets is not None:
            sockets.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _load(settings: Settings) -> Matchmaker:
    try:
        matchmaker = load(settings.matchmaker)
    except MatchmakerError as error:
        raise InvalidConfiguration("transport_url", str(error)) from error
    if not matchmaker.characteristics.shared_across_processes:
        matchmaker.close()
        raise InvalidConfiguration(
            "transport_url",
            f"the matchmaker {settings.matchmaker.scheme!r} works within one process only, so "
            "that no service would find this proxy; name another, such as zmq+redis://host:6379/ "
            "(for zmq:// the option rpc_zmq_matchmaker does)",
        )
    return matchmaker
