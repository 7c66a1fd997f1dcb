# SPDX-License-Identifier: Apache-2.0
"""Upstream's own functional suite, from the installed oslo.messaging, over our URLs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.services import child_environment

EXPECTED = 20


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_upstream_test_that_passes_on_rabbit_passes_here(url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "harness.upstream", str(tmp_path / "outcomes")],
        env=child_environment(RPC_TRANSPORT_URL=url, NOTIFY_TRANSPORT_URL=url),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes: dict[str, list[str]] = json.loads((tmp_path / "outcomes").read_text())
    others = {name: outcome for name, outcome in outcomes.items() if outcome[0] != "passed"}
    assert others == {}, os.linesep.join(text for _, text in others.values())
    assert len(outcomes) == EXPECTED
