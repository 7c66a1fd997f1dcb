# SPDX-License-Identifier: Apache-2.0
"""Changes as Redis publishes them: one channel per key, followed on a connection of its own.

The scripts publish to a key's channel what changes who is found there, not what
refreshes it.  A subscription is sent before the key is looked up, and nobody
waits for its confirmation: should the two overtake each other in the network,
the directory's next look finds what was missed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from zmq_matchmaker._backend import Changed, Watch
from zmq_matchmaker._errors import AccessDenied, MatchmakerError
from zmq_matchmaker._health import BackOff, RateLimitedLog
from zmq_matchmaker._model import Key
from zmq_matchmaker.backends.redis._errors import translated
from zmq_matchmaker.backends.redis._server import Server, close_client

__all__ = ["RedisWatch"]

LOG = logging.getLogger(__name__)

_QUIET: Final = 10.0
"""Seconds of silence after which the server is asked whether it is there."""
_DENIED_PAUSE: Final = 60.0
_PATIENCE: Final = 0.3
"""Seconds for the thread to end by itself."""
_LOST = (redis.RedisError, OSError, ValueError, AttributeError)
"""What redis-py raises when a connection is closed under it."""


class RedisWatch(Watch):
    """Subscribes, and subscribes again when the connection was lost.  Has a thread."""

    def __init__(self, server: Server, channel: Callable[[Key], str], changed: Changed) -> None:
        self._server = server
        self._channel = channel
        self._changed = changed
        self._log = RateLimitedLog(LOG, time.monotonic)
        self._lock = threading.Lock()
        self._keys: dict[bytes, Key] = {}
        self._channels: dict[Key, bytes] = {}
        self._client: Any = None
        self._pubsub: Any = None
        self._closing = threading.Event()
        self._hello = channel(Key._make(("watch", "", "", "")))
        self._open()  # so that what is looked up next is followed already
        self._thread = threading.Thread(target=self._run, name="zmq-redis-watch", daemon=True)
        self._thread.start()

    def follow(self, keys: Collection[Key]) -> None:
        """Subscribe to the channels of `keys`, and to no others."""
        wanted = set(keys)
        with self._lock:
            # Only those that are new are worked on: a client may follow thousands.
            added, ended = wanted - self._channels.keys(), self._channels.keys() - wanted
            new = [self._channel(key).encode() for key in added]
            left = [self._channels.pop(key) for key in ended]
            self._channels.update(zip(added, new, strict=True))
            self._keys.update(zip(new, added, strict=True))
            for name in left:
                del self._keys[name]
            if self._pubsub is None:
                return
            with suppress(*_LOST):  # the thread meets the same, and opens another
                if new:
                    self._pubsub.subscribe(*new)
                if left:
                    self._pubsub.unsubscribe(*left)

    def close(self) -> None:
        """End the thread and the connection."""
        self._closing.set()
        with self._lock, suppress(*_LOST):
            if self._pubsub is not None:
                self._pubsub.unsubscribe(self._hello)  # the answer wakes the thread
        if self._thread is threading.current_thread():
            return
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self._drop()  # the server hangs
            self._thread.join()

    # -- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        back_off = BackOff()
        while not self._closing.is_set():
            if self._pubsub is None and not self._open():
                self._closing.wait(back_off.next())
                continue
            back_off.reset()
            try:
                with translated(str(self._server), self._server.timeout):
                    self._listen()
            except AccessDenied as error:
                self._drop()
                self._log.warning(
                    "denied",
                    "%s; changes are not reported, but found by looking every few seconds: "
                    "the user needs +subscribe +unsubscribe +publish &%s*",
                    error,
                    self._hello.partition("{")[0],
                )
                self._closing.wait(_DENIED_PAUSE)
            except (MatchmakerError, *_LOST) as error:
                LOG.debug("changes are not reported for now: %s", error)
                self._drop()
        self._drop()

    def _open(self) -> bool:
        """Connect and subscribe; whatever was missed meanwhile is reported as that anything may
        have changed."""
        client = pubsub = None
        try:
            with translated(str(self._server), self._server.timeout):
                client = self._server.another_client()
                pubsub = client.pubsub()
                pubsub.subscribe(self._hello)  # connects, which may take long: without the lock
                _never_again(pubsub)
                with self._lock:
                    channels = list(self._keys)
                    if channels:
                        pubsub.subscribe(*channels)
                    self._client, self._pubsub = client, pubsub
        except (MatchmakerError, *_LOST) as error:
            LOG.debug("changes are not reported yet: %s", error)
            with suppress(*_LOST):
                if pubsub is not None:
                    pubsub.close()
            with suppress(*_LOST):
                if client is not None:
                    close_client(client)
            return False
        if channels:
            self._changed(None)
        return True

    def _listen(self) -> None:
        """Report what comes, until the connection is lost."""
        pubsub = self._pubsub
        asked = False
        while not self._closing.is_set():
            message = pubsub.get_message(timeout=self._server.timeout if asked else _QUIET)
            if message is None:
                if asked:
                    raise redis.TimeoutError("silence")
                pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "message":
                with self._lock:
                    key = self._keys.get(message["channel"])
                if key is not None:
                    self._changed(key)

    def _drop(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            pubsub, self._pubsub = self._pubsub, None
        with suppress(*_LOST):
            if pubsub is not None:
                pubsub.close()
        with suppress(*_LOST):
            if client is not None:
                close_client(client)


def _never_again(pubsub: Any) -> None:
    """A connection that redis-py makes anew by itself is one of which we do not learn."""
    if pubsub.connection is not None:
        pubsub.connection.retry = Retry(NoBackoff(), 0)
