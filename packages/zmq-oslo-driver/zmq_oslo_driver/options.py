# SPDX-License-Identifier: Apache-2.0
"""The options of `[oslo_messaging_zmq]` and `[matchmaker_redis]`, and how they become settings.

One of the former may also stand in the query of the transport URL, which wins:
`zmq+redis://host/?rpc_zmq_bind_address=eth1`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any, Final

from oslo_config import cfg, types

from zmq_matchmaker import configuration

__all__ = ["GROUP", "OPTIONS", "OptionValues", "list_opts", "register"]

LOG = logging.getLogger(__name__)

GROUP: Final = configuration.GROUP

_NO_LONGER: Final = "Accepted so that old files can be read; has no effect."

OPTIONS: Final[list[cfg.Opt]] = [
    *configuration.OPTIONS,
    cfg.StrOpt(
        "rpc_zmq_host",
        sample_default="<this host's name, or the bound address>",
        help="Name or address under which other hosts reach this one. Needed where the host name "
        "does not resolve elsewhere.",
    ),
    cfg.StrOpt(
        "rpc_zmq_bind_address",
        default="*",
        help="Where to listen: '*', an IPv4 or IPv6 address, or the name of an Ethernet adapter.",
    ),
    cfg.IntOpt(
        "rpc_zmq_min_port",
        default=49153,
        min=1,
        max=65535,
        help="First port of the range to listen in; one port is used per process.",
    ),
    cfg.IntOpt(
        "rpc_zmq_max_port",
        default=65536,
        min=2,
        max=65536,
        help="End of the port range, exclusive.",
    ),
    cfg.IntOpt(
        "rpc_zmq_bind_port_retries",
        default=100,
        min=1,
        help="How many ports of the range are tried before 'ports range exceeded'.",
    ),
    cfg.StrOpt(
        "rpc_zmq_serialization",
        default="json",
        choices=["json", "msgpack"],
        help="How messages are written. Either end reads both, so that it can be changed "
        "service by service.",
    ),
    cfg.IntOpt(
        "rpc_zmq_topic_backlog",
        default=1000,
        min=1,
        help="Messages that a server holds for handlers that are all busy. When there are "
        "more, it stops reading and the senders wait.",
    ),
    cfg.IntOpt(
        "rpc_zmq_contexts",
        default=1,
        min=1,
        help="I/O threads of libzmq in each process.",
    ),
    cfg.FloatOpt(
        "zmq_linger",
        default=5.0,
        min=0,
        max=3600,
        help="Seconds for which messages that are not sent yet are kept when a process ends.",
    ),
    cfg.BoolOpt(
        "zmq_immediate",
        default=True,
        help="Queue messages for established connections only. Without it, messages for a "
        "server that cannot be reached may be lost.",
    ),
    cfg.IntOpt(
        "zmq_tcp_keepalive",
        default=1,
        choices=[-1, 0, 1],
        help="TCP keepalive: 1 on, 0 off, -1 as the system has it.",
    ),
    cfg.IntOpt(
        "zmq_tcp_keepalive_idle",
        default=-1,
        help="Seconds before the first TCP keepalive probe. -1: as the system has it; on "
        "connections that others make to this process, and on those from which a proxy's "
        "messages come, zmq_heartbeat_interval + zmq_heartbeat_timeout.",
    ),
    cfg.IntOpt(
        "zmq_tcp_keepalive_cnt",
        default=-1,
        help="Unanswered TCP keepalive probes that end a connection; -1 as the system has it.",
    ),
    cfg.IntOpt(
        "zmq_tcp_keepalive_intvl",
        default=-1,
        help="Seconds between TCP keepalive probes. -1: as the system has it; on connections "
        "that others make to this process, and on those from which a proxy's messages come, "
        "zmq_heartbeat_interval.",
    ),
    cfg.FloatOpt(
        "zmq_heartbeat_interval",
        default=1.0,
        min=0.05,
        max=3600,
        help="Seconds between heartbeats on a connection.",
    ),
    cfg.FloatOpt(
        "zmq_heartbeat_timeout",
        default=3.0,
        min=0.05,
        max=3600,
        help="Seconds without an answer to a heartbeat after which the peer counts as dead.",
    ),
    cfg.FloatOpt(
        "zmq_connect_timeout",
        default=5.0,
        min=0.05,
        max=3600,
        help="Seconds for a TCP connection to be made, and again for its handshake, before a "
        "server counts as out of reach. Where there are others, none is waited for longer than "
        "a second.",
    ),
    cfg.FloatOpt(
        "zmq_send_timeout",
        default=30.0,
        min=0,
        max=86400,
        help="Seconds for which a cast waits for somebody to listen and for room in its queue, "
        "before MessageDeliveryFailure.",
    ),
    cfg.FloatOpt(
        "zmq_notify_timeout",
        default=1.0,
        min=0,
        max=86400,
        help="The same for a notification, which is then counted, logged and dropped: "
        "notifications do not stop a service.",
    ),
    cfg.BoolOpt(
        "rpc_use_acks",
        default=False,
        help="A cast returns when its server has acknowledged it, and is sent again, also to "
        "others, when that does not come; a call that is lost with a proxy is sent again to "
        "its server. Each server executes a message once, however often it comes.",
    ),
    cfg.FloatOpt(
        "rpc_ack_timeout_base",
        default=15.0,
        min=0.05,
        max=3600,
        help="With rpc_use_acks: seconds to wait for the acknowledgement of a cast.",
    ),
    cfg.FloatOpt(
        "rpc_ack_timeout_multiplier",
        default=2.0,
        min=1,
        max=100,
        help="By which that time is multiplied for each further attempt.",
    ),
    cfg.IntOpt(
        "rpc_retry_attempts",
        default=3,
        min=0,
        help="With rpc_use_acks: how often a cast that is not acknowledged is sent again, within "
        "zmq_send_timeout in all.",
    ),
    cfg.FloatOpt(
        "rpc_message_ttl",
        default=300.0,
        min=0,
        max=86400,
        help="Seconds for which a server remembers messages that may come again, so as not to "
        "execute them again.",
    ),
    cfg.BoolOpt(
        "use_dynamic_connections",
        default=False,
        help="Have few direct connections: to some servers of a topic only, and none that are not "
        "used. Has no effect with use_router_proxy.",
    ),
    cfg.IntOpt(
        "zmq_failover_connections",
        default=2,
        min=0,
        max=1000,
        help="With use_dynamic_connections: a process sends what any server of a topic may take to "
        "so many servers and one more, each process to others; to the rest of them only while none "
        "of these takes it.",
    ),
    cfg.IntOpt(
        "zmq_max_connections",
        default=100,
        min=1,
        max=100000,
        help="With use_dynamic_connections: direct connections of a process above which the least "
        "recently used ones are closed, unless something is under way on them. Each takes four "
        "file descriptors.",
    ),
    cfg.FloatOpt(
        "zmq_idle_timeout",
        default=60.0,
        min=1,
        max=86400,
        help="With use_dynamic_connections: seconds without a message after which a connection "
        "is closed.",
    ),
    cfg.BoolOpt(
        "use_router_proxy",
        default=False,
        help="Send and receive through the zmq-proxy processes that are registered, so that a "
        "process is connected to these only. Must be the same in all services that talk to "
        "each other.",
    ),
    cfg.BoolOpt(
        "use_pub_sub",
        default=True,
        help="Send a fanout once, to one of the publishers (zmq-proxy) that are registered, "
        "and subscribe at all of them. A service without it is sent a copy of its own; without "
        "any publisher all services are, with one warning.",
    ),
    cfg.ListOpt(
        "subscribe_on",
        default=[],
        help="Subscribe at these publishers, host:port, instead of at those that are "
        "registered: at the local publisher of this node, such as 127.0.0.1:9503.",
    ),
    cfg.IntOpt(
        "zmq_max_message_size",
        default=256 * 2**20,
        min=2**16,
        help="Largest message in bytes; must be the same everywhere.",
    ),
    cfg.IntOpt(
        "rpc_poll_timeout",
        default=1,
        deprecated_for_removal=True,
        deprecated_reason=f"Nothing polls: threads wait on descriptors. {_NO_LONGER}",
        help="No longer used.",
    ),
    cfg.IntOpt(
        "rpc_thread_pool_size",
        default=100,
        deprecated_for_removal=True,
        deprecated_reason="Handlers run on the threads of oslo.messaging's executor, whose number "
        f"is executor_thread_pool_size in [DEFAULT]. {_NO_LONGER}",
        help="No longer used.",
    ),
    cfg.StrOpt(
        "rpc_zmq_ipc_dir",
        deprecated_for_removal=True,
        deprecated_reason=f"There is no local broker to reach over IPC any more. {_NO_LONGER}",
        help="No longer used.",
    ),
]


def register(conf: cfg.ConfigOpts) -> None:
    """Make the options known to `conf`; harmless if they are."""
    conf.register_opts(OPTIONS, group=GROUP)
    configuration.register(conf)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For `oslo-config-generator --namespace oslo.messaging.zmq`."""
    groups = {GROUP: OPTIONS, configuration.REDIS_GROUP: configuration.REDIS_OPTIONS}
    return [(name, copy.deepcopy(options)) for name, options in groups.items()]


class OptionValues:
    """The options' values: from the URL's query where they stand there, else from `conf`."""

    def __init__(self, conf: cfg.ConfigOpts, query: Mapping[str, str]) -> None:
        register(conf)
        self._group = conf[GROUP]
        self._query = query

    def __getitem__(self, name: str) -> Any:
        """The value of option `name`.

        :raises ValueError: the query holds a value that is not of the option's type.
        """
        if name not in self._query:
            return self._group[name]
        option_type: types.ConfigType = _BY_NAME[name].type
        try:
            return option_type(self._query[name])
        except ValueError as error:
            raise ValueError(f"{name} in the query: {error}") from error

    def warn_of_deprecated(self) -> None:
        """Have the log say which options are set that have no effect any more.

        :raises ValueError: one has a value that is not of its type.
        """
        configuration.warn_of_deprecated(self._group, OPTIONS)
        for option in OPTIONS:
            if option.deprecated_for_removal and option.dest in self._query:
                LOG.warning(
                    "%s in the query of the transport URL is deprecated: %s",
                    option.dest,
                    option.deprecated_reason,
                )

    def others(self) -> dict[str, str]:
        """What stands in the query and is no option of ours: the matchmaker's settings."""
        return {name: value for name, value in self._query.items() if name not in _BY_NAME}


_BY_NAME: Final = {option.name: option for option in OPTIONS}
