# SPDX-License-Identifier: Apache-2.0
"""`watch`: who comes, goes, and does not answer, as it happens."""

from __future__ import annotations

import argparse
import datetime
import json
import queue
import select
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

from zmq_matchmaker import Entry, Listing, Matchmaker, Standing, Unavailable
from zmq_matchmaker.cli._format import for_programs, host_of, target
from zmq_matchmaker.cli._source import MatchmakerCommand

__all__ = ["Watch"]

State = dict[Entry, Standing]


class Watch(MatchmakerCommand):
    """Show who is there, then who comes, goes, is set aside or is back, until interrupted."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """What to watch."""
        parser.add_argument("topic", nargs="*", help="only these topics")
        parser.add_argument(
            "--interval",
            type=float,
            default=2.0,
            help="seconds between two looks at what is not reported (default: %(default)s)",
        )
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def take_action(self, parsed: argparse.Namespace) -> int:
        """Compare one survey with the next."""
        try:
            self._watch(parsed)
        except KeyboardInterrupt:
            self.say("")  # the shell's prompt begins a line of its own
        return 0

    def _watch(self, parsed: argparse.Namespace) -> None:
        changed: queue.SimpleQueue[None] = queue.SimpleQueue()
        state: State = {}
        down = False
        with self.matchmaker(parsed) as matchmaker:
            matchmaker.survey()  # what is wrong from the beginning ends the command
            watch = matchmaker.watch(lambda key: changed.put(None))
            try:
                while not _nobody_reads(self.app.stdout):
                    while not changed.empty():
                        changed.get()
                    try:
                        now = _survey(matchmaker, parsed.topic)
                    except Unavailable as error:
                        if not down:
                            self.say(f"{error}; trying on")
                        down = True
                    else:
                        if down:
                            self.say(f"{matchmaker.url}: works again")
                        down = False
                        self._tell(state, now, as_json=parsed.json)
                        state = now
                        if watch is not None:
                            watch.follow({key for key, _ in state})
                    with suppress(queue.Empty):
                        changed.get(timeout=max(0.05, parsed.interval))
            finally:
                if watch is not None:
                    watch.close()

    def _tell(self, before: State, now: State, *, as_json: bool) -> None:
        at = datetime.datetime.now(datetime.UTC)
        for what, listing in _changes(before, now):
            if as_json:
                line = {"time": at.isoformat(), "change": what, **for_programs(listing)}
                self.show(json.dumps(line))
            else:
                key, standing = listing
                node = f"  {standing.record.node}" if standing.record.node else ""
                moment = at.strftime("%H:%M:%S")
                self.show(f"{moment}  {what:<6} {target(key)}  {host_of(standing)}{node}")


def _nobody_reads(output: TextIO) -> bool:
    """Whether the other end of a pipe was closed, as by `| head`."""
    poll = select.poll()
    poll.register(output, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _survey(matchmaker: Matchmaker, topics: list[str]) -> State:
    return {
        (key, standing.record): standing
        for key, standing in matchmaker.survey()
        if not topics or key.topic in topics
    }


def _changes(before: State, now: State) -> Iterator[tuple[str, Listing]]:
    """What happened to whom."""
    for entry in sorted(before.keys() - now.keys()):
        yield "left", Listing(entry[0], before[entry])
    for entry, standing in sorted(now.items()):
        old = before.get(entry)
        if old is None or old.registered != standing.registered:
            yield "came", Listing(entry[0], standing)
        elif (old.aside > 0) != (standing.aside > 0):
            yield "aside" if standing.aside > 0 else "back", Listing(entry[0], standing)
