# SPDX-License-Identifier: Apache-2.0
"""The inputs that are kept, one a line; lines that begin with `#` say what they are.

A message is written as in the examples of docs/protocol.md, anything else as Python writes
bytes.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fuzzing import frames
from fuzzing.targets import Target

__all__ = ["FOLDER", "add", "from_text", "read", "to_text", "write_files"]

FOLDER: Final = Path(__file__).parent / "corpus"


def to_text(target: type[Target] | Target, data: bytes) -> str:
    """One line for an input."""
    return frames.to_text(data) if target.structured else repr(data)


def from_text(target: type[Target] | Target, text: str) -> bytes:
    """What `to_text` has made.

    :raises ValueError: it is nothing of that kind.
    """
    if target.structured:
        return frames.from_text(text)
    match ast.literal_eval(text.strip()):
        case bytes() as data:
            return data
    raise ValueError(f"{text!r} are no bytes as Python writes them")


def read(name: str, target: type[Target] | Target, folder: Path = FOLDER) -> list[bytes]:
    """The inputs that are kept for a target."""
    path = folder / f"{name}.txt"
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [from_text(target, line) for line in lines if line and not line.startswith("#")]


def add(
    name: str, target: type[Target] | Target, inputs: Iterable[bytes], folder: Path = FOLDER
) -> int:
    """Keep these too, the shortest first; returns how many are new."""
    known = {to_text(target, data) for data in read(name, target, folder)}
    texts = dict.fromkeys(to_text(target, data) for data in sorted(inputs, key=len))
    new = [text for text in texts if text and text not in known]
    with (folder / f"{name}.txt").open("a", encoding="ascii") as file:
        file.writelines(f"{text}\n" for text in new)
    return len(new)


def write_files(inputs: Iterable[bytes], folder: Path) -> None:
    """One file for each, as the fuzzer wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
