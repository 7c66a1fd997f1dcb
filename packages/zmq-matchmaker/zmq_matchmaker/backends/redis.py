# SPDX-License-Identifier: Apache-2.0
"""`redis`: a sorted set per key, its members the records, their scores the server's time of expiry.

Only the server's clock is used: scripts add the time to live to its TIME and
compare with it, so that clients' clocks may be wrong.  Every call is one round
trip, whatever the number of entries.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from zmq_matchmaker._backend import Characteristics, Matchmaker
from zmq_matchmaker._encoding import decode_record, encode_key, encode_record, escape
from zmq_matchmaker._errors import AccessDenied, InvalidURL, Unavailable
from zmq_matchmaker._health import RateLimitedLog
from zmq_matchmaker._model import Entry, Key, Record
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["PREFIX", "RedisMatchmaker"]

LOG = logging.getLogger(__name__)

PREFIX: Final = "zmq"
DEFAULT_PORT: Final = 6379
DEFAULT_TIMEOUT: Final = 2.0
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_FILES: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
SETTINGS: Final = (
    "db",
    "socket_timeout",
    "socket_connect_timeout",
    "ssl",
    "ssl_check_hostname",
    *_FILES,
)
_DENIED: Final = re.compile(
    r"NOAUTH|WRONGPASS|NOPERM|invalid (username|password)|AUTH|can't run this command"
    r"|can't access at least one of the keys|ACL failure"
)

_NOW: Final = "local t = redis.call('TIME') local now = t[1] + t[2] / 1000000 "


class _Script:
    """A script that the server keeps once it has seen it, and is called by its hash then."""

    def __init__(self, text: str) -> None:
        self.text = _NOW + text
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# ARGV: seconds to live (or nothing for ever), then the records.  The whole key gets an expiry
# only as garbage collection: never before its last record's own.
_REGISTER: Final = _Script("""
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local deadline = '+inf'
if ARGV[1] ~= '' then deadline = string.format('%.6f', now + tonumber(ARGV[1])) end
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], deadline, ARGV[i]) end
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if last[2] == 'inf' then redis.call('PERSIST', KEYS[1])
else redis.call('EXPIREAT', KEYS[1], math.ceil(tonumber(last[2])) + 1) end
return #ARGV - 1
""")
_LOOKUP: Final = _Script("""
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.6f', now), '+inf')
""")


class RedisMatchmaker(Matchmaker):
    """`redis://[user[:password]@]host[:port]/deployment?db=0&ssl=true…`, one server."""

    characteristics: ClassVar = Characteristics(
        shared_across_processes=True,
        shared_across_hosts=True,
        persistent=True,
        forgetful=True,
        expiry=True,
    )

    def __init__(self, url: MatchmakerURL) -> None:
        super().__init__(url)
        self._arguments = _connection_arguments(url)
        self._address = f"redis at {self._arguments['host']}:{self._arguments['port']}"
        deployment = escape(url.path.strip("/")) if url.path.strip("/") else ""
        self._prefix = f"{PREFIX}:{deployment}:"
        self._log = RateLimitedLog(LOG, time.monotonic)
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        self._pid = 0

    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Add the records with their time of expiry, and drop those that have expired."""
        by_key: dict[Key, list[bytes]] = {}
        for key, record in entries:
            by_key.setdefault(key, []).append(encode_record(record))
        seconds = "" if ttl is None else repr(float(ttl))
        self._run(
            _REGISTER,
            [(self._name(key), seconds, *records) for key, records in by_key.items()],
        )

    def unregister(self, entries: Sequence[Entry]) -> None:
        """Remove the records."""
        with self._pipeline() as pipeline:
            for key, record in entries:
                pipeline.zrem(self._name(key), encode_record(record))
            self._checked(pipeline.execute(raise_on_error=False))

    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """The records that have not expired."""
        answers = self._run(_LOOKUP, [(self._name(key),) for key in keys])
        return [self._records(key, answer) for key, answer in zip(keys, answers, strict=True)]

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()
            client.connection_pool.disconnect()  # redis-py before 5.0.2 leaves it open

    def _name(self, key: Key) -> str:
        return self._prefix + encode_key(key)

    def _records(self, key: Key, answer: list[bytes]) -> tuple[Record, ...]:
        records = []
        for data in answer:
            record = decode_record(data)
            if record is None:
                self._log.warning(
                    key,
                    "%s: a member of %s is not a record and is ignored; remove it with ZREM: %.80r",
                    self._address,
                    self._name(key),
                    data,
                )
            else:
                records.append(record)
        return tuple(sorted(records))

    @contextmanager
    def _pipeline(self) -> Iterator[Any]:
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                # A connection that came over a fork belongs to the parent.
                self._client = redis.Redis(**self._arguments)
                self._pid = os.getpid()
            client = self._client
        with self._translated(), client.pipeline(transaction=False) as pipeline:
            yield pipeline

    def _run(self, script: _Script, calls: Sequence[tuple[str | bytes, ...]]) -> list[Any]:
        """The answer to each call of `script`, in one round trip; in two when it is new there."""
        with self._pipeline() as pipeline:
            for call in calls:
                pipeline.evalsha(script.sha, 1, *call)
            answers = pipeline.execute(raise_on_error=False)
            if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
                for call in calls:
                    pipeline.eval(script.text, 1, *call)
                answers = pipeline.execute(raise_on_error=False)
            return self._checked(answers)

    def _checked(self, answers: list[Any]) -> list[Any]:
        """The answers; a key that holds something else counts as empty, any other error is one."""
        for number, answer in enumerate(answers):
            if isinstance(answer, redis.ResponseError) and "WRONGTYPE" in str(answer):
                self._log.warning(
                    "WRONGTYPE",
                    "%s: a key under %s is no sorted set, so that nobody is found there; "
                    "remove it with DEL: %s",
                    self._address,
                    self._prefix,
                    answer,
                )
                answers[number] = []
            elif isinstance(answer, Exception):
                raise answer
        return answers

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Let no error of redis-py out, and say which server it was."""
        try:
            yield
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            raise self._denied(error) from error
        except redis.TimeoutError as error:
            timeout = self._arguments["socket_timeout"]
            raise Unavailable(f"{self._address} did not answer within {timeout:g} s") from error
        except redis.ConnectionError as error:
            raise Unavailable(f"{self._address} cannot be reached: {_reason(error)}") from error
        except redis.RedisError as error:
            if _DENIED.search(str(error)):
                raise self._denied(error) from error
            raise Unavailable(f"{self._address} refuses: {error}") from error

    def _denied(self, error: Exception) -> AccessDenied:
        return AccessDenied(
            f"{self._address} denies access: {error}; check user and password in the "
            "transport URL, and the user's permissions (ACL) for keys zmq:*"
        )


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    return getattr(cause, "strerror", None) or str(error)


def _connection_arguments(url: MatchmakerURL) -> dict[str, Any]:
    if len(url.hosts) > 1:
        raise InvalidURL(f"{url}: only one Redis server can be named")
    settings = url.settings(SETTINGS)
    host = url.hosts[0] if url.hosts else None
    timeout = _seconds(url, settings, "socket_timeout", DEFAULT_TIMEOUT)
    arguments: dict[str, Any] = {
        "host": (host.name if host else "") or "127.0.0.1",
        "port": (host.port if host else None) or DEFAULT_PORT,
        "username": host.username if host else None,
        "password": host.password if host else None,
        "db": _database(url, settings),
        "socket_timeout": timeout,
        "socket_connect_timeout": _seconds(url, settings, "socket_connect_timeout", timeout),
        # Once more for a connection that the server closed meanwhile; never for silence.
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    if _truth(url, settings, "ssl", default=False):
        for name in _FILES:
            if name in settings and not os.path.isfile(settings[name]):
                raise InvalidURL(f"{url}: {name}={settings[name]!r}: there is no such file")
        arguments |= {
            "ssl": True,
            "ssl_ca_certs": settings.get("ssl_cafile"),
            "ssl_certfile": settings.get("ssl_certfile"),
            "ssl_keyfile": settings.get("ssl_keyfile"),
            "ssl_check_hostname": _truth(url, settings, "ssl_check_hostname", default=True),
        }
    elif any(name.startswith("ssl_") for name in settings):
        raise InvalidURL(f"{url}: ssl_… settings without ssl=true")
    return arguments


def _database(url: MatchmakerURL, settings: dict[str, str]) -> int:
    text = settings.get("db", "0")
    if not (text.isascii() and text.isdigit()):
        raise InvalidURL(f"{url}: db={text!r} is not the number of a database")
    return int(text)


def _seconds(url: MatchmakerURL, settings: dict[str, str], name: str, default: float) -> float:
    text = settings.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError as error:
        raise InvalidURL(f"{url}: {name}={text!r} is not a number of seconds") from error
    if not 0 < seconds < float("inf"):
        raise InvalidURL(f"{url}: {name}={text!r} must be more than 0, and finite")
    return seconds


def _truth(url: MatchmakerURL, settings: dict[str, str], name: str, *, default: bool) -> bool:
    value = settings.get(name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidURL(f"{url}: {name}={value!r} is neither true nor false")
