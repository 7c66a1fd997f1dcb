# SPDX-License-Identifier: Apache-2.0
"""The receiving side: from a node's messages to the callback of an oslo.messaging server."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from zmq_core import Incoming, Listening, MessageType, Subscription
from zmq_matchmaker import Entry, Record
from zmq_oslo_driver._compat import Listener
from zmq_oslo_driver.addresses import Address
from zmq_oslo_driver.batches import Batcher
from zmq_oslo_driver.errors import CleanedUp, UnreadableMessage
from zmq_oslo_driver.incoming import ZmqIncomingMessage, reply_failure
from zmq_oslo_driver.runtime import QUIET, Runtime, telling_of_cleanup
from zmq_oslo_driver.serialization import load_request

__all__ = ["ZmqListener"]

LOG = logging.getLogger(__name__)

_MEMBERS: Final = itertools.count(1)
_MOST: Final = 1.0
"""Seconds for which a server that is stopped takes what senders send that do not know of it yet."""

Callback = Callable[[Sequence[ZmqIncomingMessage]], object]


class ZmqListener(Listener):
    """One server's place at some addresses; what is for all at `published` comes from publishers.

    Single messages go to the server from the I/O thread, which costs no
    hand-over but the server's own.  Batches are collected by a thread.
    """

    def __init__(
        self,
        runtime: Runtime,
        addresses: Iterable[Address],
        types: Iterable[MessageType],
        *,
        published: Iterable[Address] = (),
        pool: str = "",
        batch_size: int = 1,
        batch_timeout: float | None = None,
        closed: Callable[[ZmqListener], None],
    ) -> None:
        super().__init__(batch_size, batch_timeout)
        self._runtime = runtime
        self._addresses = tuple(addresses)
        self._types = tuple(types)
        proxies = runtime.proxies
        self._published = tuple(published) if proxies is not None and proxies.publishing else ()
        self._subscription: Subscription | None = None
        self._closed = closed
        self._ended = False
        self._listening: Listening | None = None
        self._batcher: Batcher[ZmqIncomingMessage] | None = None
        record = Record(
            endpoint=runtime.bind(),
            node=runtime.node.identity,
            member=str(next(_MEMBERS)),
            pool=pool,
            subscriber=bool(self._published),
        )
        keys = dict.fromkeys(address.lookup for address in self._addresses)
        self._entries: list[Entry] = [(key, record) for key in keys]

    def start(self, on_incoming_callback: Callback) -> None:
        """Receive messages, then let others know of it.

        :raises CleanedUp: the transport was, before the server was started.
        """
        try:
            self._check_usable()
            super().start(on_incoming_callback)
            with telling_of_cleanup():
                self._start(on_incoming_callback)
            self._check_usable()
        except BaseException:
            self.stop()
            raise

    def _check_usable(self) -> None:
        if self._ended:
            raise CleanedUp("this server's transport was cleaned up; make a new one")

    def _start(self, on_incoming_callback: Callback) -> None:
        self._runtime.joined(self)
        if self.batch_size > 1:
            self._batcher = Batcher(on_incoming_callback, self.batch_size, self.batch_timeout)
        self._listening = self._runtime.node.listen(
            [address.wire for address in self._addresses],
            self._on_message,
            types=self._types,
            # Room for a batch that is being collected: it would never be full otherwise, and
            # this process would read nothing any more.
            backlog=self._runtime.settings.backlog + max(0, self.batch_size - 1),
        )
        if self._runtime.proxies is not None:
            self._runtime.proxies.start()  # who finds us must also reach us
            if self._published:
                keys = [address.wire for address in self._published]
                self._subscription = self._runtime.proxies.subscribe(keys)
        self._runtime.directory.announce(self._entries)

    def stop(self) -> None:
        """Let others know, pass on what they have sent by then, refuse the rest.  Idempotent.

        Returns when that is done, also where another thread is at it.  A handler of a
        signal may call it; see `ending`.
        """
        self._runtime.ender.do(self._stop)

    def _stop(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            self._runtime.directory.withdraw(self._entries)
            listening.await_quiet(QUIET, min(_MOST, self._runtime.settings.node.linger))
            if self._subscription is not None:
                self._subscription.close()
            listening.close()
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            batcher.close()
        super().stop()

    def cleanup(self) -> None:
        """Stop for good.  All that was accepted is answered by now."""
        self._ended = True
        self.stop()
        self._runtime.left(self)
        self._closed(self)

    def _on_message(self, incoming: Incoming) -> None:
        try:
            request = load_request(incoming.body, incoming.envelope.serializer)
        except UnreadableMessage as error:
            self._refuse_unreadable(incoming, error)
            return
        self._deliver(ZmqIncomingMessage(incoming, request, self._deliver_again))

    def _deliver(self, message: ZmqIncomingMessage) -> bool:
        """Pass the message on; false if the server has stopped."""
        batcher, callback = self._batcher, self.on_incoming_callback
        if batcher is not None:
            return batcher.put(message)
        if callback is None:
            return False
        callback([message])
        return True

    def _deliver_again(self, message: ZmqIncomingMessage) -> None:
        """Hand a requeued message over again; to another listener if this one has stopped."""
        try:
            if self._listening is not None and self._deliver(message):
                return
        except RuntimeError as error:
            LOG.debug("the server's executor takes nothing more: %s", error)
        message.acknowledge()
        self._runtime.courier.post("", message.envelope)  # others here may still listen

    def _refuse_unreadable(self, incoming: Incoming, error: UnreadableMessage) -> None:
        self._runtime.statistics.unreadable += 1
        self._runtime.log.warning(
            ("unreadable", incoming.peer),
            "refused a %s from %r for %s: %s",
            incoming.envelope.type.name,
            incoming.peer,
            incoming.key,
            error,
        )
        incoming.release()
        if incoming.envelope.type is MessageType.CALL:
            reply_failure(incoming, (UnreadableMessage, error, sys.exc_info()[2]))
