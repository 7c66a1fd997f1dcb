# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of whatever uses or extends zmq_matchmaker.

`RedisServer` starts a real Redis; `MatchmakerConformance` (in
`zmq_matchmaker.testing.conformance`, which needs pytest) is the contract of a
backend as tests.
"""

from zmq_matchmaker.testing._redis import RedisServer, TLSFiles, find_redis_server

__all__ = ["RedisServer", "TLSFiles", "find_redis_server"]
