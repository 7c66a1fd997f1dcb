# SPDX-License-Identifier: Apache-2.0
"""The subscription to changes of the keys that are in use."""

from __future__ import annotations

from zmq_matchmaker._backend import Changed, Matchmaker, Watch
from zmq_matchmaker._model import Key

__all__ = ["Following"]


class Following:
    """Opened when the first key is followed.  For one thread."""

    def __init__(self, backend: Matchmaker, changed: Changed) -> None:
        self._backend = backend
        self._changed = changed
        self._watch: Watch | None = None
        self._keys: set[Key] = set()

    def follow(self, keys: set[Key]) -> None:
        """Have changes of `keys` reported, and of no others.

        :raises MatchmakerError: they are not, for now.
        """
        if keys == self._keys or not self._backend.characteristics.push:
            return
        if self._watch is None:
            self._watch = self._backend.watch(self._changed)
        if self._watch is not None:
            self._watch.follow(keys)
        self._keys = keys

    def close(self) -> None:
        """End the subscription.  Idempotent."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
