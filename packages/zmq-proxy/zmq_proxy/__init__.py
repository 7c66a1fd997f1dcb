# SPDX-License-Identifier: Apache-2.0
"""The zmq proxy daemon: fewer sockets for oslo.messaging over ZeroMQ.

`Proxy` forwards messages to the receiver that they name, or to all who have
subscribed to them, with `Settings` from oslo.config; `zmq_proxy.cmd` is the command
around it.
"""

from zmq_proxy._errors import ForwardingFailed, InvalidConfiguration, ProxyError
from zmq_proxy._local import LocalStatistics
from zmq_proxy._options import Part, new_config
from zmq_proxy._proxy import BACKEND, FRONTEND, PUBLISHERS, ROUTERS, Proxy, Statistics
from zmq_proxy._publisher import PublisherStatistics
from zmq_proxy._router import RouterStatistics
from zmq_proxy._settings import Settings
from zmq_proxy._version import __version__

__all__ = [
    "BACKEND",
    "FRONTEND",
    "PUBLISHERS",
    "ROUTERS",
    "ForwardingFailed",
    "InvalidConfiguration",
    "LocalStatistics",
    "Part",
    "Proxy",
    "ProxyError",
    "PublisherStatistics",
    "RouterStatistics",
    "Settings",
    "Statistics",
    "__version__",
    "new_config",
]
