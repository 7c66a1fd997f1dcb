# SPDX-License-Identifier: Apache-2.0
"""What this driver raises beyond oslo.messaging's own exceptions.

Each derives from the exception that a service already handles, so that no
service must know about this driver: what may have been executed is a
`MessagingTimeout`, what surely was not delivered a `MessageDeliveryFailure`.
"""

from oslo_messaging import MessageDeliveryFailure, MessagingException, MessagingTimeout

__all__ = [
    "CleanedUp",
    "InvalidConfiguration",
    "SerializationError",
    "ServerLost",
    "UnreadableMessage",
    "ZmqDriverError",
]


class ZmqDriverError(MessagingException):
    """Root of the errors that only this driver raises."""


class InvalidConfiguration(ZmqDriverError, ValueError):
    """An option or a part of the transport URL cannot work; the message names it."""


class SerializationError(ZmqDriverError, ValueError):
    """A message or a reply holds something that the serialiser cannot write."""


class UnreadableMessage(ZmqDriverError, ValueError):
    """The body of a message that came in cannot be read."""


class ServerLost(ZmqDriverError, MessagingTimeout):
    """The server that held the call died, or its connection did, before it answered.

    Raised as soon as that is noticed.  The call may or may not have been
    executed, as with every `MessagingTimeout`.
    """


class CleanedUp(ZmqDriverError, MessageDeliveryFailure):
    """The transport was used after its `cleanup()`."""
