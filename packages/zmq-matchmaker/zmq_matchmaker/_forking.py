# SPDX-License-Identifier: Apache-2.0
"""Tells objects of a forked child that they are there now, without the parent's threads."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Forked", "tell_of_forks"]


class Forked(Protocol):
    """What has locks that a thread of the parent may have held, threads, or connections."""

    def begin_in_child(self) -> None:
        """Called in the child before anything else runs there."""


_told: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_of_forks(forked: Forked) -> None:
    """Call `forked.begin_in_child()` in every child that is forked while `forked` lives."""
    _told.add(forked)


def _tell() -> None:
    for forked in list(_told):
        forked.begin_in_child()


os.register_at_fork(after_in_child=_tell)
