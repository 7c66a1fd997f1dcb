# SPDX-License-Identifier: Apache-2.0
"""No error of redis-py gets out: each becomes one of ours, with the server and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis

from zmq_matchmaker._errors import AccessDenied, Unavailable

__all__ = ["translated"]

_DENIED: Final = re.compile(
    r"NOAUTH|WRONGPASS|NOPERM|invalid (username|password)|AUTH|can't run this command"
    r"|can't access at least one of the keys|ACL failure"
)
_RENAMED: Final = re.compile(r"unknown command .?'?(\w+)|Unknown Redis command", re.IGNORECASE)


@contextmanager
def translated(server: str, timeout: float) -> Iterator[None]:
    """Let what goes wrong with `server` (such as `redis at host:port`) be of our kind."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise _denied(server, error) from error
    except redis.TimeoutError as error:
        raise Unavailable(f"{server} did not answer within {timeout:g} s") from error
    except redis.sentinel.MasterNotFoundError as error:
        # Its text is made of repr()s of clients; so much of it can be read.
        text, _, details = str(error).partition(" : ")
        if "AuthenticationError" in details:
            raise _denied(server, text) from error
        raise Unavailable(
            f"{server} know no master that works ({text}); SENTINEL MASTERS says which groups "
            "they know, and what they think of the master"
        ) from error
    except redis.ConnectionError as error:
        raise Unavailable(f"{server} cannot be reached: {_reason(error)}") from error
    except redis.exceptions.RedisClusterException as error:
        raise Unavailable(f"{server} cannot be reached: {error}") from error
    except redis.RedisError as error:
        raise _refusal(server, error) from error
    except (OSError, UnicodeError) as error:
        # What a host name that is none becomes, depending on what is wrong with it.
        raise Unavailable(f"{server} cannot be reached: {error}") from error


def _refusal(server: str, error: Exception) -> Unavailable:
    if _DENIED.search(str(error)):
        return _denied(server, error)
    advice = ""
    if _RENAMED.search(str(error)):
        advice = "; a command that is needed was renamed or forbidden (rename-command): see ACL in "
        advice += "the matchmaker's documentation for those that are"
    return Unavailable(f"{server} refuses: {error}{advice}")


def _denied(server: str, error: object) -> AccessDenied:
    return AccessDenied(
        f"{server} denies access: {error}; check user and password in the "
        "transport URL, and the user's permissions (ACL) for keys zmq:*"
    )


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    return getattr(cause, "strerror", None) or str(error)
