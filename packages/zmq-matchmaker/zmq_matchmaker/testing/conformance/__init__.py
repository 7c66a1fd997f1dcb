# SPDX-License-Identifier: Apache-2.0
"""The contract of a backend as tests; needs pytest.

A backend's own tests make a class of it and say where the backend keeps things:

    class TestMyBackend(MatchmakerConformance):
        @pytest.fixture
        def url(self) -> MatchmakerURL:
            return MatchmakerURL.parse("mine://127.0.0.1:1234/some-fresh-place")

What a backend says of itself in `characteristics` decides which tests apply.
"""

from __future__ import annotations

import pytest

for _part in ("_characteristics", "_common", "_reading", "_registering"):
    pytest.register_assert_rewrite(f"{__name__}.{_part}")

from zmq_matchmaker.testing.conformance._characteristics import (  # noqa: E402
    CharacteristicsConformance,
)
from zmq_matchmaker.testing.conformance._common import ODD_NAMES  # noqa: E402
from zmq_matchmaker.testing.conformance._reading import ReadingConformance  # noqa: E402
from zmq_matchmaker.testing.conformance._registering import RegisteringConformance  # noqa: E402

__all__ = ["ODD_NAMES", "MatchmakerConformance", "ReadingConformance"]


class MatchmakerConformance(RegisteringConformance, CharacteristicsConformance):
    """All of the contract of a backend that lets processes register."""
