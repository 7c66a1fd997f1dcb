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

# It starts a metrics server by a name that must be on the PATH and a fixed port; it fails
# with the rabbit driver too.
NOT_OURS = {"MetricsTestCase.test_functional"}
EXPECTED = 20


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_upstream_test_that_passes_on_rabbit_passes_here(url: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "harness.upstream"],
        env=child_environment(RPC_TRANSPORT_URL=url, NOTIFY_TRANSPORT_URL=url),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes: dict[str, list[str]] = json.loads(done.stdout)
    ours = {name: outcome for name, outcome in outcomes.items() if name not in NOT_OURS}
    others = {name: outcome for name, outcome in ours.items() if outcome[0] != "passed"}
    assert others == {}, os.linesep.join(text for _, text in others.values())
    assert len(ours) == EXPECTED
