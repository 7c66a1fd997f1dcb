# SPDX-License-Identifier: Apache-2.0
"""Bodies: what a request and a reply hold, written as JSON or msgpack.

Both formats carry what JSON knows; anything else (dates, UUIDs, objects) becomes
what `oslo_serialization.jsonutils.to_primitive` makes of it.  They differ in three
things.  Keys of a dict that are numbers become text with JSON.  Bytes must be UTF-8
for it and become text too.  Integers beyond 64 bits cannot be written as msgpack.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

import msgpack
from oslo_serialization import jsonutils

from zmq_core import Serializer
from zmq_oslo_driver._compat import deserialize_remote_exception, serialize_remote_exception
from zmq_oslo_driver.errors import SerializationError, UnreadableMessage

__all__ = [
    "NAMES",
    "ExcInfo",
    "Request",
    "describe_failure",
    "dump",
    "load",
    "load_failure",
    "load_request",
    "text_of",
]

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_SHOWN: Final = 2000
"""Characters of a failure that cannot be read."""

NAMES: Final = {"json": Serializer.JSON, "msgpack": Serializer.MSGPACK}


def _dump_msgpack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, default=jsonutils.to_primitive, use_bin_type=True)
    return packed


def _load_msgpack(body: bytes) -> Any:
    return msgpack.unpackb(body, raw=False, strict_map_key=False)


_DUMP: Final[dict[Serializer, Callable[[object], bytes]]] = {
    Serializer.JSON: jsonutils.dump_as_bytes,
    Serializer.MSGPACK: _dump_msgpack,
}
_LOAD: Final[dict[Serializer, Callable[[bytes], Any]]] = {
    Serializer.JSON: jsonutils.loads,
    Serializer.MSGPACK: _load_msgpack,
}


class Request:
    """The body of everything but a reply."""

    __slots__ = ("context", "message", "monitor")

    def __init__(
        self, context: dict[str, Any], message: dict[str, Any], monitor: float | None = None
    ) -> None:
        self.context = context
        self.message = message
        self.monitor = monitor
        """The client's call_monitor_timeout: how often it wants a sign of life."""

    def dump(self, serializer: Serializer) -> bytes:
        """The body as bytes.

        :raises SerializationError: something in it cannot be written.
        """
        return dump([self.context, self.message, self.monitor], serializer)


def dump(value: object, serializer: Serializer) -> bytes:
    """`value` as bytes.

    :raises SerializationError: something in it cannot be written.
    """
    try:
        return _DUMP[serializer](value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SerializationError(
            f"not serialisable as {serializer.name.lower()}: {error}"
        ) from error


def load(body: bytes, serializer: Serializer) -> Any:
    """The value that `body` holds.

    :raises UnreadableMessage: it is not written in that format.
    """
    reader = _LOAD.get(serializer)
    if reader is None:
        raise UnreadableMessage("the body is of a serialisation that this driver does not use")
    try:
        return reader(body)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise UnreadableMessage(
            f"the body cannot be read as {serializer.name.lower()}: {error}"
        ) from error


def load_request(body: bytes, serializer: Serializer) -> Request:
    """The request that `body` holds.

    :raises UnreadableMessage: it holds none.
    """
    match load(body, serializer):
        # A message that is no dict would end the server's thread, its place in the queue taken.
        case [dict() as context, dict() as message, None | int() | float() as monitor]:
            # What no clock can wait for would end the thread that is to wait for it.
            if monitor is None or 0 <= monitor <= threading.TIMEOUT_MAX:
                return Request(context, message, monitor)
    raise UnreadableMessage("the body is not a list of context, message and monitor interval")


def load_failure(body: bytes, serializer: Serializer, allowed_modules: Sequence[str]) -> Exception:
    """The exception that the body of a FAILED reply describes.

    :raises UnreadableMessage: it describes none, or one whose class does not take it.
    """
    described = load(body, serializer)
    try:
        failure: Exception = deserialize_remote_exception(described, allowed_modules)
    except Exception as error:
        raise UnreadableMessage(
            f"the call failed, but the failure cannot be read ({type(error).__name__}: {error}): "
            f"{str(described)[:_SHOWN]}"
        ) from error
    return failure


def describe_failure(failure: ExcInfo) -> str:
    """The exception as text that the caller's end makes an exception from.

    An exception whose arguments cannot be written keeps its class, text and
    traceback; a caller is never left waiting for want of them.
    """
    try:
        return str(serialize_remote_exception(failure))
    except Exception:  # noqa: BLE001 - the application's own __str__ or arguments may raise anything
        kind, error, _ = failure
        text = text_of(error)
        return str(
            jsonutils.dumps(
                {
                    "class": kind.__name__,
                    "module": kind.__module__,
                    "message": text,
                    "tb": traceback.format_exception(*failure),
                    "args": [text],
                    "kwargs": {},
                }
            )
        )


def text_of(error: BaseException) -> str:
    """The exception's text, whatever its class makes of that."""
    try:
        return str(error)
    except Exception as nested:  # noqa: BLE001 - as above
        return f"<{type(error).__name__} whose text cannot be made: {type(nested).__name__}>"
