# SPDX-License-Identifier: Apache-2.0
"""What became of each message: the promises of docs/promises.md, checked against journals.

Nothing may be unknown: a message was executed as often as its pattern promises, or
its sender was told that it failed, or a process died that had it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.journal import BEGUN, FAILED, RUN, SUCCEEDED, Event

__all__ = ["Account", "Life", "Row", "Trouble"]

_BEFORE: Final = 2.0
"""Seconds for which a message may lie in queues."""
_GONE: Final = 1.0
"""Seconds until everybody knows that a process has ended: its connections end with it."""
_SILENT: Final = 5.0
"""Seconds until everybody knows that one stands still: the heartbeat, and one to act on it."""
_BACK: Final = 2.0
"""Seconds until what stood still has its connections again."""
_KNOWN: Final = 2.0
"""Seconds until everybody knows of a new server."""
_NOT_EXECUTED: Final = ("MessageDeliveryFailure", "MessageUndeliverable")


@dataclass(frozen=True)
class Trouble:
    """Something that was done to a process, from `began` until it was made good again."""

    kind: str
    """`kill`, `freeze` or `stop`."""
    of: str
    """`server`, `proxy` or `redis`."""
    name: str
    """Of a server that of its life: as it stands in the journal."""
    began: float
    ended: float

    @property
    def costs(self) -> bool:
        """Whether it may cost messages: an orderly end must not, nor anything of the matchmaker."""
        return self.kind != "stop" and self.of != "redis"

    @property
    def times(self) -> list[tuple[float, float]]:
        """When a message may have been sent that was lost by it: from when until when."""
        if self.kind == "kill":
            return [(self.began - _BEFORE, self.began + _GONE)]
        return [(self.began - _BEFORE, self.began + _SILENT), (self.ended, self.ended + _BACK)]

    def touches(self, moment: float) -> bool:
        """Whether a message that was sent then may have met it."""
        return any(first <= moment <= last for first, last in self.times)


@dataclass(frozen=True)
class Life:
    """Of one server process: from when it was ready until its end was begun."""

    name: str
    ready: float
    ended: float

    def listens_at(self, moment: float) -> bool:
        """Whether everybody knows of it at that time, and for a while."""
        return self.ready + _KNOWN <= moment <= self.ended - _BEFORE


@dataclass
class Row:
    """What became of the messages of one pattern."""

    sent: int = 0
    succeeded: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By the name of the exception."""
    executed: int = 0
    """Of a fanout each copy counts."""
    excused: int = 0
    """Lost together with a process."""
    repeated: int = 0
    """Executed by a second server, since the first was hurt before it had acknowledged."""


class Account:
    """The account of a run.  `faults` is empty if it balances.

    `routed`: whether all messages went through proxies, and not only fanouts.
    `acknowledged`: whether casts were sent again, to another server, that were not acknowledged.
    """

    def __init__(
        self,
        events: Iterable[Event],
        troubles: Sequence[Trouble],
        lives: Sequence[Life],
        *,
        routed: bool = False,
        acknowledged: bool = False,
    ) -> None:
        self.rows: dict[str, Row] = defaultdict(Row)
        self.faults: list[str] = []
        self._troubles = troubles
        self._lives = lives
        self._routed = routed
        self._acknowledged = acknowledged
        begun: dict[str, Event] = {}
        ended: dict[str, Event] = {}
        run: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.what == RUN:
                run[event.message].append(event)
            elif event.what == BEGUN:
                begun[event.message] = event
            else:
                ended[event.message] = event
        for message in run.keys() - begun.keys():
            self.faults.append(f"{message} was executed and never sent")
        for message, start in begun.items():
            self._judge(start, ended.get(message), run[message])

    def _judge(self, start: Event, end: Event | None, runs: list[Event]) -> None:
        row = self.rows[start.pattern]
        row.sent += 1
        row.executed += len(runs)
        if len({run.by for run in runs}) < len(runs):
            self._fault(start, f"was executed by {[run.by for run in runs]}")
        elif len(runs) > 1 and start.pattern != "fanout":
            self._judge_repeat(start, runs, row)
        if end is None:
            self._fault(start, "has no outcome")
        elif end.what == FAILED:
            kind = end.by.partition(":")[0]
            row.failed[kind] += 1
            if runs and kind in _NOT_EXECUTED and start.pattern != "fanout":
                self._fault(start, f"was executed, but its sender was told {end.by}")
        elif end.what == SUCCEEDED:
            row.succeeded += 1
            self._judge_success(start, runs, row)

    def _judge_repeat(self, start: Event, runs: list[Event], row: Row) -> None:
        """It was executed by several, each once."""
        unhurt = [run.by for run in runs if not self._hurt(run.by, start)]
        if self._acknowledged and start.pattern == "cast" and len(unhurt) <= 1:
            row.repeated += len(runs) - 1
        else:
            self._fault(start, f"was executed by {[run.by for run in runs]}")

    def _hurt(self, server: str, start: Event) -> bool:
        """Whether that server was killed or frozen when it may have had the message."""
        return any(
            trouble.of == "server"
            and trouble.name == server
            and trouble.costs
            and trouble.touches(start.time)
            for trouble in self._troubles
        )

    def _judge_success(self, start: Event, runs: list[Event], row: Row) -> None:
        if start.pattern == "fanout":
            there = {life.name for life in self._lives if life.listens_at(start.time)}
            missed = sorted(there - {run.by for run in runs})
        else:
            missed = [] if runs else ["anybody"]
        for listener in missed:
            if start.pattern != "call" and self._excuse(start, listener):
                row.excused += 1
            else:
                self._fault(start, f"was sent, but not executed by {listener}")

    def excusing(self, pattern: str, listener: str = "") -> float:
        """Seconds of the run in which the loss of such a message to `listener` is no fault."""
        total = 0.0
        until = float("-inf")
        for first, last in sorted(
            time
            for trouble in self._troubles
            if self._may_cost(trouble, pattern, listener)
            for time in trouble.times
        ):
            total += max(0.0, last - max(first, until))
            until = max(until, last)
        return total

    def _excuse(self, start: Event, listener: str) -> bool:
        return any(
            self._may_cost(trouble, start.pattern, listener) and trouble.touches(start.time)
            for trouble in self._troubles
        )

    def _may_cost(self, trouble: Trouble, pattern: str, listener: str) -> bool:
        """Whether a message of that pattern goes by way of the process that was hurt.

        Of a cast or notification nobody knows for which server it was.
        """
        if not trouble.costs:
            return False
        if trouble.of == "proxy":
            return self._routed or pattern == "fanout"
        return pattern != "fanout" or trouble.name == listener

    def _fault(self, start: Event, what: str) -> None:
        self.faults.append(
            f"the {start.pattern} {start.message}, begun at {start.time:.3f}, {what}"
        )

    def table(self) -> str:
        """The account as Markdown."""
        lines = [
            "| pattern | sent | succeeded | failed, and said so | executed | twice | lost |",
            "|---|---|---|---|---|---|---|",
        ]
        for pattern, row in sorted(self.rows.items()):
            failed = ", ".join(f"{n} {kind}" for kind, n in row.failed.most_common()) or "0"
            lines.append(
                f"| {pattern} | {row.sent:,} | {row.succeeded:,} | {failed} | {row.executed:,} "
                f"| {row.repeated:,} | {row.excused:,} |"
            )
        return "\n".join(lines)
