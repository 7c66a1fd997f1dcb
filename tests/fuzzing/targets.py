# SPDX-License-Identifier: Apache-2.0
"""What there is to be fuzzed, by name.

A target is a context manager: what it needs lives as long as the block.  `run` takes one
input and raises if anything is not as it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import TracebackType
from typing import Final, Protocol, Self

__all__ = ["TARGETS", "Target", "load"]


class Target(Protocol):
    """Something under test, and what is promised of it."""

    structured: bool
    """Whether its inputs are the frames of a message (`fuzzing.frames`)."""
    longest: int
    """No input needs to be longer."""

    def run(self, data: bytes) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


TARGETS: Final[Mapping[str, str]] = {
    "codec": "fuzzing.codec:Codec",
    "listening": "fuzzing.listening:ListeningNode",
    "asking": "fuzzing.asking:AskingNode",
    "requests": "fuzzing.bodies:Requests",
    "replies": "fuzzing.bodies:Replies",
}
"""Where each is.  Loaded by name, so that what they import can be instrumented first."""


def load(place: str) -> Callable[[], Target]:
    """The class at `place`, which is `module:name`."""
    module, _, name = place.partition(":")
    found: Callable[[], Target] = getattr(import_module(module), name)
    return found
