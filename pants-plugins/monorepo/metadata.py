# SPDX-License-Identifier: Apache-2.0
"""Names and versions of our distributions for tests, as if they were installed.

In a test's sandbox the packages are plain source folders. Pants' stevedore backend puts
``<package>.egg-info/entry_points.txt`` beside them; this adds ``PKG-INFO``, so that
``importlib.metadata.version("zmq-core")`` answers there too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import toml
from pants.backend.python.goals.pytest_runner import PytestPluginSetup, PytestPluginSetupRequest
from pants.backend.python.target_types import PythonTestsDependenciesField
from pants.engine.fs import CreateDigest, DigestContents, FileContent, PathGlobs
from pants.engine.internals.native_engine import Digest
from pants.engine.rules import Get, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule


class DistributionMetadataRequest(PytestPluginSetupRequest):
    """Asks for the metadata of all distributions, for any Python test."""

    @classmethod
    def is_applicable(cls, target: Target) -> bool:
        """Every Python test."""
        return target.has_field(PythonTestsDependenciesField)


@rule(desc="Describe our distributions to the tests")
async def describe_distributions(request: DistributionMetadataRequest) -> PytestPluginSetup:
    """Writes one PKG-INFO per ``packages/*/pyproject.toml``."""
    projects = await Get(DigestContents, PathGlobs(["packages/*/pyproject.toml"]))
    files = []
    for file in projects:
        project = toml.loads(file.content.decode())["project"]
        folder = file.path.rpartition("/")[0]
        module = project["name"].replace("-", "_")
        name, version = project["name"], project["version"]
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        path = f"{folder}/{module}.egg-info/PKG-INFO"
        files.append(FileContent(path, text.encode()))
    return PytestPluginSetup(await Get(Digest, CreateDigest(files)))


def rules() -> Iterable[Any]:
    """The rules of this module."""
    return (
        *collect_rules(),
        UnionRule(PytestPluginSetupRequest, DistributionMetadataRequest),
    )
