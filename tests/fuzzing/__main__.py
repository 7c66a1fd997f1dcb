# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the codec, a live node or the driver.

    python -m fuzzing codec --seconds 600

Shows libFuzzer's own progress: `cov` and `ft` are what of our code is covered, `corp` the
inputs that cover it. Ends with 0 if nothing was found, else with 1, the input, and how to see
it again. What is in the corpus comes first, in every run.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fuzzing import corpus
from fuzzing.targets import TARGETS, Target, load

_ABOUT: Final = {
    "codec": "frames and keys to messages and back; no I/O",
    "listening": "a live node gets any frames from a stranger; an honest peer must not notice",
    "asking": "a live node gets any frames for an answer",
    "requests": "a real RPC server gets any bodies",
    "replies": "a client gets any bodies for a result or a failure",
}
_SLOWEST: Final = 60
"""Seconds for one input, after which libFuzzer ends the run as a finding."""
_STOPPED: Final = 72
"""libFuzzer's exit code after SIGINT."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = _arguments(argv)
    target = load(TARGETS.get(given.target, given.target))
    if given.input is not None:
        return _replay(target(), [corpus.from_text(target(), given.input)])
    if given.replay:
        return _replay(target(), corpus.read(given.target, target(), given.corpus))
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing: atheris is not installed: pip install 'atheris<3.1'", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder:
        return _fuzz(given, target(), Path(folder))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    targets = "\n".join(f"  {name:<10} {_ABOUT[name]}" for name in TARGETS)
    parser = argparse.ArgumentParser(
        prog="python -m fuzzing",
        description=f"{__doc__}\ntargets:\n{targets}",
        epilog="What stands behind -- goes to libFuzzer, such as -- -print_pcs=1 -verbosity=0.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target", metavar="TARGET", help="one of those above, or your own as module:class"
    )
    parser.add_argument("--seconds", type=int, default=60, help="stop after them (default: 60)")
    parser.add_argument("--runs", type=int, default=-1, help="stop after so many inputs")
    parser.add_argument(
        "--seed", type=int, default=0, help="of chance (default: another each time)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="add to the corpus what covers more than it does"
    )
    parser.add_argument(
        "--corpus", type=Path, default=corpus.FOLDER, metavar="DIR", help="another than the own"
    )
    parser.add_argument("--input", metavar="LINE", help="only run this line of a corpus")
    parser.add_argument("--replay", action="store_true", help="only run the corpus")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="for libFuzzer, behind --")
    given = parser.parse_args(argv)
    if given.target not in TARGETS and ":" not in given.target:
        parser.error(f"no target {given.target!r}; there are {', '.join(TARGETS)}")
    return given


def _replay(target: Target, inputs: Iterable[bytes]) -> int:
    """Run inputs; the first that fails is shown with its traceback."""
    count = 0
    with target:
        for data in inputs:
            try:
                target.run(data)
            except BaseException as error:
                error.add_note(f"with the input {corpus.to_text(target, data)}")
                raise
            count += 1
    print(f"{count} as they should be")
    return 0


def _fuzz(given: argparse.Namespace, target: Target, folder: Path) -> int:
    kept, found, work = (folder / name for name in ("kept", "found", "work"))
    for made in (found, work):
        made.mkdir()
    corpus.write_files(corpus.read(given.target, target, given.corpus), kept)
    options = [
        f"-max_total_time={given.seconds}",
        f"-runs={given.runs}",
        f"-seed={given.seed}",
        f"-timeout={_SLOWEST}",
        f"-artifact_prefix={found}/",
        *given.options,
    ]
    code = _engine(given.target, [*options, str(work), str(kept)], folder)
    if code not in (0, _STOPPED):
        _show(given.target, target, found)
        return 1
    if given.keep:
        _keep(given.target, target, given.corpus, folder)
    return 0


def _engine(name: str, options: list[str], folder: Path) -> int:
    """Fuzz in a process of its own, which is the one to heed SIGINT; its exit code.

    libFuzzer ends it outright, so what the target has as temporary files goes with `folder`.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command = [sys.executable, "-m", "fuzzing.engine", name, *options]
        environment = {**os.environ, "TMPDIR": str(folder)}
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)


def _show(name: str, target: Target, found: Path) -> None:
    """Show the inputs of findings, also where libFuzzer ended the process outright."""
    for path in sorted(found.iterdir()):
        text = corpus.to_text(target, path.read_bytes())
        print(
            f"\nFOUND in {name}. The input:\n{text}\n"
            f"To see it again: python -m fuzzing {name} --input {shlex.quote(text)}\n"
            f"To keep it, add that line to {corpus.FOLDER / name}.txt",
            file=sys.stderr,
            flush=True,
        )


def _keep(name: str, target: Target, known: Path, folder: Path) -> None:
    """Add to the corpus what of `work` covers more than `kept`."""
    kept, work = folder / "kept", folder / "work"
    before = set(kept.iterdir())
    if _engine(name, ["-merge=1", str(kept), str(work)], folder):
        raise SystemExit("fuzzing: the merge failed, nothing was kept")
    new = [path.read_bytes() for path in kept.iterdir() if path not in before]
    count = corpus.add(name, target, new, known)
    print(f"{count} inputs were added to {known / name}.txt")


if __name__ == "__main__":
    sys.exit(main())
