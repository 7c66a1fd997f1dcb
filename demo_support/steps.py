# SPDX-License-Identifier: Apache-2.0
"""The patterns, one after another; each checks that it did what it claims."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import oslo_messaging

from demo_support.server import EVENTS, TOPIC
from demo_support.stage import DemoError

Step = Callable[[Any, Any], str]
PATIENCE: Final = 10.0


def expect(condition: object, what: str) -> None:
    """Fail the demo unless `condition` holds."""
    if not condition:
        raise DemoError(what)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Fail the demo unless `condition()` holds soon."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        expect(time.monotonic() < deadline, f"{what}, not within {PATIENCE:g} s")
        time.sleep(0.01)


def call(client: Any, notifier: Any) -> str:
    answers = Counter(client.call({}, "whoami")["server"] for _ in range(10))
    expect(answers == {"alpha": 5, "beta": 5}, f"10 calls were not balanced: {dict(answers)}")
    total = client.call({}, "add", left=19, right=23)
    expect(total == 42, f"19 + 23 came back as {total}")
    return "19 + 23 = 42; of 10 more calls alpha answered 5 and beta 5"


def directed_call(client: Any, notifier: Any) -> str:
    answers = [client.prepare(server="beta").call({}, "whoami") for _ in range(4)]
    expect({answer["server"] for answer in answers} == {"beta"}, f"not beta alone: {answers}")
    return f"4 calls to server beta, all answered by beta (pid {answers[0]['pid']})"


def cast(client: Any, notifier: Any) -> str:
    started = time.perf_counter()
    client.prepare(server="alpha").cast({}, "note", text="a cast")
    elapsed = time.perf_counter() - started
    eventually(lambda: "a cast" in notes(client, "alpha"), "the cast was executed")
    return f"handed over in {elapsed * 1e6:.0f} µs, executed by alpha"


def fanout(client: Any, notifier: Any) -> str:
    client.prepare(fanout=True).cast({}, "note", text="a fanout")
    for name in ("alpha", "beta"):
        eventually(lambda name=name: "a fanout" in notes(client, name), f"the fanout at {name}")
        expect(notes(client, name).count("a fanout") == 1, f"{name} got more than one copy")
    return "one copy at alpha, one at beta"


def remote_exception(client: Any, notifier: Any) -> str:
    try:
        client.call({}, "divide", left=1, right=0)
    except ZeroDivisionError as error:
        last = str(error).strip().splitlines()[-1]
        expect("division by zero" in last, f"another error: {last}")
        return f"the server's traceback came back; it ends: {last}"
    raise DemoError("1 / 0 raised nothing")


def timeout(client: Any, notifier: Any) -> str:
    started = time.monotonic()
    try:
        client.prepare(timeout=1).call({}, "sleep", seconds=2)
    except oslo_messaging.MessagingTimeout as error:
        elapsed = time.monotonic() - started
        expect(1.0 <= elapsed < 1.5, f"due after 1 s, but came after {elapsed:.2f} s")
        return f"after {elapsed:.3f} s of 1 s: {error}"
    raise DemoError("a call of 2 s did not time out after 1 s")


def nobody(client: Any, notifier: Any) -> str:
    try:
        client.prepare(topic="nobody-here", timeout=1).call({}, "whoami")
    except oslo_messaging.MessagingTimeout as error:
        expect("nobody listens" in str(error), f"the reason is not said: {error}")
        return str(error)
    raise DemoError("a call that nobody listens to did not fail")


def notifications(client: Any, notifier: Any) -> str:
    for number in range(4):
        notifier.info({}, "demo.event", {"number": number})

    def received() -> list[str]:
        return [
            note
            for name in ("alpha", "beta")
            for note in notes(client, name)
            if note.startswith("demo.event")
        ]

    eventually(lambda: len(received()) >= 4, "4 notifications were handled")
    expect(len(set(received())) == len(received()) == 4, f"not each once: {received()}")
    return "4 sent, each handled once, by alpha and beta in turn"


def notes(client: Any, server: str) -> list[str]:
    found: list[str] = client.prepare(server=server).call({}, "notes")
    return found


STEPS: Final[dict[str, Step]] = {
    "call": call,
    "directed call": directed_call,
    "cast": cast,
    "fanout": fanout,
    "remote exception": remote_exception,
    "timeout": timeout,
    "nobody listens": nobody,
    "notifications": notifications,
}


def make_client(transport: Any) -> Any:
    """A client of the demo's servers."""
    return oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=TOPIC), timeout=PATIENCE
    )


def make_notifier(transport: Any) -> Any:
    """A notifier that the demo's servers listen to."""
    return oslo_messaging.Notifier(
        transport, publisher_id="demo", driver="messaging", topics=[EVENTS]
    )
