# SPDX-License-Identifier: Apache-2.0
"""The table: each option, its observable effect, and what shows it at one value and at another.

Values are as an operator writes them.  Of `[oslo_messaging_zmq]` the first stands in the
file; each other one in the query of the transport URL, with the first in the file, which
it outweighs.  Of `[zmq_proxy_opts]` the others stand on the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.options import finding, messages, proxies, redis, sockets, tls
from harness.options.bench import Bench
from harness.options.rows import PROXY, REDIS, ZMQ, Between, Row
from zmq_matchmaker import Role

__all__ = ["TABLE"]

Look = Callable[[Bench], Any]
Cases = Mapping[str, Any]


def _zmq(option: str, effect: str, look: Look, cases: Cases, *, alone: bool = False) -> Row:
    return Row(ZMQ, option, effect, look, cases, alone)


def _redis(option: str, effect: str, look: Look, cases: Cases) -> Row:
    return Row(REDIS, option, effect, look, cases)


def _proxy(option: str, effect: str, look: Look, cases: Cases) -> Row:
    return Row(PROXY, option, effect, look, cases, alone=True)


def _deprecated(group: str, option: str, value: str) -> Row:
    return Row(group, option, "the log says that it has none, and why", None, {value: None})


_IDLE, _INTERVAL, _PROBES = (sockets.system(name) for name in ("time", "intvl", "probes"))

_ADDRESSES: Final = [
    _zmq("rpc_zmq_host", "the host in the records of a server", sockets.host_registered,
         {"127.0.0.1": "127.0.0.1", "here.example": "here.example"}),
    _zmq("rpc_zmq_bind_address", "the address on which a server listens", sockets.address_bound,
         {"127.0.0.1": "127.0.0.1", "127.0.0.2": "127.0.0.2", "lo": "127.0.0.1", "*": "*"}),
    _zmq("rpc_zmq_min_port", "the first port that a server takes", sockets.usable_ports,
         {"{port0}": [0, 1, 2], "{port1}": [1, 2]}),
    _zmq("rpc_zmq_max_port", "the first port that a server does not take", sockets.usable_ports,
         {"{port3}": [0, 1, 2], "{port2}": [0, 1]}),
    _zmq("rpc_zmq_bind_port_retries", "ports tried until 'ports range exceeded'",
         sockets.ports_tried, {"1": 1, "3": 3, "100": 4}),
    _zmq("rpc_zmq_contexts", "I/O threads of libzmq", sockets.threads_of_libzmq, {"1": 1, "3": 3},
         alone=True),
]  # fmt: skip

_CONNECTIONS: Final = [
    _zmq("zmq_tcp_keepalive", "SO_KEEPALIVE at both ends of a connection", sockets.keepalives,
         {"1": (1, 1), "0": (0, 0), "-1": (0, 0)}),
    _zmq("zmq_tcp_keepalive_idle", "TCP_KEEPIDLE at both ends", sockets.keepalive_idles,
         {"-1": (_IDLE, sockets.HEARTBEATS), "77": (77, 77)}),
    _zmq("zmq_tcp_keepalive_cnt", "TCP_KEEPCNT at both ends", sockets.keepalive_counts,
         {"-1": (_PROBES, _PROBES), "5": (5, 5)}),
    _zmq("zmq_tcp_keepalive_intvl", "TCP_KEEPINTVL at both ends", sockets.keepalive_intervals,
         {"-1": (_INTERVAL, 1), "33": (33, 33)}),
    _zmq("zmq_heartbeat_interval", "seconds until a silent server is lost",
         sockets.seconds_to_death, {"0.1": Between(0.3, 0.8), "1": Between(1, 2)}),
    _zmq("zmq_heartbeat_timeout", "seconds until a silent server is lost",
         sockets.seconds_to_death, {"0.2": Between(0.2, 0.7), "1": Between(1, 2)}),
    _zmq("zmq_connect_timeout", "seconds until a server that does not shake hands is given up",
         sockets.seconds_to_give_up_a_connection, {"0.2": Between(0.2, 0.8), "1": Between(1, 2)}),
    _zmq("zmq_immediate", "a cast is not taken for a connection that does not exist yet",
         sockets.sends_into_the_dark, {"true": False, "false": True}),
    _zmq("zmq_linger", "seconds that cleanup() waits for messages that nobody takes",
         sockets.seconds_to_close, {"0.2": Between(0.15, 0.7), "1": Between(0.9, 2)}),
    _zmq("use_dynamic_connections", "an idle connection is closed",
         sockets.is_closed_when_idle, {"true": True, "false": False}),
    _zmq("zmq_idle_timeout", "when an idle connection is closed",
         sockets.is_closed_when_idle, {"1": True, "3600": False}),
    _zmq("zmq_failover_connections", "how many of four servers a client uses",
         sockets.servers_used, {"2": 3, "0": 1, "1": 2}),
    _zmq("zmq_max_connections", "how many of four connections a client keeps",
         sockets.connections_kept, {"100": 4, "2": 2}),
]  # fmt: skip

_MESSAGES: Final = [
    _zmq("rpc_zmq_serialization", "the serializer in the header, and the octets after it",
         messages.way_of_writing, {"json": ("JSON", b"["), "msgpack": ("MSGPACK", b"\x93")}),
    _zmq("zmq_max_message_size", "a call of 100 kB is refused, and the error names the option",
         messages.takes_100_kilobytes, {"65536": "refused", "200000": "answered"}),
    _zmq("rpc_zmq_topic_backlog", "casts accepted by a server, beyond the one being worked on",
         messages.casts_accepted, {"1": 2, "3": 4}),
    _zmq("zmq_send_timeout", "seconds until a cast to nobody fails",
         messages.seconds_for_a_cast_to_nobody, {"0.1": Between(0.1, 0.6), "0.8": Between(0.8, 2)}),
    _zmq("zmq_notify_timeout", "seconds until a notification is dropped",
         messages.seconds_for_a_notification, {"0.1": Between(0.1, 0.6), "0.8": Between(0.8, 2)}),
    _zmq("rpc_use_acks", "a cast asks for an acknowledgement, and fails without",
         messages.wants_an_acknowledgement, {"false": (False, True), "true": (True, False)}),
    _zmq("rpc_ack_timeout_base", "seconds until a cast is sent again",
         messages.seconds_to_the_second_copy, {"0.1": Between(0.1, 0.5), "0.8": Between(0.8, 2)}),
    _zmq("rpc_ack_timeout_multiplier", "seconds by which the second wait is longer than the first",
         messages.growth_of_the_pause, {"1": Between(-0.2, 0.3), "8": Between(1.2, 2)}),
    _zmq("rpc_retry_attempts", "copies of a cast that nobody acknowledges, beyond the first",
         messages.copies_sent, {"0": 1, "2": 3}),
    _zmq("rpc_message_ttl", "how often a message is executed that comes again after 0.5 s",
         messages.runs_of_a_repeated_message, {"300": 1, "0.3": 2}),
]  # fmt: skip

_FINDING: Final = [
    _zmq("rpc_zmq_matchmaker", "where a server with the URL zmq:// is registered",
         finding.matchmaker_of_a_url_without, {"dummy": "in the process", "file": "in the folder"}),
    _zmq("zmq_target_expire", "seconds that a record has to live in Redis",
         finding.seconds_to_live, {"120": Between(115, 120), "30": Between(25, 30), "0": math.inf}),
    _zmq("zmq_target_update", "a record is refreshed within 1.8 seconds",
         finding.refreshes, {"1": True, "60": False}),
    _zmq("zmq_nack_pause", "seconds until a host that did not answer is tried again",
         finding.first_pause_of_a_dead_host, {"0.1": Between(0.1, 0.4), "0.8": Between(0.8, 1.5)}),
    _zmq("zmq_nack_pause_max", "seconds until it is tried again after it failed four times",
         finding.fourth_pause_of_a_dead_host, {"0.1": Between(0.1, 0.3), "10": Between(0.8, 1.5)}),
    _zmq("use_router_proxy", "calls make no connection from client to server",
         finding.goes_directly, {"false": True, "true": False}),
    _zmq("use_pub_sub", "a server subscribes",
         finding.publishers_subscribed_at, {"true": [0], "false": []}),
    _zmq("subscribe_on", "at which publishers a server subscribes",
         finding.publishers_subscribed_at,
         {"127.0.0.1:{port0}": [0], "127.0.0.1:{port1}": [1],
          "127.0.0.1:{port0},127.0.0.1:{port1}": [0, 1]}),
]  # fmt: skip

_REDIS: Final = [
    _redis("host", "which host it asks", redis.hosts_asked,
           {"127.0.0.1": ["127.0.0.1"], "127.0.0.2": ["127.0.0.2"]}),
    _redis("port", "at which port it asks", redis.ports_asked, {"{port0}": [0], "{port1}": [1]}),
    _redis("username", "the user in CLIENT LIST", redis.user,
           {"nova": {"nova"}, "glance": {"glance"}}),
    _redis("password", "Redis lets it in", redis.is_admitted, {"secret": True, "wrong": False}),
    _redis("db", "the database in CLIENT LIST", redis.database, {"0": {0}, "3": {3}}),
    _redis("sentinel_hosts", "whose master it asks", redis.sentinels_asked,
           {"{sentinel0}": [0], "{sentinel1}": [1]}),
    _redis("sentinel_group_name", "which of the masters of a Sentinel it asks",
           redis.which_master, {"one": "one", "other": "other"}),
    _redis("socket_timeout", "seconds that it waits for an answer", redis.seconds_of_patience,
           {"100": Between(0.1, 0.4), "1000": Between(1, 1.5)}),
    _redis("wait_timeout", "the usual pause between attempts to reach a Redis that is down",
           redis.usual_pause, {"100": Between(0.03, 0.3), "700": Between(0.33, 1)}),
    _redis("ssl", "the first octet that Redis hears", tls.is_encrypted,
           {"false": False, "true": True}),
    _redis("ssl_cafile", "it trusts a server of that authority", tls.trusts,
           {"{folder}/ca.pem": True, "{folder}/stranger.pem": False}),
    _redis("ssl_check_hostname", "it refuses a server with another host's certificate",
           tls.trusts_another_host, {"true": False, "false": True}),
    _redis("ssl_certfile", "whose certificate the server is shown", tls.certificate_shown,
           {"{folder}/client.pair": "client", "{folder}/own.pair": "own"}),
    _redis("ssl_keyfile", "it works with the key of its certificate, and with no other",
           tls.certificate_shown,
           {"{folder}/client.key": "client", "{folder}/stranger.key": "no handshake"}),
]  # fmt: skip

_BOTH: Final = {Role.ROUTER, Role.PUBLISHER}
_PROXY: Final = [
    _proxy("host", "the address that it listens on and is found under", proxies.addresses,
           {"127.0.0.1": ({"127.0.0.1"}, {"127.0.0.1"}),
            "127.0.0.2": ({"127.0.0.2"}, {"127.0.0.2"}),
            "lo": ({"127.0.0.1"}, {"127.0.0.1"})}),
    _proxy("frontend_port", "where it takes messages in", proxies.port_of_frontend,
           {"{port0}": "{port0}", "{port1}": "{port1}"}),
    _proxy("backend_port", "where it gives them out", proxies.port_of_backend,
           {"{port0}": "{port0}", "{port1}": "{port1}"}),
    _proxy("publisher_port", "where services subscribe", proxies.port_of_publisher,
           {"{port0}": "{port0}", "{port1}": "{port1}"}),
    _proxy("publisher_frontend_port", "where it takes in what is to be published",
           proxies.port_of_publisher_frontend, {"{port0}": "{port0}", "{port1}": "{port1}"}),
    _proxy("role", "as what it is found", proxies.roles,
           {"both": _BOTH, "router": {Role.ROUTER}, "publisher": {Role.PUBLISHER}}),
    _proxy("local_publisher", "it is found by nobody, and listens where subscribe_on says",
           proxies.what_a_local_publisher_opens,
           {"false": (_BOTH, False, 4), "true": (set(), True, 1)}),
    _proxy("url", "in which registry it is found", proxies.registries,
           {"zmq+file://{folder}/registry/": ["registry"],
            "zmq+file://{folder}/other/": ["other"]}),
    _proxy("metrics_host", "where /healthz is answered", proxies.address_of_metrics,
           {"127.0.0.1": ["127.0.0.1"], "127.0.0.2": ["127.0.0.2"]}),
    _proxy("metrics_port", "at which port /healthz is answered", proxies.port_of_metrics,
           {"0": [], "{port0}": [0], "{port1}": [1]}),
]  # fmt: skip

_DEPRECATED: Final = [
    _deprecated(ZMQ, "rpc_poll_timeout", "3"),
    _deprecated(ZMQ, "rpc_thread_pool_size", "50"),
    _deprecated(ZMQ, "rpc_zmq_ipc_dir", "/var/run/openstack"),
    _deprecated(REDIS, "check_timeout", "10000"),
    _deprecated(PROXY, "ack_pub_sub", "true"),
]

TABLE: Final[list[Row]] = [
    *_ADDRESSES, *_CONNECTIONS, *_MESSAGES, *_FINDING, *_REDIS, *_PROXY, *_DEPRECATED,
]  # fmt: skip
