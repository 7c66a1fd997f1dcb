# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server on a thread of its own: GET, one request to a connection.

One loop serves all, so that a client that says nothing holds up nobody, and the
end does not wait for it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from zmq_proxy._errors import InvalidConfiguration
from zmq_proxy._options import PROXY_GROUP

__all__ = ["Answer", "HTTPServer", "listen"]

LOG = logging.getLogger(__name__)

_PATIENCE: Final = 5.0
"""Seconds for a client to send its request and to take the answer."""
_MOST_CLIENTS: Final = 16
"""At a time: another one takes the place of the one that came first."""
_LONGEST_HEAD: Final = 16384
_TEXT: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a client gets."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    :raises InvalidConfiguration: it cannot; names the option.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server((str(address[0]), port), family=family)
    except (OSError, UnicodeError) as error:
        raise _explained(host, port, error) from error


def _explained(host: str, port: int, error: OSError | UnicodeError) -> InvalidConfiguration:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return InvalidConfiguration(
            f"[{PROXY_GROUP}] metrics_port",
            f"the port {port} of {host!r} is in use; stop what holds it, choose another, or 0 "
            "to serve no metrics",
        )
    if number == errno.EACCES:
        return InvalidConfiguration(
            f"[{PROXY_GROUP}] metrics_port", f"this user may not listen on the port {port}"
        )
    problem = getattr(error, "strerror", None) or str(error)
    return InvalidConfiguration(
        f"[{PROXY_GROUP}] metrics_host", f"cannot listen on {host!r}: {problem}"
    )


class HTTPServer:
    """Answers on `listener`, which it closes, from `start` to `close`.

    `answer` gets the path and is called on the server's thread.  What it raises becomes an
    internal error without details.
    """

    def __init__(self, listener: socket.socket, answer: Callable[[str], Answer]) -> None:
        self._listener = listener
        self._answer = answer
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._clients: dict[asyncio.Task[None], None] = {}
        self._thread = threading.Thread(target=self._run, name="zmq-proxy-metrics", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """End at once, whatever clients do."""
        if self._thread.ident is None:
            self._listener.close()
            self._loop.close()
        elif self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()

    # -- the thread ------------------------------------------------------------------

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._client, sock=self._listener, limit=_LONGEST_HEAD)
        await self._ended.wait()
        server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= _MOST_CLIENTS:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.cancel()
        self._clients[task] = None
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._converse(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError) as error:
            LOG.debug("a client got no answer: %r", error)
            writer.transport.abort()
        finally:
            self._clients.pop(task, None)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.transport.set_write_buffer_limits(0)  # drain() returns when all is with the kernel
        writer.write(self._response(head.partition(b"\r\n")[0]))
        await writer.drain()
        writer.close()

    def _response(self, request: bytes) -> bytes:
        method, _, rest = request.decode("latin-1").partition(" ")
        answer = self._answer_to(method, rest.partition(" ")[0].partition("?")[0])
        head = (
            f"HTTP/1.1 {answer.status} {answer.status.phrase}\r\n"
            f"Content-Type: {answer.content_type}\r\n"
            f"Content-Length: {len(answer.body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else answer.body)

    def _answer_to(self, method: str, path: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"GET or HEAD\n")
        try:
            return self._answer(path)
        except Exception:
            LOG.exception("cannot answer %s", path)
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n")
