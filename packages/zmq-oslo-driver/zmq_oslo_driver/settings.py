# SPDX-License-Identifier: Apache-2.0
"""From configuration and transport URL to what a runtime is made with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from oslo_config import cfg
from oslo_messaging import TransportURL

from zmq_core import ConfigurationError, Endpoint, NodeOptions, ProxyEnd, Serializer
from zmq_matchmaker import Host, MatchmakerURL
from zmq_matchmaker.configuration import DirectorySettings, complete
from zmq_oslo_driver.errors import InvalidConfiguration
from zmq_oslo_driver.options import GROUP, OptionValues
from zmq_oslo_driver.serialization import NAMES

__all__ = ["Acks", "Settings", "naming_the_option"]

_OPTION_OF_FIELD: Final = {
    "bind_address": "rpc_zmq_bind_address",
    "advertise_host": "rpc_zmq_host",
    "min_port": "rpc_zmq_min_port",
    "max_port": "rpc_zmq_max_port",
    "bind_retries": "rpc_zmq_bind_port_retries",
    "linger": "zmq_linger",
    "immediate": "zmq_immediate",
    "max_message_size": "zmq_max_message_size",
    "connect_timeout": "zmq_connect_timeout",
    "heartbeat_interval": "zmq_heartbeat_interval",
    "heartbeat_timeout": "zmq_heartbeat_timeout",
    "tcp_keepalive_idle": "zmq_tcp_keepalive_idle",
    "tcp_keepalive_count": "zmq_tcp_keepalive_cnt",
    "tcp_keepalive_interval": "zmq_tcp_keepalive_intvl",
    "io_threads": "rpc_zmq_contexts",
    "remember": "rpc_message_ttl",
}


class Acks(msgspec.Struct, frozen=True, kw_only=True):
    """How casts are acknowledged."""

    timeout: float
    """Seconds for the first attempt."""
    multiplier: float
    attempts: int
    """After the first."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a runtime depends on.  Equal settings may share one."""

    node: NodeOptions
    matchmaker: MatchmakerURL
    serializer: Serializer
    backlog: int
    directory: DirectorySettings
    send_timeout: float
    notify_timeout: float
    router_proxy: bool
    servers_per_topic: int
    """How many of a topic's servers this process prefers; 0: none."""
    acks: Acks | None
    """None: not at all."""
    pub_sub: bool
    subscribe_on: tuple[ProxyEnd, ...]

    @classmethod
    def load(cls, conf: cfg.ConfigOpts, url: TransportURL) -> Settings:
        """The settings that `conf` and `url` make together.

        :raises InvalidConfiguration: a value that cannot work; names the option.
        """
        values = OptionValues(conf, url.query)
        try:
            return cls._load(values, url, conf)
        except ConfigurationError as error:
            raise _translated(error) from error
        except ValueError as error:
            raise InvalidConfiguration(f"transport_url or [{GROUP}]: {error}") from error

    @classmethod
    def _load(cls, values: OptionValues, url: TransportURL, conf: cfg.ConfigOpts) -> Settings:
        values.warn_of_deprecated()
        node = {field: values[option] for field, option in _OPTION_OF_FIELD.items()}
        node["advertise_host"] = node["advertise_host"] or ""
        keepalive = values["zmq_tcp_keepalive"]
        node |= _dynamic(values)
        return cls(
            node=NodeOptions(**node, tcp_keepalive=keepalive),
            matchmaker=complete(_matchmaker_url(url, values), conf),
            serializer=NAMES[values["rpc_zmq_serialization"]],
            backlog=values["rpc_zmq_topic_backlog"],
            directory=DirectorySettings.load(values.__getitem__, conf),
            send_timeout=values["zmq_send_timeout"],
            notify_timeout=values["zmq_notify_timeout"],
            router_proxy=values["use_router_proxy"],
            servers_per_topic=_servers_per_topic(values),
            acks=_acks(values),
            pub_sub=values["use_pub_sub"],
            subscribe_on=tuple(map(_publisher, values["subscribe_on"])),
        )


def _dynamic(values: OptionValues) -> dict[str, Any]:
    """What bounds a node's direct connections."""
    if not values["use_dynamic_connections"]:
        return {}
    return {
        "idle_timeout": values["zmq_idle_timeout"],
        "max_links": values["zmq_max_connections"],
    }


def _servers_per_topic(values: OptionValues) -> int:
    if not values["use_dynamic_connections"] or values["use_router_proxy"]:
        return 0
    return 1 + int(values["zmq_failover_connections"])


def _acks(values: OptionValues) -> Acks | None:
    if not values["rpc_use_acks"]:
        return None
    return Acks(
        timeout=values["rpc_ack_timeout_base"],
        multiplier=values["rpc_ack_timeout_multiplier"],
        attempts=values["rpc_retry_attempts"],
    )


def _publisher(text: str) -> ProxyEnd:
    """The local publisher that `text`, host:port, names."""
    try:
        endpoint = str(Endpoint.parse(f"tcp://{text.removeprefix('tcp://')}"))
    except ConfigurationError as error:
        raise ConfigurationError("subscribe_on", error.problem) from error
    return ProxyEnd(f"subscribe_on {text}", endpoint)


def _matchmaker_url(url: TransportURL, values: OptionValues) -> MatchmakerURL:
    """`zmq+NAME://…` names its matchmaker; for `zmq://` the option does."""
    _, _, name = url.transport.partition("+")
    return MatchmakerURL.make(
        name or values["rpc_zmq_matchmaker"],
        [Host(host.hostname or "", host.port, host.username, host.password) for host in url.hosts],
        url.virtual_host or "",
        values.others(),
    )


@contextmanager
def naming_the_option() -> Iterator[None]:
    """Let errors of the node name the operator's option rather than our field."""
    try:
        yield
    except ConfigurationError as error:
        raise _translated(error) from error


def _translated(error: ConfigurationError) -> InvalidConfiguration:
    option = _OPTION_OF_FIELD.get(error.option, error.option)
    problem = error.problem
    for field, name in _OPTION_OF_FIELD.items():
        problem = problem.replace(f"{field} ", f"{name} ")
    return InvalidConfiguration(f"[{GROUP}] {option}: {problem}")
