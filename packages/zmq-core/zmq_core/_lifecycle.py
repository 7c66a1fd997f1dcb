# SPDX-License-Identifier: Apache-2.0
"""What a node has open, from its first use to its end or a fork."""

from __future__ import annotations

import os
import threading

from zmq_core._address import Endpoint, resolve_bind_address
from zmq_core._errors import NodeClosed
from zmq_core._forking import tell_of_forks
from zmq_core._frontend import Frontend
from zmq_core._identity import MessageIds, default_identity
from zmq_core._inbox import Directory
from zmq_core._linkcontext import LinkContext, Returned
from zmq_core._options import NodeOptions
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._reactor import Reactor
from zmq_core._reception import Reception
from zmq_core._roads import Roads
from zmq_core._sockets import SocketFactory
from zmq_core._statistics import Statistics
from zmq_core._waiting import WakerPool

__all__ = ["Lifecycle"]


class Lifecycle:
    """Opens a node's sockets and its I/O thread once, and closes them.  Thread-safe.

    It belongs to the process that uses it first.
    """

    def __init__(
        self,
        options: NodeOptions,
        role: str,
        directory: Directory,
        statistics: Statistics,
        log: RateLimitedLog,
        returned: Returned,
    ) -> None:
        self._options = options
        self._role = role
        self._directory = directory
        self._statistics = statistics
        self._log = log
        self._returned = returned
        self._begin()
        self.context: LinkContext | None = None
        self._frontend: Frontend | None = None
        self.roads: Roads | None = None
        self.closed = False
        tell_of_forks(self)

    def _begin(self) -> None:
        """Become that of a node of the running process."""
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.identity = default_identity(self._role)
        self.ids = MessageIds()

    def after_fork(self) -> None:
        """Called in a forked child: what the parent has used stays the parent's."""
        if self.context is None:
            self._begin()
        else:
            self._lock = threading.Lock()  # a thread that is not here may have held it

    @property
    def inherited(self) -> bool:
        """Whether it is that of a process that has forked this one."""
        return self._pid != os.getpid()

    def start(self) -> tuple[LinkContext, Roads]:
        """Open the context and start the I/O thread, once.

        :raises NodeClosed: it is closed, or another process's.
        :raises SocketLimitReached: no descriptor is left.
        """
        with self._lock:
            self._check_usable()
            if self.context is None or self.roads is None:
                context = self._make_context()
                self.roads = Roads(context, self.identity.encode(), self.ids, self._options)
                self.context = context
            # Known to `close` already, should a handler of a signal raise in the midst of this.
            self.context.reactor.start()
            return self.context, self.roads

    def _make_context(self) -> LinkContext:
        sockets = SocketFactory(self._options, self.identity.encode())
        reactor = Reactor(f"zmq-io-{self.identity.rsplit('/', 1)[-1]}")
        return LinkContext(
            sockets=sockets,
            immediate=self._options.immediate,
            patience=2 * self._options.connect_timeout,
            reactor=reactor,
            reception=Reception(
                self._directory,
                reactor,
                self._statistics,
                self._log,
                self._options.remember,
            ),
            wakers=WakerPool(),
            statistics=self._statistics,
            log=self._log,
            returned=self._returned,
        )

    def bind(self) -> str:
        """See `Node.bind`."""
        options = self._options
        address = resolve_bind_address(options.bind_address, options.advertise_host)
        context, _ = self.start()
        with self._lock:
            self._check_usable()
            if self._frontend is None:
                self._frontend = Frontend(
                    context.sockets,
                    options,
                    address,
                    context.reactor,
                    context.reception,
                    self._statistics,
                )
            return str(Endpoint(address.advertise, self._frontend.port))

    def _check_usable(self) -> None:
        if self.inherited:
            raise NodeClosed(
                f"this node belongs to process {self._pid}: after a fork, make a new one"
            )
        if self.closed:
            raise NodeClosed("the node is closed")

    def close(self) -> None:
        """See `Node.close`."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            context, self.context = self.context, None
            roads, self.roads = self.roads, None
        if context is None or self.inherited:
            return
        self._directory.clear()
        if roads is not None:
            roads.close("this node was closed")
        if self._frontend is not None:
            context.reactor.call_soon(self._frontend.close)
        context.reactor.stop()
        context.wakers.close()
        context.sockets.close()
