# SPDX-License-Identifier: Apache-2.0
"""Garbage, truncated, oversize, of an unknown version or type: refused and counted (F24).

What fuzzing found before is run again, with any Python; then there is a short run that looks
for more.  `python -m fuzzing` is for long ones.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzzing import corpus, frames
from fuzzing.targets import TARGETS, Target, load

# As requirements.txt says; where it is there, its absence is a failure.
ATHERIS_EXISTS = (
    sys.version_info < (3, 14) and sys.platform == "linux" and platform.machine() == "x86_64"
)
needs_atheris = pytest.mark.skipif(not ATHERIS_EXISTS, reason="atheris: no wheel for this Python")

BROKEN = """
from fuzzing.codec import Codec
from fuzzing.frames import unpack

class Broken(Codec):
    def run(self, data: bytes) -> None:
        super().run(data)
        assert len(unpack(data)) < 3, "three frames are one too many"
"""


def target_named(name: str) -> Target:
    return load(TARGETS[name])()


def fuzz(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What the command says, in a process of its own that leaves no file behind."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "fuzzing", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            cwd=cwd,
            env={**os.environ, "TMPDIR": folder},
            check=False,
        )
        assert os.listdir(folder) == []
    return done


def with_octets(data: bytes, changes: Sequence[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for place, octet in changes:
        if place < len(changed):
            changed[place] = octet
    return bytes(changed)


def inputs_like(kept: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Those, with a few octets changed; any frames; any octets."""
    changes = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=3)
    return st.one_of(
        st.builds(with_octets, st.sampled_from(kept), changes),
        st.lists(st.binary(max_size=100), max_size=5).map(frames.pack),
        st.binary(max_size=200),
    )


@pytest.mark.parametrize("name", TARGETS)
def test_each_input_of_the_corpus_has_the_outcome_that_the_protocol_says(name: str) -> None:
    with target_named(name) as target:
        kept = corpus.read(name, target)
        assert len(kept) >= 10
        for data in kept:
            try:
                target.run(data)
            except AssertionError as error:
                error.add_note(f"with the input {corpus.to_text(target, data)}")
                raise


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_nobody_thought_of_have_the_outcome_that_the_protocol_says(name: str) -> None:
    with target_named(name) as target:

        @settings(max_examples=100, deadline=None, database=None)
        @given(inputs_like(corpus.read(name, target)))
        def run(data: bytes) -> None:
            target.run(data)

        run()


@needs_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_fuzz_run_finds_nothing(name: str) -> None:
    done = fuzz(name, "--seconds", "2")
    assert done.returncode == 0, done.stdout
    [runs] = re.findall(r"^Done (\d+) runs", done.stdout, re.MULTILINE)
    assert int(runs) > 100, done.stdout


@needs_atheris
def test_a_finding_is_shown_with_its_input_and_how_to_see_it_again(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    found = fuzz("broken:Broken", "--seconds", "60", cwd=tmp_path)
    assert found.returncode == 1, found.stdout
    assert "three frames are one too many" in found.stdout
    [line] = re.findall(r"^To see it again: python -m fuzzing (.+)$", found.stdout, re.MULTILINE)
    seen_again = fuzz(*shlex.split(line), cwd=tmp_path)
    assert seen_again.returncode == 1
    assert "three frames are one too many" in seen_again.stdout


@needs_atheris
def test_what_covers_more_is_added_to_a_corpus(tmp_path: Path) -> None:
    [example, *_] = corpus.read("codec", target_named("codec"))
    kept = tmp_path / "codec.txt"
    kept.write_text(f"# an example\n{frames.to_text(example)}\n")
    done = fuzz("codec", "--runs", "500", "--keep", "--corpus", str(tmp_path))
    assert done.returncode == 0, done.stdout
    lines = kept.read_text().splitlines()
    assert lines[:2] == ["# an example", frames.to_text(example)]
    assert len(lines) > 5
    assert f"{len(lines) - 2} inputs were added" in done.stdout


def test_an_input_is_written_as_the_protocol_writes_its_examples() -> None:
    text = "5a6f01 - 6869"
    assert frames.unpack(frames.from_text(text)) == [b"Zo\x01", b"", b"hi"]
    assert frames.to_text(frames.from_text(text)) == text


@given(st.binary(max_size=100))
def test_any_octets_are_the_frames_that_they_are_written_as(data: bytes) -> None:
    assert frames.unpack(frames.from_text(frames.to_text(data))) == frames.unpack(data)


def test_an_unknown_target_is_named_with_those_there_are() -> None:
    done = fuzz("codek")
    assert done.returncode == 2
    assert "no target 'codek'" in done.stdout
    assert "listening" in done.stdout
