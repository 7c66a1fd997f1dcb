# SPDX-License-Identifier: Apache-2.0
"""The contract of a backend.

Three methods are enough for one that works: `register`, `unregister`, `lookup`.
The others have defaults, and are there for backends that can do better.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from zmq_matchmaker._errors import NotSupported
from zmq_matchmaker._model import Entry, Finding, Found, Key, Listing, Record, Role, Severity
from zmq_matchmaker._url import MatchmakerURL

__all__ = ["Changed", "Characteristics", "Matchmaker", "Watch"]


_NOBODY = Key(Role.LISTENER, "", "zmq-matchmaker inspect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Characteristics:
    """What a backend can do; the documentation's table is made of these."""

    shared_across_processes: bool = False
    shared_across_hosts: bool = False
    persistent: bool = False
    """Records outlive the processes that made them."""
    expiry: bool = False
    """Records of processes that died go away by themselves."""
    push: bool = False
    """Changes are reported by `watch`."""
    availability: bool = False
    """That a record was set aside is known to all."""
    survey: bool = False
    """Everything can be listed."""
    writable: bool = True
    """Records are made by `register`; otherwise an operator keeps them."""


Changed = Callable[[Key | None], None]
"""Told that a key's records changed; None: any may have."""


class Watch(abc.ABC):
    """A running `Matchmaker.watch`."""

    @abc.abstractmethod
    def follow(self, keys: Collection[Key]) -> None:
        """Report changes of these keys from now on; of others no more than is convenient.

        Returns at once.  What changes after a `find` that follows this is reported,
        if not by this watch then by the next look of whoever polls as well.
        """

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

    # -- what every backend has to do ----------------------------------------------------

    @abc.abstractmethod
    def register(self, entries: Sequence[Entry], ttl: float | None) -> None:
        """Make the entries known for `ttl` seconds (None: for ever), in one round trip.

        An entry that is known already lives for `ttl` from now, and is set aside no more.
        """

    @abc.abstractmethod
    def unregister(self, entries: Sequence[Entry]) -> None:
        """Forget what this matchmaker has registered, in one round trip.

        Entries that are not known do not matter.
        """

    @abc.abstractmethod
    def lookup(self, keys: Sequence[Key]) -> list[tuple[Record, ...]]:
        """The live records of each key, sorted, in one round trip for all keys."""

    # -- what some do better -------------------------------------------------------------

    def refresh(self, entries: Sequence[Entry], ttl: float | None) -> bool:
        """Let `entries`, which are all that was registered here, live for `ttl` from now.

        False: not all of them are known any more, and they have to be registered again.
        """
        self.register(entries, ttl)
        return True

    def find(self, keys: Sequence[Key]) -> list[Found]:
        """What `lookup` finds, with all else that is known of it."""
        return [Found.of(records) for records in self.lookup(keys)]

    def set_aside(self, pauses: Mapping[Entry, float]) -> None:
        """Let everybody prefer others for so many seconds; 0: no longer.  In one round trip.

        For characteristic `availability`; others leave it to each process.
        """
        return

    def remove(self, entries: Sequence[Entry]) -> None:
        """Forget the entries, whoever registered them: an operator knows that they are dead.

        :raises NotSupported: the records are kept by somebody else.
        """
        self.unregister(entries)

    def survey(self) -> list[Listing]:
        """Everything that is known, sorted.  For characteristic `survey`.

        :raises NotSupported: this backend cannot list what it has.
        """
        raise NotSupported(f"{self.url}: the matchmaker {self.url.scheme!r} cannot list records")

    def inspect(self) -> list[Finding]:
        """How the backend does, for operators.  Raises nothing that a finding can say."""
        began = time.perf_counter()
        self.lookup([_NOBODY])
        milliseconds = (time.perf_counter() - began) * 1000
        return [Finding(Severity.OK, "lookup", f"answered in {milliseconds:.1f} ms")]

    def watch(self, changed: Changed) -> Watch | None:
        """Call `changed` about changes of the keys that the watch follows; None if it cannot.

        Does no I/O in the caller's thread.  When a report may have been lost,
        `changed(None)` is called.
        """
        return None

    def close(self) -> None:
        """Release everything.  Idempotent.  A backend that holds nothing inherits this."""
        return
