# SPDX-License-Identifier: Apache-2.0
"""A proxy and the limit of open descriptors that it starts with."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

START_WITH_A_LOWER_LIMIT = """
import resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from zmq_proxy.cmd import main
sys.exit(main(["--config-file", {config!r}]))
"""


def test_a_limit_that_is_too_low_is_named_at_the_start(
    deployment: Any, run_python: Callable[[str], str]
) -> None:
    config = deployment.folder / "proxy.conf"
    config.write_text(deployment.config())
    script = START_WITH_A_LOWER_LIMIT.format(soft=40, hard=40, config=str(config))
    said = run_python(
        "import subprocess, sys\n"
        f"done = subprocess.run([sys.executable, '-c', {script!r}], capture_output=True, text=True)"
        "\nprint(done.returncode, done.stderr)"
    )
    assert said.startswith("1 "), said
    assert "zmq-proxy: the limit of 40 open descriptors is too low" in said
    assert "LimitNOFILE" in said


def test_a_proxy_gives_itself_as_many_descriptors_as_it_may_have(deployment: Any) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard - 1), hard))
    try:
        process = deployment.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    deployment.endpoints(process)
    assert resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
