# SPDX-License-Identifier: Apache-2.0
"""A real OpenStack service, Mistral, over this transport, driven over HTTP.

    python -m real_service

Installs the service beside the packages of this repository, starts its processes with
a transport_url of zmq+redis://, and takes its resources through their whole life.
Exits with 0 if every answer was as it should be.
"""

from __future__ import annotations

import argparse
import logging
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from real_service.environment import Environment, install
from real_service.events import react
from real_service.life import Life
from real_service.mistral import Mistral
from real_service.remarks import remarks
from real_service.trouble import lose_an_executor, replace_an_executor, run_many

_TAIL: Final = 25
"""Lines of each log that are shown after a failure."""
_WIDTH: Final = 300


class Screen:
    """Prints a line for each step, with the time since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.step = ""

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def do(self, what: str, step: Callable[[], object]) -> None:
        """Take one step."""
        self.step = what
        began = time.monotonic()
        result = step()
        took = time.monotonic() - began
        shown = f": {result}" if isinstance(result, str) else ""
        print(f"{self.seconds:6.1f} s  {what} ({took:.1f} s){shown}", flush=True)


def live(mistral: Mistral, screen: Screen) -> None:
    """The steps, in order."""
    life = Life(mistral)
    do = screen.do
    do("API, engine, executor and notifier start", partial(begin, mistral))
    do("definitions are created and changed", life.define)
    do("a workflow is executed", life.execute)
    do("workflows within a workflow", life.combine)
    do("single actions", life.act)
    do("errors come back", life.refuse)
    do("a task is run again", life.run_again)
    do("executions are paused, resumed, cancelled", life.hold)
    do("the notifier posts", life.tell)
    do("events of another service", partial(react, mistral))
    do("a second executor starts", partial(mistral.start, "executor-2"))
    do("many at once", partial(run_many, mistral))
    do("an executor is killed", partial(lose_an_executor, mistral))
    do("an executor is replaced", partial(replace_an_executor, mistral))
    do("everything is deleted", life.delete)
    do("everything is stopped", partial(end, mistral))
    do("what the processes logged", partial(remarks, mistral))


_FIRST: Final = ("api", "engine", "executor-1", "notifier")


def begin(mistral: Mistral) -> str:
    """Start what is always there; what it runs under, as the service itself says."""
    mistral.start(*_FIRST)
    [under] = set(re.findall(r"oslo_service\.backend\._(\w+)\.", mistral.process("api").said))
    return "under eventlet" if under == "eventlet" else "under native threads"


def end(mistral: Mistral) -> str:
    """Stop all that runs; nobody but the one that was killed is registered afterwards."""
    seconds = mistral.stop()
    left = {str(one.standing.record.node) for one in mistral.registered()}
    assert len(left) <= 1, f"still registered: {left}"
    return f"the slowest in {seconds:.1f} s; {mistral.api.requests} requests were answered"


def show_logs(mistral: Mistral) -> None:
    """The end of what each process has printed."""
    for name, said in mistral.logs():
        lines = [line[:_WIDTH] for line in said.splitlines()[-_TAIL:]]
        print(f"\n-- {name}, its last {len(lines)} lines:", *lines, sep="\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m real_service",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--under",
        choices=("threads", "eventlet"),
        default="threads",
        help="native threads: Mistral 23; eventlet: Mistral 20",
    )
    parser.add_argument(
        "--environment",
        type=Path,
        metavar="DIR",
        help="the virtual environment to run it in: made if there is none, kept, and used as it "
        "is next time; without this one is made and removed",
    )
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="keep configuration, database and logs here"
    )
    return parser.parse_args()


def main() -> int:
    """Run it; the exit code."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    screen = Screen()
    with ExitStack() as stack:

        def folder(wish: Path | None, prefix: str) -> Path:
            if wish is None:
                made = tempfile.TemporaryDirectory(prefix=prefix)
                return Path(stack.enter_context(made))
            wish.mkdir(parents=True, exist_ok=True)
            return wish

        home = folder(given.environment, "real-service-venv-")
        place = folder(given.logs, "real-service-").resolve()
        logging.basicConfig(filename=place / "driver.log")
        if not (home / "pyvenv.cfg").exists():
            screen.do(
                "the service and our packages are installed", partial(install, home, given.under)
            )
        environment = Environment(home)
        print(environment.versions("mistral", "oslo.messaging", "zmq-oslo-driver"), flush=True)
        try:
            mistral = stack.enter_context(Mistral(environment, place))
            live(mistral, screen)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown with the logs
            if "mistral" in locals():
                show_logs(mistral)
            print(f"\nFAILED after {screen.seconds:.1f} s: {screen.step}: {error}", flush=True)
            return 1
    print(f"All went right, in {screen.seconds:.1f} s.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
