# SPDX-License-Identifier: Apache-2.0
"""The options that this proxy reads, all of which do something.

Those of `[oslo_messaging_zmq]` have the names, defaults and meanings that they
have in zmq-oslo-driver, since proxy and services read the same files.
"""

from __future__ import annotations

import copy
import enum
from typing import Any, Final

from oslo_config import cfg
from oslo_log import log

from zmq_matchmaker import configuration

__all__ = [
    "GROUP",
    "PROXY_GROUP",
    "Part",
    "command_line_value",
    "list_opts",
    "new_config",
    "shared_value",
    "warn_of_deprecated",
]

GROUP: Final = configuration.GROUP
PROXY_GROUP: Final = "zmq_proxy_opts"


class Part(enum.StrEnum):
    """What a proxy does."""

    ROUTER = "router"
    """Passes messages on to the peer that they name."""
    PUBLISHER = "publisher"
    """Sends messages on to all who have subscribed to them."""
    LOCAL = "local publisher"
    """Subscribes at publishers for a whole node, and publishes there what comes."""


_TRANSPORT_URL: Final = cfg.StrOpt(
    "transport_url",
    secret=True,
    help="The services' transport URL, such as zmq+redis://host:6379/. It tells the matchmaker "
    "with which this proxy registers.",
)

_PROXY_OPTIONS: Final[list[cfg.Opt]] = [
    cfg.StrOpt(
        "host",
        sample_default="<rpc_zmq_bind_address and rpc_zmq_host>",
        help="An IP address or an Ethernet adapter of this host to listen on and to be reached "
        "under, or a host name to be reached under, or '*'.",
    ),
    cfg.PortOpt(
        "frontend_port",
        default=0,
        help="Port that takes messages in. 0: a random one of the range rpc_zmq_min_port to "
        "rpc_zmq_max_port.",
    ),
    cfg.PortOpt(
        "backend_port",
        default=0,
        help="Port from which receivers get their messages. 0: a random one of the same range.",
    ),
    cfg.PortOpt(
        "publisher_port",
        default=0,
        help="Port from which subscribers get what is published. 0: a random one of the same "
        "range; for a local publisher, the one that subscribe_on names.",
    ),
    cfg.PortOpt(
        "publisher_frontend_port",
        default=0,
        help="Port that takes in what is to be published. 0: a random one of the same range.",
    ),
    cfg.StrOpt(
        "role",
        default="both",
        choices=["both", Part.ROUTER, Part.PUBLISHER],
        help="Pass messages on to the peer that they name (router), to all who have subscribed "
        "to them (publisher), or both.",
    ),
    cfg.BoolOpt(
        "local_publisher",
        default=False,
        help="Be neither, but subscribe at the publishers for all services of this node that "
        "name this proxy in subscribe_on.",
    ),
    cfg.StrOpt(
        "url",
        secret=True,
        help="Instead of [DEFAULT] transport_url, if it is not the services'.",
    ),
    cfg.StrOpt(
        "metrics_host",
        default="127.0.0.1",
        help="Address of this host, or its name, on which /metrics (Prometheus) and /healthz are "
        "served, to everybody who can reach it.",
    ),
    cfg.PortOpt(
        "metrics_port",
        default=0,
        help="Port of /metrics and /healthz. 0: they are not served.",
    ),
    cfg.BoolOpt(
        "ack_pub_sub",
        default=False,
        deprecated_for_removal=True,
        deprecated_reason="No acknowledgement is needed: a service knows that its subscriptions "
        "have arrived by a message to itself, and a publisher counts what a subscriber misses. "
        "Accepted so that old files can be read; has no effect.",
        help="No longer used.",
    ),
]

# Their names in the code differ from those on the command line, because [DEFAULT] of a
# service's file may have a `host` of its own, which is not meant for us.
_ON_COMMAND_LINE: Final = {
    "host": "HOST",
    "frontend_port": "PORT",
    "backend_port": "PORT",
    "publisher_port": "PORT",
    "publisher_frontend_port": "PORT",
    "metrics_host": "HOST",
    "metrics_port": "PORT",
    "role": "ROLE",
    "url": "URL",
}
_COMMAND_LINE: Final[list[cfg.Opt]] = [
    *(
        cfg.StrOpt(
            option.dest.replace("_", "-"),
            dest=f"zmq_proxy_{option.dest}",
            metavar=_ON_COMMAND_LINE[option.dest],
            secret=option.secret,
            help=option.help,
        )
        for option in _PROXY_OPTIONS
        if option.dest in _ON_COMMAND_LINE
    ),
    cfg.BoolOpt(
        "local-publisher",
        dest="zmq_proxy_local_publisher",
        help="Subscribe at the publishers for all services of this node that name this proxy in "
        "subscribe_on, and do nothing else.",
    ),
]

_SHARED_OPTIONS: Final[list[cfg.Opt]] = [
    *configuration.OPTIONS,
    cfg.StrOpt("rpc_zmq_host", help="Name or address under which other hosts reach this one."),
    cfg.StrOpt(
        "rpc_zmq_bind_address",
        default="*",
        help="Where to listen: '*', an IPv4 or IPv6 address, or the name of an Ethernet adapter.",
    ),
    cfg.IntOpt(
        "rpc_zmq_min_port", default=49153, min=1, max=65535, help="First port of the range."
    ),
    cfg.IntOpt(
        "rpc_zmq_max_port", default=65536, min=2, max=65536, help="End of the range, exclusive."
    ),
    cfg.IntOpt(
        "rpc_zmq_bind_port_retries",
        default=100,
        min=1,
        help="How many ports of the range are tried before 'ports range exceeded'.",
    ),
    cfg.IntOpt("rpc_zmq_contexts", default=1, min=1, help="I/O threads of libzmq."),
    cfg.BoolOpt(
        "use_router_proxy",
        default=False,
        help="Whether services with this configuration use router proxies; if not, the proxy "
        "says so when it starts.",
    ),
    cfg.BoolOpt(
        "use_pub_sub",
        default=True,
        help="Whether services with this configuration use publishers; if not, the proxy says "
        "so when it starts.",
    ),
    cfg.ListOpt(
        "subscribe_on",
        default=[],
        help="Where services with this configuration subscribe, host:port, instead of at the "
        "publishers: at the local publisher of their node.",
    ),
    cfg.FloatOpt(
        "zmq_linger",
        default=5.0,
        min=0,
        max=3600,
        help="Seconds within which what is inside is passed on when the proxy stops.",
    ),
    cfg.IntOpt(
        "zmq_tcp_keepalive",
        default=1,
        choices=[-1, 0, 1],
        help="TCP keepalive: 1 on, 0 off, -1 system.",
    ),
    cfg.IntOpt(
        "zmq_tcp_keepalive_idle",
        default=-1,
        help="Seconds before the first probe; -1: as heartbeats.",
    ),
    cfg.IntOpt(
        "zmq_tcp_keepalive_cnt",
        default=-1,
        help="Unanswered probes that end a connection; -1: as the system.",
    ),
    cfg.IntOpt(
        "zmq_tcp_keepalive_intvl", default=-1, help="Seconds between probes; -1: as heartbeats."
    ),
    cfg.FloatOpt(
        "zmq_heartbeat_interval",
        default=1.0,
        min=0.05,
        max=3600,
        help="Seconds between TCP keepalive probes, unless zmq_tcp_keepalive_intvl says otherwise.",
    ),
    cfg.FloatOpt(
        "zmq_heartbeat_timeout",
        default=3.0,
        min=0.05,
        max=3600,
        help="With zmq_heartbeat_interval added: seconds after which a connection ends whose peer "
        "acknowledges nothing, and before the first keepalive probe on an idle one.",
    ),
    cfg.FloatOpt(
        "zmq_connect_timeout",
        default=5.0,
        min=0.05,
        max=3600,
        help="Seconds for a new connection to speak ZMTP before it is cut.",
    ),
    cfg.IntOpt(
        "zmq_max_message_size",
        default=256 * 2**20,
        min=2**16,
        help="Largest message in bytes; must be the same everywhere.",
    ),
]


def new_config() -> cfg.ConfigOpts:
    """A ConfigOpts that knows the options of the proxy and of oslo.log, not parsed yet."""
    conf = cfg.ConfigOpts()
    conf.register_opt(_TRANSPORT_URL)
    conf.register_cli_opts(_COMMAND_LINE)
    conf.register_opts(_PROXY_OPTIONS, group=PROXY_GROUP)
    conf.register_opts(_SHARED_OPTIONS, group=GROUP)
    configuration.register(conf)
    log.register_options(conf)
    return conf


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For `oslo-config-generator`: those that are not the driver's as well."""
    return [(PROXY_GROUP, copy.deepcopy(_PROXY_OPTIONS))]


def warn_of_deprecated(conf: cfg.ConfigOpts) -> None:
    """Have the log say which options are set that have no effect any more."""
    configuration.warn_of_deprecated(conf[PROXY_GROUP], _PROXY_OPTIONS)


def command_line_value(conf: cfg.ConfigOpts, name: str) -> Any:
    """What the command line says of `[zmq_proxy_opts]` `name`; None if nothing.

    :raises ValueError: it is not of the option's type.
    """
    value = conf[f"zmq_proxy_{name}"]
    return _BY_NAME[name].type(value) if isinstance(value, str) else value


def shared_value(name: str, text: str) -> Any:
    """`text`, from the query of the URL, as a value of `[oslo_messaging_zmq]` `name`.

    :raises ValueError: it is not of the option's type.
    """
    return _SHARED_BY_NAME[name].type(text)


_BY_NAME: Final = {option.dest: option for option in _PROXY_OPTIONS}
_SHARED_BY_NAME: Final = {option.dest: option for option in _SHARED_OPTIONS}
