# SPDX-License-Identifier: Apache-2.0
"""What README.md and docs/matchmaker.md show is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from zmq_matchmaker import (
    Characteristics,
    Key,
    Matchmaker,
    MatchmakerURL,
    Record,
    Role,
    encode_key,
    load,
)
from zmq_matchmaker.backends._table_file import read_table
from zmq_matchmaker.backends.dummy import DummyMatchmaker
from zmq_matchmaker.backends.folder import FolderMatchmaker
from zmq_matchmaker.backends.redis import SETTINGS, RedisMatchmaker
from zmq_matchmaker.backends.redis._settings import RedisSettings
from zmq_matchmaker.backends.table import TableMatchmaker
from zmq_matchmaker.testing import RedisServer

PACKAGE = Path(__file__).parent.parent
README = (PACKAGE / "README.md").read_text(encoding="utf-8")
PAGE = (PACKAGE.parent.parent / "docs" / "matchmaker.md").read_text(encoding="utf-8")
BACKENDS: dict[str, type[Matchmaker]] = {
    "dummy": DummyMatchmaker,
    "file (table)": TableMatchmaker,
    "file (folder)": FolderMatchmaker,
    "redis": RedisMatchmaker,
}


def run(*arguments: str, **environment: str) -> str:
    """The output of a Python process that finds what this one finds."""
    path = os.pathsep.join([environment.pop("PYTHONPATH", ""), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, **environment, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_example_of_the_readme_runs_as_it_stands() -> None:
    [example] = blocks(README, "python")
    assert len([line for line in example.splitlines() if line]) <= 10
    assert run("-c", example) == "host1 listens on tcp://10.0.0.1:49153\n"


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (PACKAGE / target).is_file(), target


def test_table_of_characteristics_is_that_of_the_classes() -> None:
    expected = [["", *BACKENDS], ["---"] * (len(BACKENDS) + 1)]
    for field in fields(Characteristics):
        values = (getattr(backend.characteristics, field.name) for backend in BACKENDS.values())
        name = field.name.replace("_", " ")
        expected.append([name, *("yes" if value else "no" for value in values)])
    section = PAGE.partition("## What the backends can do\n")[2].partition("\n## ")[0]
    assert list(rows(section)) == expected


def test_settings_of_redis_are_those_that_it_takes() -> None:
    section = PAGE.partition("Settings of `redis` and `sentinel`:\n")[2].partition(
        "\nThe other backends"
    )[0]
    named = re.findall(r"`(\w+)`", "".join(row[0] for row in rows(section)))
    assert sorted(named) == sorted(SETTINGS)


def test_roles_and_name_in_redis_are_those_of_the_code() -> None:
    for role in Role:
        assert f"| `{role}` |" in PAGE
    matchmaker = load(MatchmakerURL.parse("redis://127.0.0.1/prod"))
    assert isinstance(matchmaker, RedisMatchmaker)
    key = Key(Role.LISTENER, "cinder", "cinder-volume", "host@lvm")
    assert f"    {RedisSettings.of(matchmaker.url).prefix}{encode_key(key)}\n" in PAGE
    matchmaker.close()


def test_rights_that_the_page_gives_in_redis_are_enough() -> None:
    [rights] = re.findall(r"^    ACL SETUSER nova on >secret (.*)$", PAGE, re.MULTILINE)
    entry = (Key(Role.LISTENER, "nova", "conductor"), Record(endpoint="tcp://10.0.0.1:49153"))
    with RedisServer(user="nova", password="secret", acl=f"{rights} +select") as server:
        matchmaker = load(MatchmakerURL.parse(f"{server.url}/prod?db=1"))
        for ttl in (60, None):
            matchmaker.register([entry], ttl)
            assert matchmaker.lookup([entry[0]]) == [(entry[1],)]
        matchmaker.unregister([entry])
        assert matchmaker.lookup([entry[0]]) == [()]
        matchmaker.close()


def test_table_of_the_page_is_one(tmp_path: Path) -> None:
    table = tmp_path / "table.toml"
    table.write_text(blocks(PAGE, "toml")[0])
    found = read_table(table)
    assert len(found[Key(Role.LISTENER, "openstack", "conductor")]) == 2
    alone, directed = (
        found[Key(Role.LISTENER, "cinder", "cinder-volume", server)] for server in ("", "host@lvm")
    )
    assert alone == directed
    assert alone[0].endpoint == "tcp://10.0.0.3:49153"


@pytest.mark.parametrize("url", re.findall(r"^\| `(\w+://[^`]*)` \|", README, re.MULTILINE))
def test_urls_of_the_readme_can_be_loaded(url: str, tmp_path: Path) -> None:
    if url.endswith(".toml"):
        table = tmp_path / "my-table.toml"
        table.write_text(blocks(PAGE, "toml")[0])
        url = f"file://{table}"
    load(MatchmakerURL.parse(url)).close()
