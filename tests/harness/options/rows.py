# SPDX-License-Identifier: Apache-2.0
"""What a row of the table of options says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness.options.bench import Bench, Tried

__all__ = ["PROXY", "REDIS", "ZMQ", "Between", "Row"]

ZMQ: Final = "oslo_messaging_zmq"
REDIS: Final = "matchmaker_redis"
PROXY: Final = "zmq_proxy_opts"


class Between:
    """Equal to every number from `low` to `high`: for times on a machine that has other work."""

    def __init__(self, low: float, high: float) -> None:
        self._low = low
        self._high = high

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and self._low <= other <= self._high

    def __hash__(self) -> int:
        return hash((self._low, self._high))

    def __repr__(self) -> str:
        return f"from {self._low:g} to {self._high:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One option."""

    group: str
    option: str
    effect: str
    """What is to be seen of it."""
    look: Callable[[Bench], Any] | None
    """Runs the real thing with the option as `Bench` has it; what was seen.  None: deprecated."""
    cases: Mapping[str, Any]
    """Texts of a configuration file, and what is seen with each.

    Names in braces, as in `{port0}`, stand for what a bench has.
    """

    alone: bool = False
    """Whether one case can be seen only while no other is looked at."""

    def trials(self) -> Iterator[Tried]:
        """The option at each of its values.

        Redis' options have no other place than the file.
        """
        first = next(iter(self.cases))
        for value in self.cases:
            outweighed = None if value == first or self.group == REDIS else first
            yield Tried(self.group, self.option, value, outweighed)

    @property
    def timed(self) -> bool:
        """Whether it is seen by how long something takes."""
        return any(isinstance(seen, Between) for seen in self.cases.values())

    @property
    def name(self) -> str:
        """As an operator would call it."""
        return f"[{self.group}] {self.option}"
