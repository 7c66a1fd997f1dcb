# SPDX-License-Identifier: Apache-2.0
"""The contract of a backend."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from zmq_matchmaker._model import Entry, Key, Record
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["Changed", "Characteristics", "Matchmaker", "Watch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Characteristics:
    """What a backend can do; the documentation's table is made of these."""

    shared_across_processes: bool = False
    shared_across_hosts: bool = False
    persistent: bool = False
    """Records outlive the processes that made them."""
    forgetful: bool = False
    """All records may be lost at once, when a server restarts empty."""
    expiry: bool = False
    """Records of processes that died go away by themselves."""
    push: bool = False
    """Changes are reported by `watch`."""
    writable: bool = True
    """Records are made by `register`; otherwise an operator keeps them."""


Changed = Callable[[Key | None], None]
"""Told that a key's records changed; None: any may have."""


class Watch(abc.ABC):
    """A running `Matchmaker.watch`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Report nothing more.  Idempotent."""


class Matchmaker(abc.ABC):
    """A backend: who listens where, kept somewhere.

    Loaded by stevedore from `oslo.messaging.zmq.matchmaker` under its URL's
    scheme.  Making one connects to nothing and starts no thread; it checks the URL
    and raises `InvalidURL`.  All methods are thread-safe, block for a bounded time
    only, and raise `Unavailable` for whatever may be over later.
    """

    characteristics: ClassVar[Characteristics]

    def __init__(self, url: MatchmakerURL) -> None:
        self.url = url

    @abc.abstractmethod
    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Make the entries known for `ttl` seconds (None: for ever), in one round trip.

        Repeating it is how they stay known.
        """

    @abc.abstractmethod
    def unregister(self, entries: Sequence[Entry]) -> None:
        """Forget the entries, in one round trip; those that are not known do not matter."""

    @abc.abstractmethod
    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """The live records of each key, sorted, in one round trip for all keys."""

    def watch(self, changed: Changed) -> Watch | None:
        """Call `changed` about every change from now on; None if the backend cannot."""
        return None

    def close(self) -> None:
        """Release everything.  Idempotent.  A backend that holds nothing inherits this."""
        return
