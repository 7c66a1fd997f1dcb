# SPDX-License-Identifier: Apache-2.0
"""A real OpenStack service, installed from the package index, lives its whole life over Redis."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.services import child_environment

PATIENCE = 400.0


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 20)
@pytest.mark.parametrize(
    ("under", "said"), [("threads", "under native threads"), ("eventlet", "under eventlet")]
)
def test_mistral_does_all_it_can_over_this_transport(under: str, said: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "real_service", "--under", under],
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        try:
            output, _ = run.communicate(timeout=PATIENCE)
        finally:
            run.terminate()  # it ends what it has started
    assert run.returncode == 0, output
    assert said in output
    assert "All went right" in output


def test_it_helps_without_installing_anything() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "real_service", "--help"],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for option in ("--under", "--environment", "--logs"):
        assert option in done.stdout
