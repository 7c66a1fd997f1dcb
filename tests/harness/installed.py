# SPDX-License-Identifier: Apache-2.0
"""Looks at a distribution from inside the environment that it is installed in.

Run by path, with nothing but the standard library: ``python -I installed.py zmq-core``. Says in
JSON which modules and entry points it has, and what each failed to import, if anything.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata


def missing(load: Callable[[], object]) -> str | None:
    """The module that an import lacked, or None; anything else that goes wrong is an error."""
    try:
        load()
    except ModuleNotFoundError as error:
        return error.name
    return None


def main(name: str) -> None:
    """Print what there is to say about one distribution."""
    distribution = metadata.distribution(name)
    package = name.replace("-", "_")
    imported = importlib.import_module(package)
    modules = {
        module.name: missing(partial(importlib.import_module, module.name))
        for module in pkgutil.walk_packages(imported.__path__, f"{package}.")
        if not module.name.endswith(".__main__")
    }
    entry_points = {
        f"{point.group}: {point.name}": missing(point.load) for point in distribution.entry_points
    }
    installed = {other.metadata["Name"]: other.version for other in metadata.distributions()}
    json.dump(
        {
            "version": distribution.version,
            "requires": [
                re.split(r"[^\w.-]", line)[0]
                for line in distribution.requires or []
                if "extra ==" not in line
            ],
            "file": imported.__file__,
            "modules": modules,
            "entry_points": entry_points,
            "scripts": [
                point.name for point in distribution.entry_points.select(group="console_scripts")
            ],
            "installed": installed,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1])
