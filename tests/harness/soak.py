# SPDX-License-Identifier: Apache-2.0
"""Mixed traffic while processes are killed, frozen and restarted at random, with an account.

    python -m harness.soak --seconds 600 --seed 1 --report report.md

Exits with 1 if the account does not balance.  The same seed plans the same troubles.
"""

from __future__ import annotations

import argparse
import functools
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.account import Account, Life, Trouble
from harness.journal import read
from harness.leaks import wait_until
from harness.proxies import ProxyProcess
from harness.service import Listening
from harness.services import CallerProcess, Service
from harness.traffic import at_once
from zmq_matchmaker.testing import RedisServer

__all__ = ["Plan", "Soak"]

_PATTERNS: Final = {"call": 6, "cast": 3, "fanout": 1, "notify": 1}
_FROZEN: Final = 6.0
"""Seconds: longer than it takes the others to notice."""
_LOOPBACK: Final = {"rpc_zmq_bind_address": "127.0.0.1"}


@dataclass(frozen=True)
class Plan:
    """What is run, and what is done to it."""

    seconds: float = 600.0
    seed: int = 1
    servers: int = 8
    callers: int = 8
    proxies: int = 3
    threads: int = 2
    """Of each caller."""
    pause: float = 0.05
    """Seconds between two messages of a thread."""
    calm: tuple[float, float] = (3.0, 8.0)
    """Seconds between two troubles, at the least and at the most."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of all services."""

    @property
    def processes(self) -> int:
        """Redis included."""
        return self.servers + self.callers + self.proxies + 1


class Soak:
    """One run in `folder`; everything has ended with the block."""

    def __init__(self, plan: Plan, folder: Path, tell: Callable[[str], object] = print) -> None:
        self._plan = plan
        self._folder = folder
        self._tell = tell
        self._chance = random.Random(plan.seed)
        self._stack = ExitStack()
        self._journals: list[Path] = []
        self._number = 0
        self._servers: dict[str, Service] = {}
        self._ready: dict[str, float] = {}
        self._labels: dict[str, str] = {}
        self._proxies: list[ProxyProcess] = []
        self.troubles: list[Trouble] = []
        self.lives: list[Life] = []

    def __enter__(self) -> Soak:
        try:
            self._redis = self._stack.enter_context(RedisServer())
            self._url = f"zmq+{self._redis.url}/soak"
            self._proxies = at_once([self._proxy] * self._plan.proxies)
            at_once(
                functools.partial(self._serve, f"server-{n}") for n in range(self._plan.servers)
            )
            self._callers = at_once(
                functools.partial(self._call, f"caller-{n}") for n in range(self._plan.callers)
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> Account:
        """Make trouble until the time is over, let everything settle, and draw up the account."""
        until = time.monotonic() + self._plan.seconds
        for caller in self._callers:
            caller.until(lambda report: sum(report["answers"].values()) > 10, "it sends")
        while time.monotonic() < until:
            time.sleep(self._chance.uniform(*self._plan.calm))
            self._make_trouble()
        for caller in self._callers:
            caller.stop()
        self._settle()
        for name in list(self._servers):
            self._end(name, Service.stop)
        options = self._plan.options
        return Account(
            read(self._journals),
            self.troubles,
            self.lives,
            routed=bool(options.get("use_router_proxy")),
            acknowledged=bool(options.get("rpc_use_acks")),
        )

    # -- processes -------------------------------------------------------------------

    def _journal(self, label: str) -> str:
        self._journals.append(self._folder / f"{label}.journal")
        self._journals[-1].touch()
        return str(self._journals[-1])

    def _proxy(self) -> ProxyProcess:
        self._number += 1
        folder = self._folder / f"proxy-{self._number}"
        folder.mkdir()
        proxy = ProxyProcess(folder, self._url, self._plan.options, role="both")
        self._stack.callback(proxy.kill)
        return proxy

    def _serve(self, name: str) -> None:
        self._number += 1
        label = f"{name}.{self._number}"
        service = Service(
            self._url,
            ("", "work", name),
            notifications=[Listening(topics=["events"])],
            options={**_LOOPBACK, **self._plan.options},
            journal=self._journal(label),
            label=label,
        )
        self._stack.callback(service.__exit__, None, None, None)
        self._servers[name], self._labels[name] = service, label
        self._ready[name] = time.monotonic()

    def _end(self, name: str, end: Callable[[Service], object]) -> None:
        service = self._servers.pop(name)
        self.lives.append(Life(self._labels[name], self._ready[name], time.monotonic()))
        end(service)

    def _call(self, name: str) -> CallerProcess:
        caller = CallerProcess(
            self._url,
            name=name,
            journal=self._journal(name),
            threads=self._plan.threads,
            patterns=_PATTERNS,
            pause=self._plan.pause,
            seed=self._plan.seed,
            options={**_LOOPBACK, **self._plan.options},
        )
        self._stack.callback(caller.__exit__, None, None, None)
        return caller

    # -- troubles --------------------------------------------------------------------

    def _make_trouble(self) -> None:
        kind, of = self._chance.choice(
            [
                ("kill", "server"),
                ("stop", "server"),
                ("freeze", "server"),
                ("kill", "proxy"),
                ("stop", "proxy"),
                ("freeze", "proxy"),
                ("kill", "redis"),
            ]
        )
        began = time.monotonic()
        name: str = getattr(self, f"_hurt_{of}")(kind)
        self.troubles.append(Trouble(kind, of, name, began, time.monotonic()))
        self._tell(f"{kind} {name}, {self.troubles[-1].ended - began:.1f} s")

    def _hurt_server(self, kind: str) -> str:
        name = self._chance.choice(sorted(self._servers))
        label = self._labels[name]
        if kind == "freeze":
            self._freeze(self._servers[name].process)
        else:
            self._end(name, Service.kill if kind == "kill" else Service.stop)
            self._serve(name)
        return label

    def _hurt_proxy(self, kind: str) -> str:
        number = self._chance.randrange(len(self._proxies))
        if kind == "freeze":
            self._freeze(self._proxies[number].process)
        else:
            proxy = self._proxies[number]
            proxy.kill() if kind == "kill" else proxy.stop()
            self._proxies[number] = self._proxy()
        return f"proxy-{number}"

    def _hurt_redis(self, kind: str) -> str:
        self._redis.kill()
        time.sleep(self._chance.uniform(0.5, 4.0))
        self._redis.start()
        return "redis"

    def _freeze(self, process: Any) -> None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(_FROZEN)
        process.send_signal(signal.SIGCONT)

    def _settle(self) -> None:
        """Wait until nothing is written down any more."""
        seen: list[tuple[float, int]] = []

        def quiet() -> bool:
            size = sum(file.stat().st_size for file in self._journals)
            if not seen or seen[-1][1] != size:
                seen.append((time.monotonic(), size))
            return time.monotonic() - seen[-1][0] > 2.0

        wait_until(quiet, "everything was executed", timeout=60)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="harness.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to make trouble")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random")
    parser.add_argument("--routers", action="store_true", help="with use_router_proxy")
    parser.add_argument("--acks", action="store_true", help="with rpc_use_acks")
    parser.add_argument("--report", type=Path, help="a file to write the account to")
    arguments = parser.parse_args()
    options = {"use_router_proxy": arguments.routers, "rpc_use_acks": arguments.acks}
    plan = Plan(seconds=arguments.seconds, seed=arguments.seed, options=options)
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} of {plan.seconds:.0f} s  {what}", flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        Soak(plan, Path(folder), tell) as soak,
    ):
        account = soak.run()
    lasted = time.monotonic() - began
    lost = [account.excusing(pattern) for pattern in ("cast", "fanout")]
    print(account.table())
    print(
        f"In {lost[0]:.0f} of {lasted:.0f} s the loss of a cast or notification is no fault, in "
        f"{lost[1]:.0f} s that of any copy of a fanout."
    )
    for fault in account.faults:
        print("FAULT:", fault)
    if arguments.report is not None:
        arguments.report.write_text(account.table() + "\n")
    return 1 if account.faults else 0


if __name__ == "__main__":
    sys.exit(main())
