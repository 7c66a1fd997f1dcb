# SPDX-License-Identifier: Apache-2.0
"""Sending to one process: by the road that leads there, with errors that a service knows."""

from __future__ import annotations

import math
from collections.abc import Iterable

from zmq_core import (
    Envelope,
    MessageTooLarge,
    MessageType,
    Node,
    NodeClosed,
    NoProxy,
    ProxyLost,
    Serializer,
)
from zmq_matchmaker import Directory, Record
from zmq_oslo_driver.addresses import Address
from zmq_oslo_driver.errors import CleanedUp, SerializationError
from zmq_oslo_driver.proxies import Proxies

__all__ = ["Handover", "too_large"]


class Handover:
    """Hands messages to the node.  Thread-safe; times are in seconds.

    If `proxies` are routing everything goes through them, and nothing is connected to
    directly.
    """

    def __init__(
        self, node: Node, directory: Directory, serializer: Serializer, proxies: Proxies | None
    ) -> None:
        self.node = node
        self.directory = directory
        self.serializer = serializer
        self._routers = proxies if proxies is not None and proxies.routing else None

    @property
    def routed(self) -> bool:
        """Whether messages go through routers."""
        return self._routers is not None

    def request(
        self,
        record: Record,
        address: Address,
        body: bytes,
        *,
        timeout: float,
        send_timeout: float,
        monitor: float | None,
        repeatable: bool,
    ) -> Envelope:
        """Send a call to one process and return the reply; see `Node.request`."""
        try:
            return self.node.request(
                record.endpoint,
                address.wire,
                body,
                timeout=timeout,
                send_timeout=send_timeout,
                monitor=monitor,
                serializer=self.serializer,
                routing_id=self._routing_id(record),
                repeatable=repeatable and self.routed,
            )
        except MessageTooLarge as error:
            raise too_large(address, error) from error
        except NodeClosed as error:
            raise CleanedUp(f"call to {address}: the transport was cleaned up") from error

    def send(
        self,
        record: Record,
        address: Address,
        body: bytes,
        timeout: float,
        kind: MessageType,
        serializer: Serializer | None = None,
        message_id: bytes = b"",
        acknowledged: bool = False,
        send_timeout: float = math.inf,
    ) -> None:
        """Send it to one process; if `acknowledged`, wait until that has said that it has it.

        Of `timeout`, the process may take `send_timeout` to take the message.
        """
        try:
            self.node.send(
                record.endpoint,
                address.wire,
                body,
                timeout=timeout,
                kind=kind,
                serializer=self.serializer if serializer is None else serializer,
                acknowledged=acknowledged,
                message_id=message_id,
                send_timeout=send_timeout,
                routing_id=self._routing_id(record),
            )
        except MessageTooLarge as error:
            raise too_large(address, error) from error
        except NodeClosed as error:
            raise CleanedUp(f"message to {address}: the transport was cleaned up") from error

    def connect(self, records: Iterable[Record]) -> None:
        """Begin to connect to all of them at once."""
        if self._routers is None:
            self.node.connect({record.endpoint for record in records})

    def name_of(self, record: Record) -> str:
        """What tells its process from others on the road that leads there."""
        return record.endpoint if self._routers is None else record.node

    def _routing_id(self, record: Record) -> str:
        """The name by which proxies know the process; empty where it is connected to directly."""
        if self._routers is None:
            return ""
        self._routers.start()
        return record.node

    def blame(self, address: Address, record: Record, error: Exception) -> None:
        """Prefer others to `record`, unless a proxy is what failed."""
        if not isinstance(error, NoProxy | ProxyLost):
            self.directory.nack(address.lookup, record)


def too_large(address: Address, error: MessageTooLarge) -> SerializationError:
    """What a service is told of a message that exceeds the limit."""
    return SerializationError(
        f"message to {address}: {error} ([oslo_messaging_zmq] zmq_max_message_size)"
    )
