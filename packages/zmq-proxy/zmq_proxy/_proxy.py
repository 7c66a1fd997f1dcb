# SPDX-License-Identifier: Apache-2.0
"""The control plane: what starts the data plane, tells others of it, and ends it."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from zmq_matchmaker import Entry, Key, Matchmaker, MatchmakerError, Record, Role, Unavailable, load
from zmq_proxy._connections import connections
from zmq_proxy._door import Door
from zmq_proxy._errors import ForwardingFailed, InvalidConfiguration
from zmq_proxy._http import HTTPServer, listen
from zmq_proxy._local import LocalPublisher, LocalStatistics
from zmq_proxy._metrics import Pages, State
from zmq_proxy._observer import MESSAGES
from zmq_proxy._options import Part
from zmq_proxy._publisher import Publisher, PublisherStatistics
from zmq_proxy._router import Router, RouterStatistics
from zmq_proxy._settings import Settings
from zmq_proxy._sockets import SocketFactory

__all__ = ["BACKEND", "FRONTEND", "PUBLISHERS", "ROUTERS", "Proxy", "Statistics"]

LOG = logging.getLogger(__name__)

ROUTERS: Final = Key(Role.ROUTER)
"""Under which all routers are found, each by two records of one `node`."""
PUBLISHERS: Final = Key(Role.PUBLISHER)
"""Under which all publishers are found, each by two records of one `node`."""
FRONTEND: Final = "frontend"
"""`member` of the record whose endpoint takes messages in."""
BACKEND: Final = "backend"
"""`member` of the record whose endpoint gives them out."""
_LOOK_INTERVAL: Final = 1.0
_LOOK_SOON: Final = 0.05
_SETTLING: Final = 3.0
"""Seconds for subscribers to find a new publisher, before senders are told of it."""
_SILENCE_LIMIT: Final = 5.0
"""Seconds after which a part that does not answer counts as stuck."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters since the start of each part that runs."""

    router: RouterStatistics | None = None
    publisher: PublisherStatistics | None = None
    local: LocalStatistics | None = None
    turned_away: int = 0
    """New connections that were ended for want of descriptors."""


class Proxy:
    """Forwards messages between peers, from `start` to `stop`.

    For one thread; it has threads of its own.  Making one opens nothing.

    :raises InvalidConfiguration: there is no such matchmaker, or it cannot serve a proxy.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.identity = f"{os.uname().nodename}/{os.getpid()}/proxy/{os.urandom(3).hex()}"
        self._directory = settings.directory.directory(_load(settings))
        self._sockets: SocketFactory | None = None
        self._router: Router | None = None
        self._publisher: Publisher | None = None
        self._local: LocalPublisher | None = None
        self._door: Door | None = None
        self._http: HTTPServer | None = None
        self._started = False
        self._stopping = False
        self._started_at = 0.0
        self._tell_senders_at = 0.0

    def start(self) -> None:
        """Bind, begin to forward, and register.

        A matchmaker that cannot be reached is logged and tried again, not raised.

        :raises InvalidConfiguration: a port or address cannot be bound; names the option.
        """
        settings = self._settings
        self._started_at = time.monotonic()
        self._started = self._stopping = False
        LOG.info("%s; matchmaker %s", self.identity, settings.matchmaker)
        self._bind(SocketFactory(settings.sockets, settings.address))
        if settings.metrics_port:
            self._serve_metrics(settings.metrics_host, settings.metrics_port)
        parts = self._parts.values()
        self._door = Door(*(socket for part in parts for socket in part.listening))
        for part in parts:
            part.start()
        self._announce()
        for warning in settings.warnings:
            LOG.warning("%s", warning)
        self._started = True

    def _serve_metrics(self, host: str, port: int) -> None:
        pages = Pages(self._state, lambda: self.problem)
        self._http = HTTPServer(listen(host, port), pages.answer)
        self._http.start()
        LOG.info("metrics at port %d of %s", port, host)

    def _bind(self, sockets: SocketFactory) -> None:
        settings = self._settings
        self._sockets = sockets
        # What libzmq forwards alone is counted only where somebody wants to know.
        observed = bool(settings.metrics_port) or MESSAGES.isEnabledFor(logging.DEBUG)
        if Part.ROUTER in settings.parts:
            ports = settings.frontend_port, settings.backend_port
            self._router = Router(sockets, self.identity.encode(), *ports, observed=observed)
        if Part.PUBLISHER in settings.parts:
            ports = settings.publisher_frontend_port, settings.publisher_port
            self._publisher = Publisher(sockets, *ports, observed=observed)
        if Part.LOCAL in settings.parts:
            self._local = LocalPublisher(sockets, settings.publisher_port, settings.sockets.linger)

    def _announce(self) -> None:
        """Register, but of the publisher for now only where to subscribe."""
        router, publisher, local = self._router, self._publisher, self._local
        entries: list[Entry] = []
        if router is not None:
            LOG.info("routes from %s to %s", router.frontend_endpoint, router.backend_endpoint)
            entries.append(self._entry(ROUTERS, FRONTEND, router.frontend_endpoint))
            entries.append(self._entry(ROUTERS, BACKEND, router.backend_endpoint))
        if publisher is not None:
            ends = publisher.frontend_endpoint, publisher.backend_endpoint
            LOG.info("publishes from %s to %s", *ends)
            entries.append(self._entry(PUBLISHERS, BACKEND, publisher.backend_endpoint))
        if entries:
            self._directory.announce(entries)
        self._tell_senders_at = time.monotonic() + _SETTLING
        if local is not None:
            self._follow_publishers(local)
            LOG.info("publishes for this node from %s", local.endpoint)

    def _entry(self, key: Key, member: str, endpoint: str) -> Entry:
        return key, Record(endpoint=endpoint, node=self.identity, member=member)

    @property
    def _parts(self) -> dict[str, Router | Publisher | LocalPublisher]:
        """Those that run, by name."""
        parts = {"router": self._router, "publisher": self._publisher, "local": self._local}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def statistics(self) -> Statistics:
        """A copy of the counters."""
        router, publisher, local = self._router, self._publisher, self._local
        return Statistics(
            None if router is None else router.statistics,
            None if publisher is None else publisher.statistics,
            None if local is None else local.statistics,
            0 if self._door is None else self._door.turned_away,
        )

    @property
    def problem(self) -> str:
        """Why it does not forward, or will not for long; empty while it does.  For any thread."""
        if self._stopping:
            return "stopping"
        if not self._started:
            return "starting"
        failure = self._failure
        if failure is not None:
            return str(failure)
        for name, part in self._parts.items():
            if part.silence > _SILENCE_LIMIT:
                return f"{name}: no sign of life for {part.silence:.0f} s"
        return ""

    @property
    def _failure(self) -> ForwardingFailed | None:
        failed = {f"{name} forwards no more": part.failure for name, part in self._parts.items()}
        if self._door is not None:
            failed["no connection is taken any more"] = self._door.failure
        for what, why in failed.items():
            if why is not None:
                error = ForwardingFailed(f"{what}: {why}")
                error.__cause__ = why
                return error
        return None

    @property
    def status(self) -> str:
        """A line for operators."""
        doing = self.problem or f"forwarding: {', '.join(self._parts)}"
        reachable = self._directory.statistics.reachable
        return doing if reachable else f"{doing}; the matchmaker cannot be reached"

    def _state(self) -> State:
        """For the metrics, whose thread calls it."""
        parts, counters, sockets, local = self._parts, self.statistics, self._sockets, self._local
        return State(
            uptime=time.monotonic() - self._started_at,
            problem=self.problem,
            traffic={name: part.traffic for name, part in parts.items() if part.traffic},
            router=counters.router,
            publisher=counters.publisher,
            local=counters.local,
            turned_away=counters.turned_away,
            publishers=0 if local is None else local.publishers,
            connections={} if sockets is None else connections(sockets.listening),
            matchmaker=self._directory.statistics,
        )

    def look(self) -> float:
        """To be called while it runs; returns after how many seconds again.

        :raises ForwardingFailed: it forwards no more; stop it.
        """
        failure = self._failure
        if failure is not None:
            raise failure
        for forwarder in (self._router, self._publisher):
            if forwarder is not None:
                forwarder.look()
        if self._publisher is not None and 0 < self._tell_senders_at <= time.monotonic():
            self._tell_senders_at = 0
            entry = self._entry(PUBLISHERS, FRONTEND, self._publisher.frontend_endpoint)
            self._directory.announce([entry])
        if self._local is not None:
            self._follow_publishers(self._local)
        untidy = self._router is not None and self._router.untidy
        return _LOOK_SOON if untidy else _LOOK_INTERVAL

    def _follow_publishers(self, local: LocalPublisher) -> None:
        try:
            records = self._directory.everybody(PUBLISHERS, 0.0)
        except Unavailable as error:
            LOG.debug("the publishers that are known stay in use: %s", error)
        else:
            local.use(record.endpoint for record in records if record.member == BACKEND)

    def stop(self) -> None:
        """Unregister, pass on what is inside, end all threads and close all sockets.

        Takes at most the linger time, and what a matchmaker that hangs adds to it.
        Idempotent.
        """
        deadline = time.monotonic() + self._settings.sockets.linger
        self._stopping = True
        self._directory.close()
        parts, door = list(self._parts.values()), self._door
        for part in parts:
            part.stop(deadline)
        for part in parts:
            part.join()
        if door is not None:
            door.close()
            LOG.info("stopped; %s", self.statistics)
        # Until now it told load balancers that this proxy is about to go.
        http, self._http = self._http, None
        if http is not None:
            http.close()
        self._router = self._publisher = self._local = self._door = None
        sockets, self._sockets = self._sockets, None
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
