# SPDX-License-Identifier: Apache-2.0
"""Each distribution, built and installed alone, has all that it needs and nothing of the others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROBE = ROOT / "tests/harness/installed.py"

# Each distribution, and those of ours that installing it brings along.
BRINGS: dict[str, set[str]] = {
    "zmq-core": set(),
    "zmq-matchmaker": set(),
    "zmq-oslo-driver": {"zmq-core", "zmq-matchmaker"},
    "zmq-proxy": {"zmq-core", "zmq-matchmaker"},
}
DISTRIBUTIONS = sorted(BRINGS)

# Modules that come with an extra; without it, what needs one may fail to import for want of it.
OPTIONAL = {
    "zmq-matchmaker": {"cliff", "oslo_config", "prettytable", "pytest", "redis", "yaml", "zmq_core"}
}

# The extra that a distribution's command needs.
COMMAND_EXTRA = {"zmq-matchmaker": "cli"}

PATIENCE = 180.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Environment:
    """A clean virtual environment with one of our distributions."""

    name: str
    folder: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, with nothing of the caller's Python."""
        return run(str(self.folder / "bin" / program), *arguments)


def run(*command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; the test fails with its output if it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done


def unexpectedly_missing(distribution: str, found: dict[str, str | None]) -> dict[str, str]:
    """What failed to import for want of a module that no extra of the distribution brings."""
    optional = OPTIONAL.get(distribution, set())
    return {what: lacks for what, lacks in found.items() if lacks and lacks not in optional}


def project(name: str) -> dict[str, Any]:
    """The [project] table of a distribution."""
    path = ROOT / "packages" / name / "pyproject.toml"
    found: dict[str, Any] = tomllib.loads(path.read_text())["project"]
    return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four wheels, each made from the sdist of its distribution as a release is."""
    out = tmp_path_factory.mktemp("wheels")
    for name in DISTRIBUTIONS:
        source = tmp_path_factory.mktemp("source") / name
        ignored = shutil.ignore_patterns("*.egg-info", "build", "__pycache__", "tests")
        shutil.copytree(ROOT / "packages" / name, source, ignore=ignored)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source))
    found = {path.name.partition("-")[0].replace("_", "-"): path for path in out.glob("*.whl")}
    assert sorted(found) == DISTRIBUTIONS
    return found


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def environment(
    request: pytest.FixtureRequest,
    wheels: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Environment:
    """One of the four, installed alone. Ours come from the wheels, all else from the index."""
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    venv.create(folder / "venv", with_pip=True)
    installed = Environment(name, folder / "venv")
    # As files, so that no distribution of the same name in an index can take their place.
    files = [str(wheels[needed]) for needed in sorted({name, *BRINGS[name]})]
    installed.run("python", "-m", "pip", "install", "--quiet", *files)
    return installed


@pytest.fixture(scope="module")
def look(environment: Environment) -> dict[str, Any]:
    """What the distribution shows of itself where it is installed."""
    found: dict[str, Any] = json.loads(
        environment.run("python", "-I", str(PROBE), environment.name).stdout
    )
    return found


def test_it_installs_with_its_own_requirements_only(
    environment: Environment, look: dict[str, Any]
) -> None:
    environment.run("python", "-m", "pip", "check")
    assert BRINGS[environment.name] == set(look["requires"]) & BRINGS.keys()
    assert BRINGS[environment.name] == set(look["installed"]) & BRINGS.keys() - {environment.name}


def test_it_has_the_version_of_its_project_file(
    environment: Environment, look: dict[str, Any]
) -> None:
    assert look["version"] == project(environment.name)["version"]
    assert str(environment.folder) in look["file"]


def test_each_of_its_modules_imports(environment: Environment, look: dict[str, Any]) -> None:
    assert unexpectedly_missing(environment.name, look["modules"]) == {}
    assert look["modules"]


def test_each_of_its_entry_points_loads(environment: Environment, look: dict[str, Any]) -> None:
    described = project(environment.name)
    groups = {"console_scripts": described.get("scripts", {}), **described.get("entry-points", {})}
    names = {f"{group}: {name}" for group, points in groups.items() for name in points}
    assert names == set(look["entry_points"])
    assert unexpectedly_missing(environment.name, look["entry_points"]) == {}


def test_each_of_its_commands_helps_and_says_its_version(
    environment: Environment, look: dict[str, Any], wheels: dict[str, Path]
) -> None:
    if environment.name in COMMAND_EXTRA:
        wheel = f"{wheels[environment.name]}[{COMMAND_EXTRA[environment.name]}]"
        environment.run("python", "-m", "pip", "install", "--quiet", wheel)
    for script in look["scripts"]:
        assert "usage: " in environment.run(script, "--help").stdout
        assert look["version"] in environment.run(script, "--version").stdout


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_is_typed_and_holds_one_package_without_tests(
    name: str, wheels: dict[str, Path]
) -> None:
    package = name.replace("-", "_")
    with zipfile.ZipFile(wheels[name]) as wheel:
        files = wheel.namelist()
    assert f"{package}/py.typed" in files
    others = {file for file in files if not file.startswith((f"{package}/", f"{package}-"))}
    assert others == set()


def test_a_matchmaker_of_others_is_installed_found_and_tested_against_the_contract(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    """The backend of docs/matchmaker.md as a distribution of its own, beside ours."""
    page = (ROOT / "docs/matchmaker.md").read_text()
    section = page.partition("## To write a backend")[2]
    [entry_point] = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    backend, test = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(backend.splitlines()) <= 40
    source = tmp_path / "sqlite-matchmaker"
    source.mkdir()
    (source / "sqlite_matchmaker.py").write_text(backend)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "sqlite-matchmaker"\nversion = "1"\n'
        'dependencies = ["zmq-matchmaker"]\n'
        f'[tool.setuptools]\npy-modules = ["sqlite_matchmaker"]\n{entry_point}'
    )
    out = tmp_path / "wheel"
    run(sys.executable, "-m", "build", "--no-isolation", "-w", "--outdir", str(out), str(source))
    venv.create(tmp_path / "venv", with_pip=True)
    theirs = Environment("sqlite-matchmaker", tmp_path / "venv")
    files = [f"{wheels['zmq-matchmaker']}[testing]", *map(str, out.glob("*.whl"))]
    theirs.run("python", "-m", "pip", "install", "--quiet", *files)
    (tmp_path / "test_sqlite.py").write_text(test)
    said = theirs.run(
        *("python", "-I", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("--rootdir", str(tmp_path), str(tmp_path / "test_sqlite.py")),
    ).stdout
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) > 25
    assert "skipped" not in said


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_tests_see_the_entry_points_of_the_project_file(name: str) -> None:
    # Under Pants they come from the BUILD files, in a virtual environment from the last install.
    for group, points in project(name).get("entry-points", {}).items():
        seen = {(point.name, point.value) for point in metadata.entry_points(group=group)}
        assert set(points.items()) <= seen, (
            f"[{group}] differs: mend packages/{name}/BUILD, or install packages/{name} again"
        )
