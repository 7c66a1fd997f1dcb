# SPDX-License-Identifier: Apache-2.0
"""One address in its two forms: what is looked up, and what goes on the wire."""

from __future__ import annotations

import functools

import msgspec
from oslo_messaging import InvalidTarget, Target

from zmq_core import MessageType, TargetKey
from zmq_matchmaker import Key, Role

__all__ = ["Address", "notification_address", "rpc_address"]


class Address(msgspec.Struct, frozen=True):
    """The `lookup` key of the matchmaker and the `wire` key of the envelope."""

    lookup: Key
    wire: TargetKey

    def __str__(self) -> str:
        return str(self.wire)

    @classmethod
    def of_message(cls, kind: MessageType, encoded: bytes) -> Address:
        """The address that a message was sent to."""
        wire = TargetKey.decode(encoded)
        if kind is MessageType.NOTIFY:
            return notification_address(wire.exchange, wire.topic, wire.server)
        return _rpc_address(wire.exchange, wire.topic, wire.server)


def rpc_address(target: Target, default_exchange: str | None, *, server: bool = True) -> Address:
    """The address of an RPC target: of its server if it names one, and `server` is true.

    :raises InvalidTarget: a name in it is too long.
    """
    try:
        return _rpc_address(
            target.exchange or default_exchange or "",
            target.topic,
            (target.server or "") if server else "",
        )
    except ValueError as error:
        raise InvalidTarget(str(error), target) from error


# Making one costs as much as sending to it, and the same few recur.
@functools.lru_cache(maxsize=4096)
def _rpc_address(exchange: str, topic: str, server: str) -> Address:
    return Address(Key(Role.LISTENER, exchange, topic, server), TargetKey(exchange, topic, server))


def notification_address(exchange: str, topic: str, pool: str = "") -> Address:
    """The address of a notification topic (which includes the priority) for one pool.

    All pools are found under one key; each has its own on the wire.

    :raises InvalidTarget: a name in it is too long.
    """
    try:
        return _notification_address(exchange, topic, pool)
    except ValueError as error:
        raise InvalidTarget(str(error), Target(exchange=exchange, topic=topic)) from error


@functools.lru_cache(maxsize=4096)
def _notification_address(exchange: str, topic: str, pool: str) -> Address:
    return Address(Key(Role.NOTIFICATION, exchange, topic), TargetKey(exchange, topic, pool))
