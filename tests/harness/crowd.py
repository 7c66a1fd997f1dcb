# SPDX-License-Identifier: Apache-2.0
"""Many services in one process, each with a node, a port and connections of its own.

Started as `python -m harness.crowd CONFIG` (JSON, see `CrowdConfig`); says that it is
ready, and ends when it gets SIGTERM.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import urllib.parse
from typing import Any

import msgspec
import oslo_messaging
from oslo_config import cfg

from harness.asked import AskedToEnd
from harness.traffic import at_once


class CrowdConfig(msgspec.Struct):
    """What a crowd consists of."""

    url: str
    topic: str
    names: list[str]
    """Of the servers."""


class Endpoint:
    """What each of them does."""

    def __init__(self, name: str) -> None:
        self._name = name

    def whoami(self, ctxt: dict[str, Any]) -> str:
        return self._name


class Member:
    """One server, on a transport with settings that no other has, so that it shares no node."""

    def __init__(self, config: CrowdConfig, number: int) -> None:
        name = config.names[number]
        own = {
            "rpc_zmq_bind_address": "127.0.0.1",
            "use_pub_sub": "false",
            "zmq_max_message_size": str(2**20 + number),
        }
        url = f"{config.url}?{urllib.parse.urlencode(own)}"
        self.transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
        target = oslo_messaging.Target(topic=config.topic, server=name)
        self.server = oslo_messaging.get_rpc_server(
            self.transport, target, [Endpoint(name)], executor="threading"
        )
        self.server.start(override_pool_size=1)

    def stop(self) -> None:
        self.server.stop()
        self.server.wait()
        self.transport.cleanup()


def allow_descriptors() -> None:
    """A member has eleven, and a host may allow a process 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    allow_descriptors()
    config = msgspec.json.decode(sys.argv[1].encode(), type=CrowdConfig)
    logging.basicConfig(level="ERROR", stream=sys.stderr)
    cfg.CONF([], project="harness", default_config_files=[], default_config_dirs=[])
    asked = AskedToEnd()
    members = [Member(config, number) for number in range(len(config.names))]
    print(json.dumps({"ready": True}), flush=True)
    asked.wait()
    at_once(member.stop for member in members)
    print(json.dumps({"stopped": True}), flush=True)


if __name__ == "__main__":
    main()
