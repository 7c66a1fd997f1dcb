# SPDX-License-Identifier: Apache-2.0
"""What a URL says about how to reach Redis, checked before anything is connected."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from redis.backoff import NoBackoff
from redis.retry import Retry

from zmq_matchmaker._encoding import escape
from zmq_matchmaker._errors import InvalidURL
from zmq_matchmaker._url import Host, MatchmakerURL

__all__ = ["PREFIX", "SETTINGS", "Address", "RedisSettings"]

PREFIX: Final = "zmq"
DEFAULT_PORT: Final = 6379
DEFAULT_SENTINEL_PORT: Final = 26379
DEFAULT_TIMEOUT: Final = 2.0
SENTINEL: Final = "sentinel"
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_FILES: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
SETTINGS: Final = (
    "db",
    "socket_timeout",
    "socket_connect_timeout",
    "sentinel_group",
    "ssl",
    "ssl_check_hostname",
    *_FILES,
)


class Address(NamedTuple):
    """Where one server is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RedisSettings(NamedTuple):
    """Everything that the URL says."""

    addresses: tuple[Address, ...]
    credentials: tuple[tuple[str | None, str | None], ...]
    """User and password for each address."""
    arguments: dict[str, Any]
    """Of every connection, but for host, port, user and password."""
    prefix: str
    """Of all keys of the deployment."""
    group: str | None
    """The name by which Sentinels know the master."""
    timeout: float
    must_be_sentinels: bool

    @classmethod
    def of(cls, url: MatchmakerURL) -> RedisSettings:
        """What `url` says.

        :raises InvalidURL: something that cannot work; the message names it.
        """
        settings = url.settings(SETTINGS)
        path = url.path.strip("/")
        group = settings.get("sentinel_group")
        port = DEFAULT_PORT
        if url.scheme == SENTINEL:
            port = DEFAULT_SENTINEL_PORT
            if group is None:
                first, _, path = path.partition("/")
                group = first or None
        hosts = url.hosts or (Host("127.0.0.1"),)
        addresses = tuple(Address(host.name or "127.0.0.1", host.port or port) for host in hosts)
        if len(set(addresses)) < len(addresses):
            raise InvalidURL(f"{url}: a host is named twice")
        timeout = _seconds(url, settings, "socket_timeout", DEFAULT_TIMEOUT)
        arguments: dict[str, Any] = {
            "db": _database(url, settings),
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": _seconds(url, settings, "socket_connect_timeout", timeout),
            "retry": Retry(NoBackoff(), 0),  # Server.run knows better when to
            **_tls(url, settings),
        }
        credentials = _credentials(hosts)
        prefix = f"{PREFIX}:{{{escape(path)}}}:"
        return cls(
            addresses,
            credentials,
            arguments,
            prefix,
            group or None,
            timeout,
            url.scheme == SENTINEL,
        )


def _credentials(hosts: tuple[Host, ...]) -> tuple[tuple[str | None, str | None], ...]:
    """For each host; a host without any has those of the first that has some."""
    own = [(host.username, host.password) for host in hosts]
    common = next((login for login in own if any(login)), (None, None))
    return tuple(login if any(login) else common for login in own)


def _tls(url: MatchmakerURL, settings: Mapping[str, str]) -> dict[str, Any]:
    if not _truth(url, settings, "ssl", default=False):
        if any(name.startswith("ssl_") for name in settings):
            raise InvalidURL(f"{url}: ssl_… settings without ssl=true")
        return {}
    for name in _FILES:
        if name in settings and not os.path.isfile(settings[name]):
            raise InvalidURL(f"{url}: {name}={settings[name]!r}: there is no such file")
    return {
        "ssl": True,
        "ssl_ca_certs": settings.get("ssl_cafile"),
        "ssl_certfile": settings.get("ssl_certfile"),
        "ssl_keyfile": settings.get("ssl_keyfile"),
        "ssl_check_hostname": _truth(url, settings, "ssl_check_hostname", default=True),
    }


def _database(url: MatchmakerURL, settings: Mapping[str, str]) -> int:
    text = settings.get("db", "0")
    if not (text.isascii() and text.isdigit()):
        raise InvalidURL(f"{url}: db={text!r} is not the number of a database")
    return int(text)


def _seconds(url: MatchmakerURL, settings: Mapping[str, str], name: str, default: float) -> float:
    text = settings.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError as error:
        raise InvalidURL(f"{url}: {name}={text!r} is not a number of seconds") from error
    if not 0 < seconds < float("inf"):
        raise InvalidURL(f"{url}: {name}={text!r} must be more than 0, and finite")
    return seconds


def _truth(url: MatchmakerURL, settings: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = settings.get(name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidURL(f"{url}: {name}={value!r} is neither true nor false")
