# SPDX-License-Identifier: Apache-2.0
"""From configuration to what a proxy is made with.  No I/O but to resolve a host name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from oslo_config import cfg

from zmq_core import (
    BindAddress,
    ConfigurationError,
    Endpoint,
    NodeOptions,
    UnknownAdapter,
    resolve_bind_address,
)
from zmq_matchmaker import InvalidURL, MatchmakerURL
from zmq_matchmaker.configuration import DirectorySettings, complete
from zmq_proxy._errors import InvalidConfiguration
from zmq_proxy._options import (
    GROUP,
    PROXY_GROUP,
    Part,
    command_line_value,
    shared_value,
    warn_of_deprecated,
)

__all__ = ["Settings"]

_SCHEME: Final = "zmq"
_OPTION_OF_FIELD: Final = {
    "bind_address": "rpc_zmq_bind_address",
    "advertise_host": "rpc_zmq_host",
    "min_port": "rpc_zmq_min_port",
    "max_port": "rpc_zmq_max_port",
    "bind_retries": "rpc_zmq_bind_port_retries",
    "linger": "zmq_linger",
    "max_message_size": "zmq_max_message_size",
    "connect_timeout": "zmq_connect_timeout",
    "heartbeat_interval": "zmq_heartbeat_interval",
    "heartbeat_timeout": "zmq_heartbeat_timeout",
    "tcp_keepalive": "zmq_tcp_keepalive",
    "tcp_keepalive_idle": "zmq_tcp_keepalive_idle",
    "tcp_keepalive_count": "zmq_tcp_keepalive_cnt",
    "tcp_keepalive_interval": "zmq_tcp_keepalive_intvl",
    "io_threads": "rpc_zmq_contexts",
}
# The driver's options may stand in the URL's query too.  Those that are none of ours are not
# the matchmaker's either.
_DRIVERS_PREFIXES: Final = ("rpc_", "zmq_", "use_", "subscribe_on")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a proxy depends on.  Times are in seconds."""

    sockets: NodeOptions
    """How its sockets behave, and the range of random ports."""
    address: BindAddress
    parts: frozenset[Part]
    """What it is to do."""
    frontend_port: int
    backend_port: int
    publisher_frontend_port: int
    publisher_port: int
    """0: a random port of the range."""
    metrics_host: str
    metrics_port: int
    """Where to tell of itself over HTTP; port 0: nowhere."""
    matchmaker: MatchmakerURL
    directory: DirectorySettings
    warnings: tuple[str, ...]
    """What services with the same configuration would not expect."""

    @classmethod
    def load(cls, conf: cfg.ConfigOpts) -> Settings:
        """The settings that `conf`, from `new_config` and parsed, makes.

        :raises InvalidConfiguration: a value that cannot work; names the option.
        :raises cfg.Error: a value in a file is not of its option's type; names it.
        """
        warn_of_deprecated(conf)
        options = _ProxyOptions(conf)
        url, query = _transport_url(options)
        values = _Values(conf, query)
        parts = _parts(options)
        local = _subscribe_on(values) if Part.LOCAL in parts else None
        ports = _ports(options)
        if local is not None and not ports["publisher_port"]:
            ports["publisher_port"] = local.port
        sockets, address = _sockets(options, values, local)
        scheme = url.scheme if url.scheme != _SCHEME else values["rpc_zmq_matchmaker"]
        url = url._replace(scheme=scheme, query=tuple(sorted(values.others().items())))
        try:
            return cls(
                sockets=sockets,
                address=address,
                parts=parts,
                **ports,
                metrics_host=options["metrics_host"],
                metrics_port=options["metrics_port"],
                matchmaker=complete(url, conf),
                directory=DirectorySettings.load(values.__getitem__, conf),
                warnings=tuple(_mismatches(parts, values)),
            )
        except ValueError as error:
            raise InvalidConfiguration(f"transport_url or [{GROUP}]", str(error)) from error


class _ProxyOptions:
    """Options of `[zmq_proxy_opts]`: from the command line, which wins, or from the files."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def __getitem__(self, name: str) -> Any:
        try:
            value = command_line_value(self._conf, name)
        except ValueError as error:
            raise InvalidConfiguration(f"--{name.replace('_', '-')}", str(error)) from error
        return self._conf[PROXY_GROUP][name] if value is None else value

    @property
    def transport_url(self) -> str | None:
        """The URL that tells the matchmaker."""
        url: str | None = self["url"] or self._conf.transport_url
        return url


class _Values:
    """Options of `[oslo_messaging_zmq]`: from the URL's query, which wins, or from the files."""

    def __init__(self, conf: cfg.ConfigOpts, query: dict[str, str]) -> None:
        self._group = conf[GROUP]
        self._query = query

    def __getitem__(self, name: str) -> Any:
        if name not in self._query:
            return self._group[name]
        try:
            return shared_value(name, self._query[name])
        except ValueError as error:
            raise InvalidConfiguration(f"transport_url: {name}", str(error)) from error

    def others(self) -> dict[str, str]:
        """What is for the matchmaker."""
        return {
            name: text
            for name, text in self._query.items()
            if not name.startswith(_DRIVERS_PREFIXES)
        }


def _transport_url(options: _ProxyOptions) -> tuple[MatchmakerURL, dict[str, str]]:
    """The URL and its query.  Its text may hold passwords, so that no error quotes it."""
    text = options.transport_url
    if not text:
        raise InvalidConfiguration(
            "transport_url",
            "not set; name the services' configuration by --config-file, with a transport URL "
            "such as zmq+redis://host:6379/",
        )
    try:
        parts = urlsplit(text)
        url = MatchmakerURL.parse(text)
    except InvalidURL as error:
        raise InvalidConfiguration("transport_url", str(error)) from None
    except ValueError:
        raise InvalidConfiguration("transport_url", "cannot be parsed as a URL") from None
    if parts.scheme != _SCHEME and not parts.scheme.startswith(f"{_SCHEME}+"):
        raise InvalidConfiguration(
            "transport_url",
            f"the scheme {parts.scheme!r} is not of this transport: write zmq+redis://… or alike",
        )
    return url, dict(parse_qsl(parts.query))


def _parts(options: _ProxyOptions) -> frozenset[Part]:
    if options["local_publisher"]:
        return frozenset({Part.LOCAL})
    role = options["role"]
    return frozenset({Part.ROUTER, Part.PUBLISHER} if role == "both" else {Part(role)})


def _mismatches(parts: frozenset[Part], values: _Values) -> Iterator[str]:
    """What this proxy is for, and services with the same configuration do not use."""
    others = (
        f"services that share this configuration do not use it; set [{GROUP}] {{}} in all of them"
    )
    router, publisher = values["use_router_proxy"], values["use_pub_sub"]
    if Part.ROUTER in parts and not router and not (Part.PUBLISHER in parts and publisher):
        yield "this proxy routes, but use_router_proxy is false: " + others.format(
            "use_router_proxy = true"
        )
    if parts == {Part.PUBLISHER} and router:
        yield (
            "use_router_proxy is true, and this proxy does not route: services reach each other "
            "only if another one does"
        )
    if not publisher and not (Part.ROUTER in parts and router):
        yield "this proxy publishes, but use_pub_sub is false: " + others.format(
            "use_pub_sub = true"
        )


def _subscribe_on(values: _Values) -> Endpoint:
    """Where the services of this node look for their local publisher."""
    names = values["subscribe_on"]
    option = f"[{GROUP}] subscribe_on"
    if len(names) != 1:
        raise InvalidConfiguration(
            option,
            f"names {len(names)} publishers; a local publisher needs the one under which the "
            "services of this node find it, such as 127.0.0.1:9503",
        )
    try:
        return Endpoint.parse(f"tcp://{names[0].removeprefix('tcp://')}")
    except ConfigurationError as error:
        raise InvalidConfiguration(option, error.problem) from error


def _ports(options: _ProxyOptions) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name in ("frontend_port", "backend_port", "publisher_port", "publisher_frontend_port"):
        port = options[name]
        if port and port in ports.values():
            other = next(other for other, taken in ports.items() if taken == port)
            raise InvalidConfiguration(
                f"[{PROXY_GROUP}] {name}",
                f"{port} is the {other} already; give it another, or 0 for a random one",
            )
        ports[name] = port
    return ports


def _sockets(
    options: _ProxyOptions, values: _Values, local: Endpoint | None
) -> tuple[NodeOptions, BindAddress]:
    fields = {field: values[option] for field, option in _OPTION_OF_FIELD.items()}
    fields["advertise_host"] = fields["advertise_host"] or ""
    host = options["host"] or (local.host if local is not None else "")
    try:
        node = NodeOptions(**fields)
        if not host:
            return node, resolve_bind_address(node.bind_address, node.advertise_host)
        return node, _address(host, node)
    except ConfigurationError as error:
        raise _translated(error) from error


def _address(host: str, options: NodeOptions) -> BindAddress:
    """What `[zmq_proxy_opts] host` means: an address of this machine, or only a name for it."""
    try:
        return resolve_bind_address(host, options.advertise_host if host == "*" else "")
    except UnknownAdapter as error:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError):
            raise InvalidConfiguration(
                f"[{PROXY_GROUP}] host", f"{error.problem}, and as a host name it does not resolve"
            ) from error
    return resolve_bind_address(options.bind_address, host)


def _translated(error: ConfigurationError) -> InvalidConfiguration:
    option = _OPTION_OF_FIELD.get(error.option, error.option)
    problem = error.problem
    for field, name in _OPTION_OF_FIELD.items():
        problem = problem.replace(f"{field} ", f"{name} ")
    return InvalidConfiguration(f"[{GROUP}] {option}", problem)
