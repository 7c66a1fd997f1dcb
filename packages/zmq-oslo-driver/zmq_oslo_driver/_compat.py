# SPDX-License-Identifier: Apache-2.0
"""The one place that touches what oslo.messaging calls private.

Drivers live in `oslo_messaging._drivers` by that project's own arrangement, so
one outside its tree has no other way.  Supported: 14.9 to 18.x, tested against
the newest.
"""

from oslo_messaging._drivers.base import (
    BaseDriver,
    Listener,
    RpcIncomingMessage,
    TransportDriverError,
)
from oslo_messaging._drivers.common import (
    deserialize_remote_exception,
    serialize_remote_exception,
)

__all__ = [
    "BaseDriver",
    "Listener",
    "RpcIncomingMessage",
    "TransportDriverError",
    "deserialize_remote_exception",
    "serialize_remote_exception",
]
