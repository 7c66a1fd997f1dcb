# SPDX-License-Identifier: Apache-2.0
"""From configuration to what a proxy is made with.  No I/O but to resolve a host name."""

from __future__ import annotations

import socket
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from oslo_config import cfg

from zmq_core import (
    BindAddress,
    ConfigurationError,
    NodeOptions,
    UnknownAdapter,
    resolve_bind_address,
)
from zmq_matchmaker import InvalidURL, MatchmakerURL
from zmq_matchmaker.configuration import DirectorySettings, complete
from zmq_proxy._errors import InvalidConfiguration
from zmq_proxy._options import GROUP, PROXY_GROUP, command_line_value, shared_value

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
    frontend_port: int
    backend_port: int
    """0: a random port of the range."""
    matchmaker: MatchmakerURL
    directory: DirectorySettings
    used: bool
    """Whether services with the same configuration send through proxies."""

    @classmethod
    def load(cls, conf: cfg.ConfigOpts) -> Settings:
        """The settings that `conf`, from `new_config` and parsed, makes.

        :raises InvalidConfiguration: a value that cannot work; names the option.
        :raises cfg.Error: a value in a file is not of its option's type; names it.
        """
        url, query = _transport_url(conf.transport_url)
        values = _Values(conf, query)
        frontend_port, backend_port = _ports(conf)
        sockets, address = _sockets(conf, values)
        scheme = url.scheme if url.scheme != _SCHEME else values["rpc_zmq_matchmaker"]
        url = url._replace(scheme=scheme, query=tuple(sorted(values.others().items())))
        try:
            return cls(
                sockets=sockets,
                address=address,
                frontend_port=frontend_port,
                backend_port=backend_port,
                matchmaker=complete(url, conf),
                directory=DirectorySettings.load(values.__getitem__, conf),
                used=values["use_router_proxy"],
            )
        except ValueError as error:
            raise InvalidConfiguration(f"transport_url or [{GROUP}]", str(error)) from error


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


def _transport_url(text: str | None) -> tuple[MatchmakerURL, dict[str, str]]:
    """The URL and its query.  Its text may hold passwords, so that no error quotes it."""
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


def _ports(conf: cfg.ConfigOpts) -> tuple[int, int]:
    ports = []
    for name in ("frontend_port", "backend_port"):
        try:
            port = command_line_value(conf, name)
        except ValueError as error:
            raise InvalidConfiguration(f"--{name.replace('_', '-')}", str(error)) from error
        ports.append(conf[PROXY_GROUP][name] if port is None else port)
    frontend, backend = ports
    if frontend == backend != 0:
        raise InvalidConfiguration(
            f"[{PROXY_GROUP}] backend_port",
            f"{backend} is the frontend_port already; give it another, or 0 for a random one",
        )
    return frontend, backend


def _sockets(conf: cfg.ConfigOpts, values: _Values) -> tuple[NodeOptions, BindAddress]:
    fields = {field: values[option] for field, option in _OPTION_OF_FIELD.items()}
    fields["advertise_host"] = fields["advertise_host"] or ""
    host = command_line_value(conf, "host") or conf[PROXY_GROUP].host
    try:
        options = NodeOptions(**fields)
        if not host:
            return options, resolve_bind_address(options.bind_address, options.advertise_host)
        return options, _address(host, options)
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
