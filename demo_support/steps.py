# SPDX-License-Identifier: Apache-2.0
"""The patterns, one after another; each checks that it did what it claims."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import oslo_messaging

from demo_support.server import EVENTS, TOPIC
from demo_support.stage import DemoError

PATIENCE: Final = 10.0
SERVERS: Final = ("alpha", "beta")


@dataclass(frozen=True, slots=True)
class Application:
    """What an application has of oslo.messaging; the demo uses nothing else."""

    client: Any
    notifier: Any

    @classmethod
    def make(cls, rpc: Any, notify: Any) -> Application:
        """A client and a notifier for the demo's servers, on these transports."""
        return cls(
            client=oslo_messaging.get_rpc_client(
                rpc, oslo_messaging.Target(topic=TOPIC), timeout=PATIENCE
            ),
            notifier=oslo_messaging.Notifier(
                notify, publisher_id="demo", driver="messaging", topics=[EVENTS]
            ),
        )

    def notes(self, server: str) -> list[str]:
        """What this server has been told by casts and notifications."""
        found: list[str] = self.client.prepare(server=server).call({}, "notes")
        return found


@dataclass(frozen=True, slots=True)
class Step:
    """One pattern: `run` does what `code` shows and says what came of it.

    It raises DemoError if that is not what should have.
    """

    name: str
    code: str
    run: Callable[[Application], str]


def expect(condition: object, what: str) -> None:
    """Fail the demo unless `condition` holds."""
    if not condition:
        raise DemoError(what)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Fail the demo unless `condition()` holds soon."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        expect(time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s")
        time.sleep(0.01)


def await_note(app: Application, server: str, text: str) -> None:
    """Fail the demo unless this server is told `text` soon."""
    eventually(lambda: text in app.notes(server), f"{text} reached {server}")


def call(app: Application) -> str:
    total = app.client.call({}, "add", left=19, right=23)
    expect(total == 42, f"19 + 23 came back as {total}")
    answers = Counter(app.client.call({}, "whoami")["server"] for _ in range(10))
    expect(answers == dict.fromkeys(SERVERS, 5), f"10 calls were not balanced: {dict(answers)}")
    return "42; of 10 more calls alpha answered 5 and beta 5"


def directed_call(app: Application) -> str:
    answers = [app.client.prepare(server="beta").call({}, "whoami") for _ in range(4)]
    expect({answer["server"] for answer in answers} == {"beta"}, f"not beta alone: {answers}")
    return f"made 4 times, answered 4 times by beta (pid {answers[0]['pid']})"


def cast(app: Application) -> str:
    started = time.perf_counter()
    app.client.prepare(server="alpha").cast({}, "note", text="a cast")
    elapsed = time.perf_counter() - started
    await_note(app, "alpha", "a cast")
    return f"handed over in {elapsed * 1000:.1f} ms with no reply to wait for, executed by alpha"


def fanout(app: Application) -> str:
    app.client.prepare(fanout=True).cast({}, "note", text="a fanout")
    for name in SERVERS:
        await_note(app, name, "a fanout")
        expect(app.notes(name).count("a fanout") == 1, f"{name} got more than one copy")
    return "one copy reached alpha, one beta"


def remote_exception(app: Application) -> str:
    try:
        app.client.call({}, "divide", left=1, right=0)
    except ZeroDivisionError as error:
        last = str(error).strip().splitlines()[-1]
        expect("division by zero" in last, f"another error: {last}")
        return f"raised here what was raised there; the server's traceback ends with {last}"
    raise DemoError("1 / 0 raised nothing")


def timeout(app: Application) -> str:
    started = time.monotonic()
    try:
        app.client.prepare(timeout=1).call({}, "work", seconds=3)
    except oslo_messaging.MessagingTimeout as error:
        elapsed = time.monotonic() - started
        expect(1.0 <= elapsed < 2.0, f"due after 1 s, but came after {elapsed:.3f} s")
        return f"MessagingTimeout after {elapsed:.3f} s: {error}"
    raise DemoError("a call of 3 s did not time out after 1 s")


def nobody_listens(app: Application) -> str:
    try:
        app.client.prepare(topic="nobody-here", timeout=1).call({}, "whoami")
    except oslo_messaging.MessagingTimeout as error:
        expect("nobody listens" in str(error), f"the reason is not said: {error}")
        return f"MessagingTimeout: {error}"
    raise DemoError("a call that nobody listens to did not fail")


def notifications(app: Application) -> str:
    for number in range(4):
        app.notifier.info({}, "demo.event", {"number": number})

    def received() -> dict[str, list[str]]:
        return {
            server: [note for note in app.notes(server) if note.startswith("demo.event")]
            for server in SERVERS
        }

    eventually(lambda: sum(map(len, received().values())) >= 4, "4 notifications were handled")
    shares = received()
    found = sorted(note for share in shares.values() for note in share)
    expect(len(set(found)) == len(found) == 4, f"not each once: {found}")
    handled = " and ".join(f"{len(share)} by {server}" for server, share in shares.items())
    return f"sent 4, each handled once: {handled}"


STEPS: Final = (
    Step("call", 'client.call({}, "add", left=19, right=23)', call),
    Step("directed call", 'client.prepare(server="beta").call({}, "whoami")', directed_call),
    Step("cast", 'client.prepare(server="alpha").cast({}, "note", text="a cast")', cast),
    Step("fanout", 'client.prepare(fanout=True).cast({}, "note", text="a fanout")', fanout),
    Step("remote exception", 'client.call({}, "divide", left=1, right=0)', remote_exception),
    Step("timeout", 'client.prepare(timeout=1).call({}, "work", seconds=3)', timeout),
    Step(
        "nobody listens",
        'client.prepare(topic="nobody-here", timeout=1).call({}, "whoami")',
        nobody_listens,
    ),
    Step("notifications", 'notifier.info({}, "demo.event", {"number": 0})', notifications),
)
