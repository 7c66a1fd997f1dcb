# SPDX-License-Identifier: Apache-2.0
"""A message as oslo.messaging's servers want it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Final

from zmq_core import Envelope, Incoming, MessageTooLarge, MessageType, Serializer
from zmq_oslo_driver._compat import RpcIncomingMessage
from zmq_oslo_driver.errors import SerializationError, ZmqDriverError
from zmq_oslo_driver.serialization import ExcInfo, Request, describe_failure, dump, text_of

__all__ = ["ZmqIncomingMessage", "reply_failure"]

LOG = logging.getLogger(__name__)

_SHORT: Final = 1000
"""Characters of an exception's text that fit into the smallest message allowed."""
_LONGEST_MONITOR: Final = 4.0
"""Seconds: a caller that would wait longer for a sign of life gets one every two seconds all the
same, so that the thread which gives them soon notices that there is no call any more."""


class ZmqIncomingMessage(RpcIncomingMessage):
    """A request or a notification, with the ways to answer it."""

    def __init__(
        self,
        incoming: Incoming,
        request: Request,
        again: Callable[[ZmqIncomingMessage], None],
    ) -> None:
        super().__init__(request.context, request.message, incoming.envelope.id.hex())
        self.client_timeout = request.monitor and min(request.monitor, _LONGEST_MONITOR)
        self._incoming = incoming
        self._again = again
        self._answered = False

    @property
    def envelope(self) -> Envelope:
        """The message as it came."""
        return self._incoming.envelope

    def acknowledge(self) -> None:
        """The server has begun with the message (RPC) or is done with it (notification)."""
        self._incoming.release()

    def requeue(self) -> None:
        """Let the message be handled again, after those that wait already."""
        self._again(self)

    def heartbeat(self) -> None:
        """Tell the caller that the call is still being worked on.

        :raises ZmqDriverError: it is not.  oslo.messaging's thread that calls this is never told
            that a call of an unknown method has ended; an exception ends it.
        """
        if self._answered:
            raise ZmqDriverError(f"call {self.msg_id} has been answered")
        self._incoming.heartbeat()

    def reply(self, reply: Any = None, failure: ExcInfo | None = None) -> None:
        """Answer a call; on anything else there is nobody to answer."""
        self._answered = True
        self._incoming.release()
        if self._incoming.envelope.type is not MessageType.CALL:
            return
        if failure is not None:
            reply_failure(self._incoming, failure)
            return
        serializer = self._incoming.envelope.serializer
        try:
            self._incoming.reply(dump(reply, serializer), serializer=serializer)
        except (SerializationError, MessageTooLarge) as error:
            LOG.warning("the reply to call %s cannot be sent: %s", self.msg_id, error)
            problem = SerializationError(f"the reply is {error}")
            reply_failure(self._incoming, (SerializationError, problem, sys.exc_info()[2]))


def reply_failure(incoming: Incoming, failure: ExcInfo) -> None:
    """Answer a call with an exception; if that is too large, with one that says so."""
    try:
        _reply_failure(incoming, failure)
    except MessageTooLarge as error:
        problem = SerializationError(
            f"the handler's {failure[0].__name__} cannot be sent: {error}; it begins with "
            f"{text_of(failure[1])[:_SHORT]!r}"
        )
        _reply_failure(incoming, (SerializationError, problem, None))


def _reply_failure(incoming: Incoming, failure: ExcInfo) -> None:
    body = dump(describe_failure(failure), Serializer.JSON)
    incoming.reply(body, serializer=Serializer.JSON, failed=True)
