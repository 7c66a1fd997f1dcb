# SPDX-License-Identifier: Apache-2.0
"""The rules of this repository's own plug-in for Pants 2.17."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from monorepo import conftests, metadata, ruff


def rules() -> Iterable[Any]:
    """What Pants asks a backend for."""
    return (*ruff.rules(), *metadata.rules(), *conftests.rules())
