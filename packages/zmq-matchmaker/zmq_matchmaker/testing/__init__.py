# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of whatever uses or extends zmq_matchmaker.

`RedisServer` starts a real Redis, `RedisSentinels` and `RedisClusterServers` several that belong
together, `Relay` stands in front of one and spoils its connections; `MatchmakerConformance` (in
`zmq_matchmaker.testing.conformance`, which needs pytest) is the contract of a
backend as tests.
"""

from zmq_matchmaker.testing._redis import RedisServer, TLSFiles, find_redis_server
from zmq_matchmaker.testing._relay import Relay
from zmq_matchmaker.testing._topologies import RedisClusterServers, RedisSentinels

__all__ = [
    "RedisClusterServers",
    "RedisSentinels",
    "RedisServer",
    "Relay",
    "TLSFiles",
    "find_redis_server",
]
