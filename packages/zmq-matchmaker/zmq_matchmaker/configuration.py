# SPDX-License-Identifier: Apache-2.0
"""The matchmaker's options in a service's oslo.config files; needs oslo.config.

Whoever reads such files registers `OPTIONS` under `GROUP` and `REDIS_OPTIONS`
under `REDIS_GROUP`, and gets with `complete` the URL of the matchmaker, with
`DirectorySettings` how the directory in front of it behaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from oslo_config import cfg, types

from zmq_matchmaker._backend import Matchmaker
from zmq_matchmaker._directory import Directory
from zmq_matchmaker._url import Host, MatchmakerURL

__all__ = [
    "GROUP",
    "OPTIONS",
    "REDIS_GROUP",
    "REDIS_OPTIONS",
    "DirectorySettings",
    "complete",
    "of_transport_url",
    "register",
    "warn_of_deprecated",
]

GROUP: Final = "oslo_messaging_zmq"
REDIS_GROUP: Final = "matchmaker_redis"

LONGEST_WAIT: Final = 10.0
"""Seconds; who waits longer is still missing when an emptied Redis is believed again."""
_NO_LONGER: Final = "Accepted so that old files can be read; has no effect."

OPTIONS: Final[list[cfg.Opt]] = [
    cfg.StrOpt(
        "rpc_zmq_matchmaker",
        default="dummy",
        help="Matchmaker for transport URLs that name none (zmq://). A URL such as "
        "zmq+redis:// names its own.",
    ),
    cfg.IntOpt(
        "zmq_target_expire",
        default=120,
        help="Seconds after which the record of a process that died is gone from the "
        "matchmaker. 0 or less: never.",
    ),
    cfg.IntOpt(
        "zmq_target_update",
        min=1,
        sample_default="<a third of zmq_target_expire>",
        help="Seconds between refreshes of a process's records.",
    ),
    cfg.FloatOpt(
        "zmq_nack_pause",
        default=1.0,
        min=0.05,
        max=3600,
        help="Seconds for which a host that did not answer is set aside; doubled each time that it "
        "does not answer again, up to zmq_nack_pause_max. One that has registered, and says that "
        "it does not listen, is set aside for zmq_nack_pause_max at once; when it listens again "
        "it registers anew, and is used.",
    ),
    cfg.FloatOpt(
        "zmq_nack_pause_max",
        default=30.0,
        min=0.05,
        max=86400,
        help="Longest time in seconds for which a host that does not answer is set aside.",
    ),
]

REDIS_OPTIONS: Final[list[cfg.Opt]] = [
    cfg.HostAddressOpt(
        "host",
        default="127.0.0.1",
        help="Redis for transport URLs that name no host (zmq+redis:///).",
    ),
    cfg.PortOpt("port", default=6379, help="Its port."),
    cfg.StrOpt("username", help="User (ACL), where the transport URL names none."),
    cfg.StrOpt(
        "password",
        default="",
        secret=True,
        help="Password, where the transport URL holds none.",
    ),
    cfg.IntOpt("db", default=0, min=0, help="Number of the database; db= in the URL wins."),
    cfg.ListOpt(
        "sentinel_hosts",
        default=[],
        help="Sentinels, as host:port, for transport URLs that name no host. With them, host and "
        "port are not used.",
    ),
    cfg.StrOpt(
        "sentinel_group_name",
        sample_default="<the only group that the Sentinels watch>",
        help="Name by which the Sentinels know the master.",
    ),
    cfg.BoolOpt("ssl", default=False, help="Speak TLS with Redis."),
    cfg.StrOpt("ssl_cafile", help="File of the authorities to trust; the system's if not set."),
    cfg.StrOpt("ssl_certfile", help="File of the certificate to show to Redis."),
    cfg.StrOpt("ssl_keyfile", help="File of that certificate's key."),
    cfg.BoolOpt("ssl_check_hostname", default=True, help="The certificate must name the host."),
    cfg.IntOpt(
        "socket_timeout",
        default=2000,
        min=1,
        max=600000,
        help="Milliseconds to wait for an answer of Redis. No call waits for it but one to a topic "
        "that was never called before.",
    ),
    cfg.IntOpt(
        "wait_timeout",
        default=5000,
        min=100,
        max=600000,
        help="Longest pause in milliseconds between two attempts to reach a Redis that is down; "
        "the first ones are shorter. More than 10000 count as 10000: who came later would be "
        "missing when clients believe a Redis again that had been emptied.",
    ),
    cfg.IntOpt(
        "check_timeout",
        default=20000,
        deprecated_for_removal=True,
        deprecated_reason="No transaction is waited for: attempts are repeated in the background "
        f"for as long as it takes. {_NO_LONGER}",
        help="No longer used.",
    ),
]

_TLS: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
_REDIS, _SENTINEL, _TRANSPORT = "redis", "sentinel", "zmq"
_DRIVERS: Final = ("rpc_", "zmq_", "use_", "subscribe_on")
"""How the options of the driver begin, which may stand in the query of a transport URL."""


def register(conf: cfg.ConfigOpts) -> None:
    """Make all the options known to `conf`; harmless if they are."""
    conf.register_opts(OPTIONS, group=GROUP)
    conf.register_opts(REDIS_OPTIONS, group=REDIS_GROUP)


def warn_of_deprecated(group: Any, options: Iterable[cfg.Opt]) -> None:
    """Have the log say which of `options` are set that have no effect any more.

    oslo.config warns of an option when it is read, which nobody does with these.
    """
    for option in options:
        if option.deprecated_for_removal:
            getattr(group, option.dest)


def complete(url: MatchmakerURL, conf: cfg.ConfigOpts) -> MatchmakerURL:
    """`url` with what `[matchmaker_redis]` adds to it; what it says itself counts for more."""
    if url.scheme not in (_REDIS, _SENTINEL):
        return url
    group = conf[REDIS_GROUP]
    warn_of_deprecated(group, REDIS_OPTIONS)
    return url._replace(
        scheme=_scheme(url, group),
        hosts=_hosts(url, group),
        query=tuple(sorted({**_settings(url, group), **dict(url.query)}.items())),
    )


def of_transport_url(text: str, conf: cfg.ConfigOpts) -> MatchmakerURL:
    """The matchmaker of the transport URL `text` in a service with `conf`.

    A matchmaker's own URL does as well.  Options of the driver in the query are left out.

    :raises InvalidURL: it cannot be understood.
    """
    url = MatchmakerURL.parse(text)
    if url.scheme == _TRANSPORT:
        name = dict(url.query).get("rpc_zmq_matchmaker", conf[GROUP].rpc_zmq_matchmaker)
        url = url._replace(scheme=name)
    query = tuple((name, value) for name, value in url.query if not name.startswith(_DRIVERS))
    return complete(url._replace(query=query), conf)


def _scheme(url: MatchmakerURL, group: Any) -> str:
    return _SENTINEL if group.sentinel_hosts and not _named(url) else url.scheme


def _named(url: MatchmakerURL) -> bool:
    """Whether the URL names a host; a login alone names none."""
    return any(host.name for host in url.hosts)


def _hosts(url: MatchmakerURL, group: Any) -> tuple[Host, ...]:
    def completed(host: Host, login: Host) -> Host:
        return host._replace(
            username=login.username or group.username or None,
            password=login.password or group.password or None,
        )

    logins = [host for host in url.hosts if host.username or host.password]
    login = logins[0] if logins else Host("")
    if _named(url):
        return tuple(completed(host, host if host in logins else login) for host in url.hosts)
    if group.sentinel_hosts:
        texts = ",".join(group.sentinel_hosts)
        found = MatchmakerURL.parse(f"{_SENTINEL}://{texts}").hosts
        return tuple(completed(host, login) for host in found)
    return (completed(Host(group.host, group.port), login),)


def _settings(url: MatchmakerURL, group: Any) -> dict[str, str]:
    settings = {"socket_timeout": repr(group.socket_timeout / 1000)}
    if group.db:
        settings["db"] = str(group.db)
    # The path of a sentinel:// URL begins with the group, if no setting names it.
    by_path = url.scheme == _SENTINEL and url.path.strip("/") and _named(url)
    if group.sentinel_group_name and not by_path:
        settings["sentinel_group"] = group.sentinel_group_name
    elif url.scheme != _SENTINEL and _scheme(url, group) == _SENTINEL:
        settings["sentinel_group"] = ""  # the only one; the path names the deployment alone
    if group.ssl:
        settings["ssl"] = "true"
    said = dict(url.query).get("ssl", "")
    if said.lower() not in types.Boolean.FALSE_VALUES:
        # Also without `ssl`, which is then an error: nobody wants to do without it unawares.
        settings |= {name: group[name] for name in _TLS if group[name]}
        if said or group.ssl:
            settings["ssl_check_hostname"] = str(group.ssl_check_hostname).lower()
    return settings


class DirectorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a directory behaves; seconds."""

    expire: float
    update: float | None
    first_pause: float
    longest_pause: float
    longest_wait: float

    @classmethod
    def load(cls, value: Callable[[str], Any], conf: cfg.ConfigOpts) -> DirectorySettings:
        """From options of `GROUP`, each got with `value(name)`, and those of `REDIS_GROUP`.

        :raises ValueError: two of them contradict each other; names them.
        """
        first = value("zmq_nack_pause")
        expire, update = value("zmq_target_expire"), value("zmq_target_update")
        if update is not None and expire > 0 and update > expire / 2:
            raise ValueError(
                f"zmq_target_update ({update} s) must be at most half of zmq_target_expire "
                f"({expire} s), lest records expire before they are refreshed; left out, it is "
                "a third"
            )
        return cls(
            expire=expire,
            update=update,
            first_pause=first,
            longest_pause=max(first, value("zmq_nack_pause_max")),
            longest_wait=min(conf[REDIS_GROUP].wait_timeout / 1000, LONGEST_WAIT),
        )

    def directory(self, backend: Matchmaker) -> Directory:
        """A directory in front of `backend` that behaves so."""
        return Directory(backend, **msgspec.structs.asdict(self))
