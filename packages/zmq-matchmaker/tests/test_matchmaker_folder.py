# SPDX-License-Identifier: Apache-2.0
"""A folder that many processes share, some of which are killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from zmq_matchmaker import (
    Directory,
    Key,
    Matchmaker,
    MatchmakerURL,
    Record,
    Role,
    Unavailable,
    load,
)

KEY = Key(Role.LISTENER, "openstack", "conductor")
RECORD = Record(endpoint="tcp://127.0.0.1:49153")

CHILD = """
import sys
from zmq_matchmaker import Key, MatchmakerURL, Record, Role, load
matchmaker = load(MatchmakerURL.parse(sys.argv[1]))
key = Key(Role.LISTENER, "openstack", "conductor")
entries = [(key, Record(endpoint=f"tcp://127.0.0.1:{port}")) for port in map(int, sys.argv[2:])]
matchmaker.register(entries, None)
print("registered", flush=True)
while sys.stdin.readline() == "again\\n":
    for _ in range(200):
        matchmaker.unregister(entries)
        matchmaker.register(entries, 60)
    print("done", flush=True)
"""


class Child:
    """A process that registers, and waits."""

    def __init__(self, url: str, *ports: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, url, *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hears("registered")

    def hears(self, text: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{text}\n"

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/registry/"


@pytest.fixture
def matchmaker(url: str) -> Matchmaker:
    return load(MatchmakerURL.parse(url))


def files(folder: Path) -> list[Path]:
    """The files of records, and what writing them may leave."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if path.parent.name != ".changes"]


def rewrite(folder: Path, **changes: object) -> None:
    """Change the one record there is, as a process elsewhere would have written it."""
    [path] = files(folder)
    content = msgspec.json.decode(path.read_bytes())
    process = changes.pop("process", {})
    assert isinstance(process, dict)
    content["process"].update(process)
    content.update(changes)
    path.write_bytes(msgspec.json.encode(content))


def test_the_folder_is_made_for_its_user_alone(matchmaker: Matchmaker, tmp_path: Path) -> None:
    assert matchmaker.lookup([KEY]) == [()]
    assert not (tmp_path / "registry").exists()
    matchmaker.register([(KEY, RECORD)], 60)
    assert (tmp_path / "registry").stat().st_mode & 0o777 == 0o700


def test_a_path_without_suffix_is_a_folder_too(tmp_path: Path) -> None:
    matchmaker = load(MatchmakerURL.parse(f"file://{tmp_path}/registry"))
    matchmaker.register([(KEY, RECORD)], 60)
    assert matchmaker.lookup([KEY]) == [(RECORD,)]


def test_a_folder_that_looks_like_a_table_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "registry.json").mkdir()
    matchmaker = load(MatchmakerURL.parse(f"file://{tmp_path}/registry.json"))
    matchmaker.register([(KEY, RECORD)], 60)
    assert matchmaker.lookup([KEY]) == [(RECORD,)]


def test_records_of_a_killed_process_are_collected_and_others_stay(
    matchmaker: Matchmaker, url: str, tmp_path: Path
) -> None:
    doomed, other = Child(url, 1, 2), Child(url, 3)
    try:
        assert len(matchmaker.lookup([KEY])[0]) == 3
        doomed.kill()
        assert matchmaker.lookup([KEY]) == [(Record(endpoint="tcp://127.0.0.1:3"),)]
        assert len(files(tmp_path)) == 1
    finally:
        doomed.kill()
        other.kill()


def test_a_record_is_not_taken_for_that_of_a_later_process_of_the_same_number(
    matchmaker: Matchmaker, tmp_path: Path
) -> None:
    matchmaker.register([(KEY, RECORD)], 60)
    rewrite(tmp_path, process={"started": 1})
    assert matchmaker.lookup([KEY]) == [()]


def test_a_record_from_before_the_host_was_restarted_is_collected(
    matchmaker: Matchmaker, tmp_path: Path
) -> None:
    matchmaker.register([(KEY, RECORD)], None)
    rewrite(tmp_path, process={"boot": "another"})
    assert matchmaker.lookup([KEY]) == [()]
    assert files(tmp_path) == []


@pytest.mark.parametrize("elsewhere", [{"namespace": "pid:[1]"}, {"boot": "b", "host": "h"}])
def test_a_process_of_another_container_or_host_is_trusted_until_its_record_expires(
    matchmaker: Matchmaker, tmp_path: Path, elsewhere: dict[str, str]
) -> None:
    matchmaker.register([(KEY, RECORD)], 60)
    rewrite(tmp_path, process={"pid": 2**22 + 1, **elsewhere})
    assert matchmaker.lookup([KEY]) == [(RECORD,)]
    rewrite(tmp_path, until=time.time() - 1, until_uptime=0.0)
    assert matchmaker.lookup([KEY]) == [()]


def test_f29_a_clock_that_jumps_expires_nothing(matchmaker: Matchmaker, tmp_path: Path) -> None:
    matchmaker.register([(KEY, RECORD)], 60)
    rewrite(tmp_path, until=time.time() - 3600)
    assert matchmaker.lookup([KEY]) == [(RECORD,)]


def test_garbage_is_ignored_with_one_warning(
    matchmaker: Matchmaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    matchmaker.register([(KEY, RECORD)], 60)
    [path] = files(tmp_path)
    good = path.read_bytes()
    for number, garbage in enumerate((b"", b"\xff\x00", good[:-5], b"{}")):
        (path.parent / f"garbage{number}.record").write_bytes(garbage)
    (path.parent / "README").write_text("not ours")
    (path.parent / "folder.record").mkdir()
    for _ in range(20):
        assert matchmaker.lookup([KEY]) == [(RECORD,)]
    assert len(caplog.records) == 5


def test_what_a_writer_left_that_was_killed_is_collected(
    matchmaker: Matchmaker, tmp_path: Path
) -> None:
    matchmaker.register([(KEY, RECORD)], 60)
    [path] = files(tmp_path)
    old, young = path.with_suffix(".1-0.draft"), path.with_suffix(".2-0.draft")
    for draft in (old, young):
        draft.write_bytes(b"{")
    os.utime(old, (time.time() - 3600,) * 2)
    assert matchmaker.lookup([KEY]) == [(RECORD,)]
    assert not old.exists()
    assert young.exists()


def test_a_folder_that_an_operator_made_for_several_users_stays_open_to_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    folder.chmod(0o1770)
    before = os.umask(0o077)
    try:
        matchmaker = load(MatchmakerURL.parse(f"file://{folder}"))
        matchmaker.register([(KEY, RECORD)], 60)
        matchmaker.set_aside({(KEY, RECORD): 10.0})
    finally:
        os.umask(before)
    made = list(folder.rglob("*"))
    assert len(made) >= 8
    for place in made:
        expected = 0o770 if place.is_dir() else 0o660
        assert place.stat().st_mode & 0o777 == expected, place


AS_USER = """
import os, sys
from zmq_matchmaker import Key, MatchmakerURL, Record, Role, load
matchmaker = load(MatchmakerURL.parse(sys.argv[1]))
# Now, since that user may not be able to read Python's own files.
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
key = Key(Role.LISTENER, "openstack", "conductor")
[found] = matchmaker.find([key])
matchmaker.set_aside({(key, standing.record): 5.0 for standing in found.standings})
matchmaker.set_aside({(key, standing.record): 0.0 for standing in found.standings})
matchmaker.register([(key, Record(endpoint=f"tcp://h:{sys.argv[2]}"))], 60)
matchmaker.unregister([(key, Record(endpoint=f"tcp://h:{sys.argv[2]}"))])
matchmaker.register([(key, Record(endpoint=f"tcp://h:{sys.argv[2]}"))], None)
watch = matchmaker.watch(lambda key: None)
assert watch is not None
watch.close()
print(len(found.standings), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become other users")
def test_processes_of_several_users_share_a_folder_that_was_made_for_them() -> None:
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o1777)
        users = []
        for number, user in enumerate((1001, 1002, 1003)):
            process = subprocess.Popen(
                [sys.executable, "-c", AS_USER, f"file://{top}", str(user)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            users.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == f"{number}\n"
        for process in users:
            process.communicate()
        matchmaker = load(MatchmakerURL.parse(f"file://{top}"))
        assert matchmaker.lookup([KEY]) == [()]  # all have ended


def test_threads_that_are_the_first_to_use_it_at_once_remove_what_they_registered(
    tmp_path: Path,
) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            matchmaker = load(MatchmakerURL.parse(f"file://{tmp_path}/"))
            start = threading.Barrier(4)

            def use(matchmaker: Matchmaker, start: threading.Barrier, port: int) -> None:
                entries = [(KEY, Record(endpoint=f"tcp://127.0.0.1:{port}"))]
                start.wait()
                matchmaker.register(entries, 60)
                matchmaker.unregister(entries)

            threads = [
                threading.Thread(target=use, args=(matchmaker, start, port)) for port in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert matchmaker.lookup([KEY]) == [()]
    finally:
        sys.setswitchinterval(interval)


def test_f34_readers_see_a_record_whole_while_others_write_and_remove_theirs(
    matchmaker: Matchmaker, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    matchmaker.register([(KEY, RECORD)], 60)
    children = [Child(url, 1), Child(url, 2)]
    try:
        for child in children:
            child.say("again")
        for _ in range(300):
            found = matchmaker.lookup([KEY])[0]
            assert RECORD in found
            assert {record.endpoint for record in found} <= {
                RECORD.endpoint,
                "tcp://127.0.0.1:1",
                "tcp://127.0.0.1:2",
            }
        for child in children:
            child.hears("done")
        assert len(matchmaker.lookup([KEY])[0]) == 3
    finally:
        for child in children:
            child.kill()
    assert caplog.records == []


def test_f34_writers_that_are_killed_in_the_midst_leave_no_half_of_a_record(
    matchmaker: Matchmaker, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    matchmaker.register([(KEY, RECORD)], 60)
    allowed = {RECORD.endpoint, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"}
    for looks in (1, 7, 20, 50):
        children = [Child(url, 1), Child(url, 2)]
        try:
            for child in children:
                child.say("again")
            for _ in range(looks):
                found = matchmaker.lookup([KEY])[0]
                assert RECORD in found
                assert {record.endpoint for record in found} <= allowed
        finally:
            for child in children:
                child.kill()
        for file in files(tmp_path):
            if file.suffix == ".record":
                assert msgspec.json.decode(file.read_bytes())["owner"], "it is whole"
    assert matchmaker.lookup([KEY]) == [(RECORD,)]
    assert caplog.records == []


def test_folders_of_keys_that_nobody_listens_on_are_removed_in_the_midst_of_writing(
    matchmaker: Matchmaker, url: str
) -> None:
    # Each removes the folder that the others write to.
    children = [Child(url, port) for port in range(1, 5)]
    try:
        for child in children:
            child.say("again")
        for child in children:
            child.hears("done")
        assert len(matchmaker.lookup([KEY])[0]) == 4
    finally:
        for child in children:
            child.kill()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    matchmaker = load(MatchmakerURL.parse(f"file://{tmp_path}/file/registry/"))
    with pytest.raises(Unavailable, match=f"{tmp_path}/file/registry.*cannot be used: Not a"):
        matchmaker.register([(KEY, RECORD)], 60)


def test_expired_records_are_removed_by_those_who_look(
    matchmaker: Matchmaker, tmp_path: Path, until: Callable[..., None]
) -> None:
    matchmaker.register([(KEY, RECORD)], 0.05)
    until(lambda: matchmaker.lookup([KEY]) == [()], "expired")
    assert files(tmp_path) == []


def test_nothing_is_left_of_keys_and_marks_whose_processes_were_killed(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/registry"
    child = Child(url, 1, 2)
    matchmaker = load(MatchmakerURL.parse(url))
    matchmaker.set_aside({(KEY, Record(endpoint="tcp://127.0.0.1:1")): 0.05})
    child.kill()
    assert matchmaker.lookup([KEY]) == [()]
    stale = tmp_path / "registry" / "listener" / "openstack" / "conductor" / "%" / "x.aside"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_text("1.0")
    assert matchmaker.lookup([KEY]) == [()]
    assert [place for place in tmp_path.rglob("*") if place.is_file()] == []


def test_a_change_is_reported_by_key_and_a_refresh_is_none(
    matchmaker: Matchmaker, until: Callable[..., None]
) -> None:
    told: list[Key | None] = []
    other = KEY._replace(topic="other")
    watch = matchmaker.watch(told.append)
    assert watch is not None
    try:
        watch.follow([KEY])
        matchmaker.register([(KEY, RECORD), (other, RECORD)], 60)
        until(lambda: told == [KEY], "the new record")
        matchmaker.register([(KEY, RECORD)], 60)
        matchmaker.set_aside({(KEY, RECORD): 5})
        until(lambda: told == [KEY] * 2, "set aside")
        matchmaker.set_aside({(KEY, RECORD): 6})
        matchmaker.register([(KEY, RECORD)], 60)
        until(lambda: told == [KEY] * 3, "registered anew")
        matchmaker.unregister([(KEY, RECORD)])
        until(lambda: told == [KEY] * 4, "gone")
    finally:
        watch.close()


def test_a_folder_that_is_removed_and_made_again_is_watched_again(
    matchmaker: Matchmaker, tmp_path: Path, until: Callable[..., None]
) -> None:
    told: list[Key | None] = []
    matchmaker.register([(KEY, RECORD)], 60)
    watch = matchmaker.watch(told.append)
    assert watch is not None
    try:
        watch.follow([KEY])
        for folder in tmp_path.iterdir():
            shutil.rmtree(folder)
        until(lambda: None in told, "anything may have changed")

        def seen() -> bool:
            matchmaker.unregister([(KEY, RECORD)])
            matchmaker.register([(KEY, RECORD)], 60)
            return KEY in told

        until(seen, "reported again")
    finally:
        watch.close()


@pytest.mark.alone
def test_a_client_in_use_sees_who_comes_leaves_and_does_not_answer_within_a_second(
    url: str, make_directory: Callable[..., Directory], until: Callable[..., None]
) -> None:
    client, one, other = (make_directory(url) for _ in range(3))
    new = Record(endpoint="tcp://127.0.0.1:2")
    one.announce([(KEY, RECORD)])
    assert client.lookup(KEY, 5) == (RECORD,)
    other.announce([(KEY, new)])
    until(lambda: new in client.lookup(KEY, 5), "comes", seconds=1)
    one.lookup(KEY, 5)
    one.nack(KEY, "127.0.0.1:2")
    until(lambda: client.lookup(KEY, 5) == (RECORD,), "set aside", seconds=1)
    one.ack(KEY, new)
    until(lambda: new in client.lookup(KEY, 5), "back", seconds=1)
    other.close()
    until(lambda: client.lookup(KEY, 5) == (RECORD,), "left", seconds=1)
