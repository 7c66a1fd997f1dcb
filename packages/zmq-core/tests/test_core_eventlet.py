# SPDX-License-Identifier: Apache-2.0
"""The same code under eventlet's monkey-patching: green threads wait, the hub never does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import eventlet  # noqa: F401 - the scripts need it; so builds that infer requirements know

pytestmark = pytest.mark.alone

GREEN = """
import eventlet
eventlet.monkey_patch()
import json, os, sys, threading, time
from zmq_core import *

KEY = TargetKey("openstack", "echo")
endpoint = sys.argv[1]
stalls = []
done = False

def tick():
    while not done:
        before = time.monotonic()
        eventlet.sleep(0.005)
        stalls.append(time.monotonic() - before - 0.005)

def tell(**facts):
    stalls.sort()
    facts["median"] = stalls[len(stalls) // 2]
    facts["p99"] = stalls[len(stalls) * 99 // 100]
    facts["worst"] = stalls[-1]
    facts["threads"] = len(os.listdir("/proc/self/task"))
    print(json.dumps(facts), flush=True)

ticker = eventlet.spawn(tick)
files = len(os.listdir("/proc/self/fd"))
node = Node(NodeOptions(bind_address="127.0.0.1", linger=1,
                        heartbeat_interval=0.3, heartbeat_timeout=0.9))
"""


def assert_hub_went_on(facts: dict[str, Any]) -> None:
    assert facts["median"] < 0.05, facts
    assert facts["p99"] < 0.3, facts
    assert facts["worst"] < 1.0, facts


@pytest.fixture
def green(run_python: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Run a monkey-patched client; what it tells, and the proof that its hub never stood still."""

    def run(script: str, *arguments: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(run_python(GREEN + script, *arguments))
        assert_hub_went_on(facts)
        return facts

    return run


def test_two_hundred_green_threads_call_at_once_and_get_their_own_answers(
    green: Callable[..., dict[str, Any]], child_node: Callable[..., Any]
) -> None:
    facts = green(
        """
wrong = []

def ask(number):
    for turn in range(5):
        body = b"%d/%d" % (number, turn)
        if node.request(endpoint, KEY, body, timeout=50).body != body:
            wrong.append(body)

pool = [eventlet.spawn(ask, number) for number in range(200)]
for thread in pool:
    thread.wait()
node.close()
done = True
ticker.wait()
tell(wrong=len(wrong), files=len(os.listdir("/proc/self/fd")) - files,
     alive=threading.active_count())
""",
        child_node().endpoint,
    )
    assert facts["wrong"] == 0
    assert facts["files"] <= 0
    assert facts["alive"] == 1
    assert facts["threads"] == 1, "a native thread is left"


def test_twenty_calls_of_one_second_take_about_one_second(
    green: Callable[..., dict[str, Any]], child_node: Callable[..., Any]
) -> None:
    facts = green(
        """
node.request(endpoint, KEY, b"x", timeout=10)
began = time.monotonic()
pool = [eventlet.spawn(node.request, endpoint, KEY, b"after 1", timeout=30) for _ in range(20)]
answers = {thread.wait().body for thread in pool}
took = time.monotonic() - began
node.close()
done = True
ticker.wait()
tell(took=took, answers=len(answers))
""",
        child_node().endpoint,
    )
    assert facts["answers"] == 1
    assert 1 <= facts["took"] < 2


def test_green_callers_learn_of_timeouts_refusals_and_deaths(
    green: Callable[..., dict[str, Any]],
    child_node: Callable[..., Any],
    free_port: Callable[[], int],
) -> None:
    facts = green(
        """
def outcome(*args, **kwargs):
    began = time.monotonic()
    try:
        node.request(*args, **kwargs)
    except CoreError as error:
        return type(error).__name__, round(time.monotonic() - began, 1)

nobody = TargetKey("openstack", "nobody")
late = outcome(endpoint, KEY, b"silence", timeout=0.5)
refused = outcome(endpoint, nobody, b"", timeout=30)
unreachable = outcome(sys.argv[2], KEY, b"", timeout=30)
waiting = eventlet.spawn(outcome, endpoint, KEY, b"silence", timeout=30)
killer = eventlet.spawn_after(0.2, outcome, endpoint, KEY, b"die", timeout=30)
lost, killed = waiting.wait(), killer.wait()
node.close()
done = True
ticker.wait()
tell(late=late, refused=refused[0], unreachable=unreachable[0], lost=lost, killed=killed)
""",
        child_node().endpoint,
        f"tcp://127.0.0.1:{free_port()}",
    )
    assert facts["late"][0] == "RequestTimeout"
    assert 0.5 <= facts["late"][1] < 1
    assert (facts["refused"], facts["unreachable"]) == ("Refused", "PeerUnreachable")
    assert facts["lost"][0] == facts["killed"][0] == "PeerLost"
    assert facts["lost"][1] < 3


def test_green_server_answers_itself_and_is_slowed_without_standing_still(
    green: Callable[..., dict[str, Any]], child_node: Callable[..., Any]
) -> None:
    facts = green(
        """
inbox = eventlet.queue.LightQueue()
own = TargetKey("openstack", "own")
node.listen(own, inbox.put, backlog=5)

def work():
    while True:
        incoming = inbox.get()
        incoming.release()
        eventlet.sleep(0.001)
        incoming.reply(incoming.body)

worker = eventlet.spawn(work)
pool = [eventlet.spawn(node.request, node.bind(), own, b"%d" % n, timeout=50) for n in range(100)]
answers = sorted(int(thread.wait().body) for thread in pool)
worker.kill()
node.close()
done = True
ticker.wait()
tell(right=answers == list(range(100)))
""",
        "unused",
    )
    assert facts["right"]


def test_green_thread_that_is_killed_while_it_waits_leaves_the_link_usable(
    green: Callable[..., dict[str, Any]], child_node: Callable[..., Any]
) -> None:
    facts = green(
        """
answered = 0
node.request(endpoint, KEY, b"x", timeout=10)
for _ in range(20):
    waiting = eventlet.spawn(node.request, endpoint, KEY, b"after 0.3", timeout=30)
    eventlet.sleep(0.005)
    waiting.kill()
    try:
        with eventlet.Timeout(0.01):
            node.request(endpoint, KEY, b"after 0.3", timeout=30)
    except eventlet.Timeout:
        pass
    answered += node.request(endpoint, KEY, b"x", timeout=10).body == b"x"
abandoned = int(node.request(endpoint, KEY, b"count", timeout=10).body) - 1 - answered
end = time.monotonic() + 20
while node.statistics.late_replies < abandoned and time.monotonic() < end:
    eventlet.sleep(0.01)
links = len(node.links)
node.close()
done = True
ticker.wait()
tell(answered=answered, abandoned=abandoned, late=node.statistics.late_replies, links=links)
""",
        child_node().endpoint,
    )
    assert facts["answered"] == 20
    assert facts["late"] == facts["abandoned"] > 0
    assert facts["links"] == 1


def test_stopped_peer_does_not_stop_the_hub(
    green: Callable[..., dict[str, Any]], child_node: Callable[..., Any]
) -> None:
    facts = green(
        """
import signal
pid = int(node.request(endpoint, KEY, b"pid", timeout=10).body)
os.kill(pid, signal.SIGSTOP)
while " T " not in open(f"/proc/{pid}/stat").read():
    eventlet.sleep(0.001)
began = time.monotonic()
try:
    node.request(endpoint, KEY, b"x", timeout=30)
    lost = False
except PeerLost:
    lost = True
took = time.monotonic() - began
os.kill(pid, signal.SIGCONT)
node.close()
done = True
ticker.wait()
tell(lost=lost, took=took)
""",
        child_node().endpoint,
    )
    assert facts["lost"]
    assert facts["took"] < 3
