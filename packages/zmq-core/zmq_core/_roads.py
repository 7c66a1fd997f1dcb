# SPDX-License-Identifier: Apache-2.0
"""All ways by which a node sends: links to peers, uplinks to routers, publishers."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import Final

from zmq_core._envelope import Envelope, encode
from zmq_core._errors import NodeClosed, NotDelivered
from zmq_core._held import REPEATABLE
from zmq_core._identity import MessageIds
from zmq_core._link import Link, LinkRetired
from zmq_core._linkcontext import LinkContext
from zmq_core._options import NodeOptions
from zmq_core._pending import FOREVER, Patience
from zmq_core._publications import Publications
from zmq_core._uplinks import Uplinks

__all__ = ["Roads"]

LOG = logging.getLogger(__name__)

_LOOK_AGAIN: Final = 0.25
"""Seconds until connections that are too many, and were in use, are looked at again."""


class Roads:
    """Sends for one node, from its start until `close`.  Thread-safe."""

    def __init__(
        self, context: LinkContext, name: bytes, ids: MessageIds, options: NodeOptions
    ) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._closed = False
        self._idle_timeout = options.idle_timeout
        self._most_links = options.max_links
        self._watching = False
        self._thinning = False
        self.links: dict[str, Link] = {}
        """By endpoint."""
        self.uplinks = Uplinks(context, name, options)
        self.publications = Publications(context, name, ids, options.connect_timeout)

    def send(self, endpoint: str, routing_id: str, envelope: Envelope, deadline: float) -> None:
        """Hand a message over, or, if it wants to be acknowledged, wait for that.

        To the peer of `routing_id` through a router, to `endpoint` without one.  Raises
        what `Node.send` does.
        """
        frames = encode(envelope)
        if routing_id:
            self.uplinks.send(endpoint, routing_id.encode(), envelope.id, frames, deadline)
            return
        while True:
            with contextlib.suppress(LinkRetired):
                self.link(endpoint).send(frames, deadline)
                return

    def ask(
        self,
        endpoint: str,
        routing_id: str,
        envelope: Envelope,
        patience: Patience,
        send_deadline: float = FOREVER,
    ) -> Envelope:
        """Send a message in the same way and wait for its answer, as `Node.request` does."""
        frames = encode(envelope)
        if routing_id:
            return self.uplinks.request(
                endpoint,
                routing_id.encode(),
                envelope.id,
                frames,
                patience,
                send_deadline,
                repeatable=bool(envelope.flags & REPEATABLE),
            )
        while True:
            with contextlib.suppress(LinkRetired):
                link = self.link(endpoint)
                return link.request(envelope.id, frames, patience, send_deadline)

    def connect(self, endpoints: Iterable[str]) -> None:
        """Begin to connect to all `endpoints` at once."""
        for endpoint in endpoints:
            try:
                self.link(endpoint)
            except NotDelivered as error:
                LOG.debug("not connected: %s", error)

    def link(self, endpoint: str) -> Link:
        """The link to a peer, made now if there is none.

        :raises PeerUnreachable: the endpoint is none, or its name does not resolve.
        """
        link = self.links.get(endpoint)
        if link is not None:
            return link
        link = Link(endpoint, self._context, self._link_closed)
        try:
            with self._lock:
                if self._closed:
                    raise NodeClosed("the node is closed")
                other = self.links.setdefault(endpoint, link)
            if other is link:
                link.open()
                self._watch_idle()
                self._retire_surplus()
            return other
        except BaseException:
            link.close("it was not opened")  # others may be waiting for it already
            raise

    def _watch_idle(self) -> None:
        """Close links that are idle for longer than they may, now and then."""
        with self._lock:
            if self._watching or not self._idle_timeout or self._closed:
                return
            self._watching = True
        self._context.reactor.call_later(self._idle_timeout / 4, self._retire_idle)

    def _retire_idle(self) -> None:
        unused_since = time.monotonic() - self._idle_timeout
        for link in list(self.links.values()):
            link.retire(unused_since)
        with self._lock:
            self._watching = False
        if self.links:
            self._watch_idle()

    def _retire_surplus(self) -> None:
        """Close those that were not used for the longest time, while there are too many."""
        links = list(self.links.values()) if self._most_links else []
        surplus = len(links) - self._most_links
        if surplus <= 0:
            return
        now = time.monotonic()
        for link in sorted(links, key=lambda link: link.used):
            surplus -= link.retire(now)  # also if it has ended by itself meanwhile
            if not surplus:
                break
        # Those that are in use, or come into use until they are closed, stay for now.
        with self._lock:
            if self._thinning or self._closed:
                return
            self._thinning = True
        self._context.reactor.call_later(_LOOK_AGAIN, self._retire_what_stayed)

    def _retire_what_stayed(self) -> None:
        with self._lock:
            self._thinning = False
        self._retire_surplus()

    def _link_closed(self, link: Link) -> None:
        with self._lock:
            if self.links.get(link.endpoint) is link:
                del self.links[link.endpoint]

    def close(self, reason: str) -> None:
        """End all of them; what is unanswered fails.  Idempotent."""
        with self._lock:
            self._closed = True
            links = list(self.links.values())
        for link in links:
            link.close(reason)
        self.uplinks.close(reason)
        self.publications.close(reason)
