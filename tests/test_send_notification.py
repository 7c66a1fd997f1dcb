# SPDX-License-Identifier: Apache-2.0
"""The command that comes with oslo.messaging sends over our transport."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oslo_messaging
from oslo_messaging import Target

from harness.leaks import wait_until
from harness.service import Listening
from harness.services import Service, child_environment

# The body of the console script oslo-messaging-send-notification, which a sandbox without
# installed scripts has not on its PATH.
COMMAND = "from oslo_messaging.notify.notifier import _send_notification as main; main()"


def test_oslo_messaging_send_notification_reaches_a_listener(
    redis_url: str,
    make_service: Callable[..., Service],
    make_transport: Callable[..., Any],
    tmp_path: Path,
) -> None:
    make_service(
        redis_url,
        ("", "control", "one"),
        notifications=[Listening(topics=["notifications", "more"])],
    )
    config = tmp_path / "service.conf"
    config.write_text(
        f"[DEFAULT]\ntransport_url = {redis_url}\n"
        "[oslo_messaging_notifications]\ndriver = messagingv2\ntopics = notifications\n"
    )
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", COMMAND),
            *("--config-file", str(config)),
            *("--topic", "notifications", "--publisher-id", "a-publisher"),
            *("--event-type", "an.event", "--priority", "info", '{"answer": 42}'),
        ],
        env=child_environment(),
        check=True,
        timeout=60,
        capture_output=True,
    )
    caller = oslo_messaging.get_rpc_client(
        make_transport(redis_url), Target(topic="control"), timeout=20
    )
    wait_until(lambda: caller.call({}, "notified"), "the notification")
    (event,) = caller.call({}, "notified")
    assert event[:2] == ["info", "an.event"]
    assert event[3] == "a-publisher"
