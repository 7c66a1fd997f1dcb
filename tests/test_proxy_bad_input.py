# SPDX-License-Identifier: Apache-2.0
"""Strangers at a proxy: whatever they send, it serves everybody else as before.

Each test holds that against a pair of honest peers that talk through the same
proxy meanwhile: see `HonestPair`.
"""

from __future__ import annotations

import random
import re
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from harness.honest import HonestPair
from harness.leaks import wait_until
from harness.proxies import ProxyProcess
from harness.strangers import (
    NOBODY,
    Stranger,
    dial,
    frame,
    handshake,
    message,
    shake_hands,
    was_cut_off,
)
from zmq_core import MessageType, NackCode, encode
from zmq_matchmaker import Key, MatchmakerURL, Role, load

MIB = 2**20
HANDSHAKE = 1.0
SILENCE = 1.5
"""Seconds for which a peer may take nothing."""
EXPIRE = 3
"""Seconds after which the record of a proxy that does not refresh it is gone."""
RESERVE = 32
"""Descriptors that a proxy keeps from connections."""
OPTIONS = {
    "use_router_proxy": True,
    "zmq_connect_timeout": HANDSHAKE,
    "zmq_heartbeat_interval": 0.5,
    "zmq_heartbeat_timeout": SILENCE - 0.5,
    "zmq_max_message_size": 8 * MIB,
    "zmq_target_expire": EXPIRE,
    "zmq_linger": 1,
}


@pytest.fixture
def proxy(nothing_is_left_behind: None, tmp_path: Path, file_url: str) -> Iterator[ProxyProcess]:
    """A proxy that gives up on strangers quickly."""
    made = ProxyProcess(tmp_path, file_url, OPTIONS)
    yield made
    made.kill()


@pytest.fixture
def honest(proxy: ProxyProcess) -> Iterator[HonestPair]:
    """Peers that notice nothing."""
    with HonestPair(proxy.address) as pair:
        yield pair


@pytest.fixture
def stranger(proxy: ProxyProcess) -> Iterator[Stranger]:
    """Somebody who knows ZMTP but keeps to nothing else."""
    with Stranger(proxy.address) as made:
        yield made


@pytest.fixture
def grown(proxy: ProxyProcess) -> Callable[[], int]:
    """By how many bytes the proxy's memory has grown since the test began."""
    process = psutil.Process(proxy.process.pid)
    before = process.memory_info().rss
    return lambda: process.memory_info().rss - before


def counted(proxy: ProxyProcess) -> dict[str, int]:
    """End the proxy; what it says to have counted."""
    assert proxy.stop() == 0
    told = re.search(r"stopped; Statistics\((.*)\)", proxy.output)
    assert told, proxy.output
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", told[1])}


def descriptors(proxy: ProxyProcess) -> int:
    """How many the proxy has open."""
    return psutil.Process(proxy.process.pid).num_fds()


def await_parting(proxy: ProxyProcess, connection: socket.socket) -> None:
    """Wait until the proxy has ended a connection that takes nothing."""
    process, port = psutil.Process(proxy.process.pid), connection.getsockname()[1]

    def ended() -> bool:
        return port not in {c.raddr.port for c in process.net_connections("tcp") if c.raddr}

    wait_until(ended, "it is cut off", timeout=SILENCE + 5)


def processor_time(proxy: ProxyProcess) -> float:
    """Seconds of a processor that it has used."""
    times = psutil.Process(proxy.process.pid).cpu_times()
    return times.user + times.system


def share_of_processor(proxy: ProxyProcess, honest: HonestPair) -> float:
    """How much of a processor it uses while the honest pair talks."""
    used, began = processor_time(proxy), time.monotonic()
    honest.more(100)
    return (processor_time(proxy) - used) / (time.monotonic() - began)


def records(url: str) -> int:
    """How many records of proxies there are."""
    matchmaker = load(MatchmakerURL.parse(url))
    try:
        return len(matchmaker.lookup([Key(Role.ROUTER)])[0])
    finally:
        matchmaker.close()


def dice() -> random.Random:
    """Random numbers that a failing test can have again."""
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


def random_frames(rng: random.Random) -> list[bytes]:
    number = rng.choice((1, 1, 2, 3, 4, 5, 6, 7, 300))
    return [rng.randbytes(rng.choice((0, 0, 1, 4, 28, 300))) for _ in range(number)]


# -- frames that are no messages ---------------------------------------------------------


def test_random_frames_on_the_frontend_are_counted_and_disturb_nobody(
    proxy: ProxyProcess, honest: HonestPair, stranger: Stranger
) -> None:
    rng = dice()
    destinations = [b"", NOBODY, rng.randbytes(255), rng.randbytes(5000), honest.name]
    for number in range(5000):
        destination = destinations[number % len(destinations)]
        stranger.push.send_multipart([destination, *random_frames(rng)])
        if number % 10 == 0:
            stranger.push.send(rng.choice(destinations))  # a destination and nothing else
    stranger.settle()
    honest.more()
    # What the receiver gets of it, it refuses; a frame alone is ignored.
    assert honest.server.statistics.malformed > 500
    honest.finish()
    assert counted(proxy)["malformed"] >= 4000
    assert proxy.output.count("dropped a message") < 10


def test_random_frames_on_the_backend_are_thrown_away_and_disturb_nobody(
    proxy: ProxyProcess, honest: HonestPair
) -> None:
    rng = dice()
    number = 10_000
    with shake_hands(proxy.ports[1], b"DEALER", b"a talker") as talker:
        talker.settimeout(30)
        for _ in range(number // 10):
            *most, last = random_frames(rng)
            parts = [frame(part, more=True) for part in most] + [frame(last, more=False)]
            talker.sendall(b"".join(parts) + 9 * frame(b"", more=False))
        # Longer frames than a handshake needs are not even read: that is the end of it.
        talker.sendall(frame(b"", more=False, claimed=5000))
        wait_until(lambda: was_cut_off(talker), "all was read", timeout=30)
    wait_until(lambda: share_of_processor(proxy, honest) < 0.5, "it rests again", timeout=20)
    honest.finish()
    assert counted(proxy)["discarded"] >= number - 20, "but for what was in the queue"
    assert proxy.output.count("sent to the backend port") < 10


def test_f25_another_version_is_refused_by_name_by_its_receiver_or_else_by_the_proxy(
    honest: HonestPair, stranger: Stranger
) -> None:
    stranger.settle()
    for destination in (honest.name, NOBODY):
        envelope = message()
        header, *rest = encode(envelope)
        newer = header[:2] + bytes([header[2] + 1]) + header[3:]
        for frames in ([newer, *rest], [newer + b"more", *rest, b"another"]):
            stranger.send(destination, frames)
            nack = stranger.receive()
            assert nack.type is MessageType.NACK
            assert nack.nack_code is NackCode.UNSUPPORTED_VERSION
            assert nack.id == envelope.id


@pytest.mark.parametrize(
    "key",
    [
        b"\x04\x01" + b"x" * 1025 + b"\x00\x00" * 2,
        b"\xff\xff" + b"x" * 65535 + b"\x00\x00" * 2,
        b"\x00\x04" + b"x" * 5 * MIB,
    ],
    ids=["one byte too long", "64 KiB", "5 MiB"],
)
def test_an_absurdly_long_topic_is_refused_and_takes_no_memory(
    proxy: ProxyProcess,
    honest: HonestPair,
    stranger: Stranger,
    grown: Callable[[], int],
    key: bytes,
) -> None:
    stranger.settle()
    envelope = message()
    header, _, body = encode(envelope)
    stranger.send(honest.name, [header, key, body])
    nack = stranger.receive()
    assert (nack.id, nack.nack_code) == (envelope.id, NackCode.MALFORMED)
    for _ in range(20):
        stranger.send(NOBODY, [header, key, body])
        stranger.settle()
    assert grown() < 64 * MIB
    honest.finish()
    assert counted(proxy)["malformed"] == 20


# -- messages that do not end ------------------------------------------------------------


@pytest.mark.parametrize(
    "last",
    [b"", frame(b"part of it", more=False, claimed=MIB), frame(b"", more=True, claimed=MIB)[:5]],
    ids=["the last frame never comes", "it ends within a frame", "it ends within a length"],
)
def test_a_message_that_ends_midway_is_passed_on_to_nobody(
    proxy: ProxyProcess, honest: HonestPair, last: bytes
) -> None:
    half = b"".join(frame(part, more=True) for part in (honest.name, b"half", *encode(message())))
    for _ in range(10):
        with shake_hands(proxy.ports[0], b"PUSH") as connection:
            connection.sendall(half + last)
            honest.more(5)
            assert not was_cut_off(connection), "it may still go on"
    with ExitStack() as held:  # and without an end at all
        for _ in range(20):
            held.enter_context(shake_hands(proxy.ports[0], b"PUSH")).sendall(half + last)
        honest.more()
    assert honest.server.statistics.malformed == 0


def test_a_frame_that_claims_gigabytes_ends_the_connection_of_its_sender_only(
    proxy: ProxyProcess, honest: HonestPair, grown: Callable[[], int]
) -> None:
    start = b"".join(frame(part, more=True) for part in (honest.name, b"huge"))
    for claimed in (8 * MIB + 1, 2**33, 2**63 - 1):
        with shake_hands(proxy.ports[0], b"PUSH") as connection:
            connection.sendall(start + frame(b"so much", more=False, claimed=claimed))
            wait_until(lambda: was_cut_off(connection), "it is cut off")
    assert grown() < 32 * MIB
    assert honest.server.statistics.malformed == 0


# -- too much of everything --------------------------------------------------------------


@pytest.mark.parametrize("reads", [True, False], ids=["and reads", "and does not read"])
def test_a_flood_to_nobody_is_refused_with_few_words_and_in_little_memory(
    proxy: ProxyProcess,
    honest: HonestPair,
    stranger: Stranger,
    grown: Callable[[], int],
    reads: bool,
) -> None:
    stranger.settle()
    number, told = 20_000, 0
    frames = encode(message(MessageType.CAST, bytes(4000)))
    before = len(honest.answered)
    for _ in range(number):
        stranger.send(NOBODY, frames)
        while reads and stranger.dealer.poll(0):
            assert stranger.receive().nack_code is NackCode.UNROUTABLE
            told += 1
    with Stranger(proxy.address, b"later") as later:
        later.settle()  # need not wait until the flood has ebbed away
    assert len(honest.answered) - before > 20, "they were served during the flood"
    # What the stranger does not read is bounded by one queue.
    assert grown() < 32 * MIB
    stranger.settle()
    honest.finish()
    counters = counted(proxy)
    assert counters["unroutable"] >= number
    assert counters["nacks"] + counters["nacks_lost"] >= number
    assert counters["nacks"] >= told
    assert bool(told) == reads
    assert proxy.output.count("refused a CAST") < 10


def test_a_receiver_that_never_reads_is_cut_off_and_until_then_bounded(
    proxy: ProxyProcess, honest: HonestPair, stranger: Stranger, grown: Callable[[], int]
) -> None:
    stranger.settle()
    body = bytes(100_000)
    for _ in range(2):  # the memory of one that was cut off serves for the next
        with shake_hands(proxy.ports[1], b"DEALER", b"deaf", receive_buffer=4096) as deaf:
            full = False
            for _ in range(1500):
                stranger.send(b"deaf", encode(message(MessageType.CALL, body)))
                while stranger.dealer.poll(0):
                    assert stranger.receive().nack_code is NackCode.QUEUE_FULL
                    full = True
            assert full or stranger.receive().nack_code is NackCode.QUEUE_FULL
            # 1000 messages in the proxy's queue; what TCP holds is not its own.
            assert grown() < 1000 * len(body) + 32 * MIB
            # Its kernel answers all the while, but has no room. So it cannot be told either.
            await_parting(proxy, deaf)
        stranger.settle()
        stranger.send(b"deaf", encode(message()))
        assert stranger.receive().nack_code is NackCode.UNROUTABLE


# -- connections -------------------------------------------------------------------------


def test_f26_connections_that_never_speak_zmtp_are_let_go_of(
    proxy: ProxyProcess, honest: HonestPair
) -> None:
    before = descriptors(proxy)
    for port in proxy.ports:
        for _ in range(50):  # a scan: connect and go, half of them with a reset
            with dial(port) as scanner:
                scanner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            dial(port).close()
    with ExitStack() as held:
        lines = [b"", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"\xff" + bytes(8), b"\x16\x03\x01"]
        for number in range(80):
            connection = held.enter_context(dial(proxy.ports[number % 2]))
            connection.sendall(lines[number // 2 % len(lines)])
            if number == 40:
                wait_until(lambda: descriptors(proxy) > before + 5, "they are let in")
        wait_until(
            lambda: descriptors(proxy) <= before, "they were let go of", timeout=HANDSHAKE + 5
        )
        honest.more()


def test_f27_at_its_descriptor_limit_a_proxy_turns_newcomers_away_and_rests(
    proxy: ProxyProcess, honest: HonestPair, file_url: str
) -> None:
    room = 20
    limit = descriptors(proxy) + RESERVE + room
    resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    with ExitStack() as held:
        for _ in range(room - 2):  # there may be room for one or two more
            held.enter_context(shake_hands(proxy.ports[0], b"PUSH"))
        newcomers = [held.enter_context(dial(proxy.ports[0])) for _ in range(80)]
        for newcomer in newcomers:
            with suppress(OSError):
                newcomer.sendall(handshake(b"PUSH"))
        wait_until(lambda: sum(map(was_cut_off, newcomers)) >= 75, "most were turned away")
        assert f"{limit} open descriptors" in proxy.output
        assert proxy.output.count("hung up on a new connection") == 1
        used, began = processor_time(proxy), time.monotonic()
        while time.monotonic() < began + EXPIRE + 1:
            honest.more(50)
        assert processor_time(proxy) - used < 0.3 * (time.monotonic() - began), "it rests"
        assert records(file_url) == 2, "it keeps its place in the registry"
    with ExitStack() as held:
        wait_until(lambda: descriptors(proxy) <= limit - RESERVE - room, "they have gone")
        held.enter_context(HonestPair(proxy.address)).more()
