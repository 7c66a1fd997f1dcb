# SPDX-License-Identifier: Apache-2.0
"""The process that fuzzes: libFuzzer calls a target, led by what it covers of our code.

    python -m fuzzing.engine TARGET OPTION-OF-LIBFUZZER... FOLDER...

It never returns: libFuzzer ends the process, with an exit code that is not 0 if it found
anything.  `python -m fuzzing` is for people.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import Final

import atheris

from fuzzing import frames
from fuzzing.targets import TARGETS, load

__all__ = ["main"]

_PACKAGES: Final = ("zmq_core", "zmq_oslo_driver")


def _mutator(data: bytes, most: int, seed: int) -> bytes:
    mutate: Callable[[bytes, int], bytes] = atheris.Mutate
    return frames.mutated(data, most, seed, mutate)


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer ends the process."""
    name, *options = arguments
    with atheris.instrument_imports(include=_PACKAGES):  # nobody has imported them yet
        target_class = load(TARGETS.get(name, name))
    # How libFuzzer starts itself again, by a shell, to merge.
    command = shlex.join([sys.executable, "-m", "fuzzing.engine", name])
    with target_class() as target:
        atheris.Setup(
            [command, f"-max_len={target.longest}", *options],
            target.run,
            **({"custom_mutator": _mutator} if target.structured else {}),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
