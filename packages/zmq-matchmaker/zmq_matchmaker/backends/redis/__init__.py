# SPDX-License-Identifier: Apache-2.0
"""`redis` and `sentinel`: a Redis, one behind Sentinels, a cluster, or several independent ones."""

from zmq_matchmaker.backends.redis._matchmaker import RedisMatchmaker
from zmq_matchmaker.backends.redis._settings import PREFIX, SETTINGS

__all__ = ["PREFIX", "SETTINGS", "RedisMatchmaker"]
