# SPDX-License-Identifier: Apache-2.0
"""The zmq proxy daemon: fewer sockets for oslo.messaging over ZeroMQ.

`Proxy` forwards messages by the name of their receiver, with `Settings` from
oslo.config; `zmq_proxy.cmd` is the command around it.
"""

from zmq_proxy._errors import ForwardingFailed, InvalidConfiguration, ProxyError
from zmq_proxy._forwarder import Statistics
from zmq_proxy._options import new_config
from zmq_proxy._proxy import BACKEND, FRONTEND, ROUTERS, Proxy
from zmq_proxy._settings import Settings
from zmq_proxy._version import __version__

__all__ = [
    "BACKEND",
    "FRONTEND",
    "ROUTERS",
    "ForwardingFailed",
    "InvalidConfiguration",
    "Proxy",
    "ProxyError",
    "Settings",
    "Statistics",
    "__version__",
    "new_config",
]
