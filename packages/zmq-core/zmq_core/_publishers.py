# SPDX-License-Identifier: Apache-2.0
"""Messages to all who listen, as the users of a node send and get them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from zmq_core._envelope import Envelope, MessageType, Serializer
from zmq_core._key import TargetKey
from zmq_core._pending import FOREVER
from zmq_core._publications import Publications
from zmq_core._roster import ProxyEnd

__all__ = ["Publishers", "Subscription"]


class Subscription:
    """What `Publishers.subscribe` began; `close` ends it."""

    def __init__(self, missing: tuple[str, ...], end: Callable[[], None]) -> None:
        self.missing = missing
        """Publishers that were not known to have it in time, by name."""
        self._end = end

    def close(self) -> None:
        """Let nothing more come in by it.  To be called once; any thread."""
        self._end()


class Publishers:
    """The publishers that a node uses (`Node.publishers`).  Thread-safe; times are in seconds.

    All methods start the node, and raise `NodeClosed` if that cannot be.
    """

    def __init__(
        self, publications: Callable[[bytes], Publications], new_id: Callable[[], bytes]
    ) -> None:
        self._publications = publications
        self._new_id = new_id

    def use(
        self,
        frontends: Iterable[ProxyEnd],
        backends: Iterable[ProxyEnd],
        *,
        timeout: float = 0.0,
    ) -> int:
        """Publish through any of `frontends`, and subscribe at all of `backends`.

        Like `Node.use_proxies`.  Nothing is connected to a backend without a subscription.
        """
        return self._publications(b"").use(frontends, backends, timeout)

    def publish(
        self,
        key: TargetKey,
        body: bytes,
        *,
        timeout: float | None,
        kind: MessageType = MessageType.FANOUT,
        serializer: Serializer = Serializer.RAW,
    ) -> None:
        """Hand a message for all subscribers of `key` to one publisher.

        Who does not read fast enough misses it; nobody is told.

        :raises NoProxy: no publisher has taken it within `timeout` seconds.
        :raises MessageTooLarge: `body` exceeds `max_message_size`.
        """
        deadline = FOREVER if timeout is None else time.monotonic() + timeout
        envelope = Envelope(
            type=kind, id=self._new_id(), key=key.encoded, body=body, serializer=serializer
        )
        self._publications(body).publish(envelope, deadline)

    def subscribe(
        self, keys: TargetKey | Iterable[TargetKey], *, timeout: float = 0.0
    ) -> Subscription:
        """Have published messages for `keys` brought to their listeners.

        Waits up to `timeout` seconds until every publisher that takes messages has the
        subscription; `Subscription.missing` then names those that have not.
        """
        keys = (keys,) if isinstance(keys, TargetKey) else tuple(keys)
        publications = self._publications(b"")
        publications.subscribe(keys)
        missing = publications.await_subscriptions(timeout)
        return Subscription(tuple(missing), lambda: publications.unsubscribe(keys))
