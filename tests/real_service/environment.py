# SPDX-License-Identifier: Apache-2.0
"""A virtual environment with the service, as a list beside this has it, and our packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import venv
from pathlib import Path
from typing import Final

__all__ = ["Environment", "install"]

_HERE: Final = Path(__file__).resolve().parent
_PACKAGES: Final = _HERE.parent.parent / "packages"
_PATIENCE: Final = 900.0
_UNWANTED: Final = shutil.ignore_patterns("*.egg-info", "build", "__pycache__", "tests")


class Environment:
    """One that is there, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        path = self._folder / "bin" / name
        if not path.exists():
            raise FileNotFoundError(f"the environment {self._folder} has no {name}")
        return str(path)

    def versions(self, *names: str) -> str:
        """Which versions of these distributions it has, to be shown."""
        ask = (
            "import sys; from importlib.metadata import version; "
            "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
        )
        return self.run("python", "-c", ask, *names).strip()

    def run(self, program: str, *arguments: str, patience: float = 60.0) -> str:
        """Run one of its programs to its end; what it printed.

        :raises RuntimeError: it failed; with the end of what it said.
        """
        done = subprocess.run(
            [self.program(program), *arguments],
            env=clean(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)}\n{done.stdout[-4000:]}")
        return done.stdout


def clean(**extra: str) -> dict[str, str]:
    """This process's environment with nothing of its Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    quiet = {
        "PYTHONWARNINGS": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }
    return {**kept, **quiet, **extra}


def install(folder: Path, under: str) -> Environment:
    """Make one in `folder`: the service as it runs `under` that, our packages as they are."""
    venv.create(folder, with_pip=True, symlinks=True)
    made = Environment(folder)
    pip = ("-m", "pip", "install", "--quiet")
    wanted = str(_HERE / f"requirements-{under}.txt")
    made.run("python", *pip, "-r", wanted, patience=_PATIENCE)
    with tempfile.TemporaryDirectory(prefix="packages-") as copies:
        # From copies: building leaves its files beside what it builds.
        sources = [
            shutil.copytree(source, Path(copies, source.name), ignore=_UNWANTED)
            for source in sorted(_PACKAGES.iterdir())
            if (source / "pyproject.toml").exists()
        ]
        # What they need is in the list; that it is all there, `pip check` says.
        ours = ("--no-deps", "--no-build-isolation", *map(str, sources))
        made.run("python", *pip, *ours, patience=_PATIENCE)
    made.run("python", "-m", "pip", "check")
    return made
