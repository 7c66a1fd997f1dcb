# SPDX-License-Identifier: Apache-2.0
"""A node: what one process is on the wire."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from zmq_core._envelope import Envelope, Flag, MessageType, Serializer
from zmq_core._errors import ConfigurationError, PeerUnreachable, SocketLimitReached
from zmq_core._inbox import DEFAULT_BACKLOG, REQUESTS, Directory, Inbox, Listening
from zmq_core._incoming import Incoming
from zmq_core._key import TargetKey
from zmq_core._lifecycle import Lifecycle
from zmq_core._link import Link
from zmq_core._linkcontext import Returned
from zmq_core._options import NodeOptions, check_size
from zmq_core._pending import FOREVER, Patience
from zmq_core._publications import Publications
from zmq_core._publishers import Publishers
from zmq_core._ratelimit import RateLimitedLog
from zmq_core._roads import Roads
from zmq_core._roster import ProxyAddress
from zmq_core._statistics import Statistics

__all__ = ["Node"]

LOG = logging.getLogger(__name__)

_SHORTEST_TTL = 0.001


class Node:
    """Sends to other nodes and listens for them, over one I/O thread.

    Nothing is opened before the first use, so a node may be made early; but it
    belongs to the process that first uses it, and a forked child must make its
    own.  All methods are thread-safe, and work with native threads as with
    eventlet's.  Times are in seconds.

    `role` becomes part of the routing id, by which logs of other hosts name this
    node.  `returned` is told, on an I/O thread, of casts and notifications that
    a peer refused after they were sent; without it they are logged and dropped.
    It gets the peer's endpoint, or of what went through a proxy its routing id, or "" if
    a queue on that road was full.
    """

    def __init__(
        self,
        options: NodeOptions | None = None,
        *,
        role: str = "node",
        returned: Returned | None = None,
    ) -> None:
        self.options = options or NodeOptions()
        self.statistics = Statistics()
        self._log = RateLimitedLog(LOG)
        self._directory = Directory()
        self._life = Lifecycle(
            self.options,
            role,
            self._directory,
            self.statistics,
            self._log,
            returned or self._drop_returned,
        )
        self.publishers = Publishers(self._publications, self.new_id)
        """For messages to all who listen."""

    @property
    def identity(self) -> str:
        """The routing id.  A forked child has another, if the node was not used before."""
        return self._life.identity

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- listening -------------------------------------------------------------------

    def bind(self) -> str:
        """Open the listening socket if it is not open; the endpoint that peers connect to.

        :raises PortsRangeExceeded: no port of the range is free.
        :raises UnknownAdapter: `bind_address` means nothing on this host.
        :raises ConfigurationError: the address cannot be bound.
        :raises SocketLimitReached: no descriptor is left.
        """
        return self._life.bind()

    def listen(
        self,
        keys: TargetKey | Iterable[TargetKey],
        on_message: Callable[[Incoming], None],
        *,
        types: Iterable[MessageType] = REQUESTS,
        backlog: int = DEFAULT_BACKLOG,
    ) -> Listening:
        """Receive messages of `types` for `keys`; binds if that was not done.

        `on_message` is called on an I/O thread and must not block: it queues the
        message or gives it to an executor.  No more than `backlog` messages are
        handed over before they are picked up (`Incoming.release`).
        """
        if backlog < 1:
            raise ConfigurationError("backlog", f"{backlog!r} is not a positive number")
        self.bind()
        context, _ = self._life.start()
        inbox = Inbox(on_message, backlog, context.reception.resume, self._listener_failed)
        types = tuple(types)
        for key in (keys,) if isinstance(keys, TargetKey) else keys:
            self._directory.add(key, types, inbox)
        return Listening(inbox, self._drain, self._stop_listening)

    def serve(self, key: TargetKey, handler: Callable[[Incoming], object]) -> Listening:
        """Like `listen`, for a handler so quick that it may run on the I/O thread itself."""

        def handle(incoming: Incoming) -> None:
            incoming.release()
            handler(incoming)

        return self.listen(key, handle)

    def _listener_failed(self, error: Exception) -> None:
        self.statistics.handler_failures += 1
        self._log.log(
            logging.ERROR,
            ("listener", type(error)),
            "a listener failed on a message; the node goes on",
            error=error,
        )

    def _stop_listening(self, inbox: Inbox) -> None:
        if self._life.inherited:
            return
        inbox.close()
        self._directory.remove(inbox)
        context = self._life.context
        if context is not None:
            context.reception.resume()
        self._drain()

    def _drain(self) -> None:
        """Wait until the I/O thread has done all that it has begun by now."""
        context = self._life.context
        if context is not None and not self._life.inherited:
            context.reactor.drain()

    # -- sending ---------------------------------------------------------------------

    def request(
        self,
        endpoint: str,
        key: TargetKey,
        body: bytes,
        *,
        timeout: float | None,
        send_timeout: float = FOREVER,
        monitor: float | None = None,
        serializer: Serializer = Serializer.RAW,
        routing_id: str = "",
        repeatable: bool = False,
    ) -> Envelope:
        """Send a CALL to `endpoint` and return the REPLY.

        `timeout` None waits for ever; with `monitor` the peer must give a sign of
        life (`Incoming.heartbeat`) at least that often.  `send_timeout` bounds the
        part of `timeout` that may pass before the connection takes the message.  With
        the peer's `routing_id` it goes through a proxy (`use_proxies`) instead of a
        connection to `endpoint`.  There a `repeatable` request is sent again if it or its
        reply was lost with a proxy; the peer keeps its reply for that, and executes it once.

        :raises NotDelivered: the message has not reached a listener; it may be sent again.
        :raises PeerLost: the connection ended; the request may have been executed.
        :raises RequestTimeout: no answer in time.
        :raises MessageTooLarge: `body` exceeds `max_message_size`.
        """
        now = time.monotonic()
        deadline = FOREVER if timeout is None else now + timeout
        envelope = Envelope(
            type=MessageType.CALL,
            id=self._life.ids.next(),
            key=key.encoded,
            body=body,
            serializer=serializer,
            flags=Flag.REPEATABLE if repeatable else 0,
            # 0 would mean for ever.
            ttl=0.0 if timeout is None else max(timeout, _SHORTEST_TTL),
        )
        roads = self._roads_to(endpoint, body)
        patience = Patience(now, deadline, monitor)
        return roads.ask(endpoint, routing_id, envelope, patience, now + send_timeout)

    def send(
        self,
        endpoint: str,
        key: TargetKey,
        body: bytes,
        *,
        timeout: float | None,
        kind: MessageType = MessageType.CAST,
        serializer: Serializer = Serializer.RAW,
        acknowledged: bool = False,
        routing_id: str = "",
        message_id: bytes = b"",
        send_timeout: float = FOREVER,
    ) -> None:
        """Hand a message to the connection to `endpoint`, or with `routing_id` to a proxy.

        Blocks up to `timeout` seconds while there is no connection or the peer
        does not read.  With `acknowledged`, returns once the message sits in a
        listener's queue; it may be sent again under the same `message_id`, from `new_id`,
        and a peer that has it already only acknowledges it again.  `send_timeout` is as
        with `request`.

        :raises NotDelivered: it could not be handed over, and will not be.
        :raises PeerLost: the connection ended before the acknowledgement came.
        :raises RequestTimeout: no acknowledgement in time.
        :raises MessageTooLarge: `body` exceeds `max_message_size`.
        """
        now = time.monotonic()
        deadline = FOREVER if timeout is None else now + timeout
        envelope = Envelope(
            type=kind,
            id=message_id or self._life.ids.next(),
            key=key.encoded,
            body=body,
            serializer=serializer,
            flags=Flag.ACK_WANTED if acknowledged else 0,
        )
        roads = self._roads_to(endpoint, body)
        if acknowledged:
            patience = Patience(now, deadline, None)
            roads.ask(endpoint, routing_id, envelope, patience, now + send_timeout)
        else:
            roads.send(endpoint, routing_id, envelope, deadline)

    def new_id(self) -> bytes:
        """An id for a message that may have to be sent again."""
        return self._life.ids.next()

    @property
    def links(self) -> Mapping[str, Link]:
        """The direct connections to peers, by endpoint, for those who watch the node."""
        roads = self._life.roads
        return {} if roads is None else roads.links

    def connect(self, endpoints: Iterable[str]) -> None:
        """Begin to connect to all `endpoints` at once; later sends wait for the connections."""
        try:
            _, roads = self._life.start()
        except SocketLimitReached as error:
            LOG.debug("not connected: %s", error)
            return
        roads.connect(endpoints)

    def use_proxies(self, proxies: Iterable[ProxyAddress], *, timeout: float = 0.0) -> int:
        """Be reachable through `proxies`, and send through them what has a `routing_id`.

        Replaces those named before; what these still bring is taken.  To be called
        again from time to time, since that is when lost connections are made anew.
        Waits up to `timeout` seconds for connections; returns how many proxies can be
        used now.
        """
        _, roads = self._life.start()
        return roads.uplinks.use(proxies, timeout)

    def _roads_to(self, endpoint: str, body: bytes) -> Roads:
        """The roads for a message to `endpoint`; starts the node if need be."""
        check_size(body, self.options)
        roads = self._life.roads
        if roads is not None and not self._life.inherited:
            return roads
        try:
            return self._life.start()[1]
        except SocketLimitReached as error:
            raise PeerUnreachable(endpoint, str(error)) from error

    def _publications(self, body: bytes) -> Publications:
        return self._roads_to("publishers", body).publications

    def _drop_returned(self, peer: str, envelope: Envelope) -> None:
        self._log.warning(
            ("returned", peer),
            "a %s for %s was refused by %s and is dropped",
            envelope.type.name,
            TargetKey.decode(envelope.key),
            peer,
        )

    def close(self) -> None:
        """Stop listening, fail what is unanswered, send what is queued, end the thread.

        Takes at most `linger` seconds.  Idempotent, from any thread but the node's
        own.  In a forked child it only forgets the parent's node.
        """
        self._life.close()
