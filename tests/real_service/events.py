# SPDX-License-Identifier: Apache-2.0
"""Notifications of another service start workflows: fanouts, and a pool of two listeners."""

from __future__ import annotations

from typing import Any, Final

import oslo_messaging
from oslo_config import cfg

from harness.leaks import wait_until
from real_service.api import API
from real_service.mistral import Mistral

__all__ = ["react"]

_ENGINES: Final = ("event-engine-1", "event-engine-2")
_TOPIC: Final = "events_of_others"
_EVENT: Final = "compute.instance.create.end"
_EXCHANGE: Final = "openstack"
"""In which oslo.messaging notifies unless it is told another."""
_COUNT: Final = 10
_PROJECT: Final = "<default-project>"
"""Whose everything is where there is no identity service; the trigger is for its events."""


class _Contexts(oslo_messaging.NoOpSerializer):
    """Sends the context that a service's own serializer would send."""

    def serialize_context(self, context: object) -> dict[str, str]:
        return {"project_id": _PROJECT, "user_id": "somebody"}


def react(mistral: Mistral) -> str:
    """Each event starts one execution, whichever of the two event engines takes it.

    Those run only here: each keeps a whole core busy while it waits.
    """
    api = mistral.api
    mistral.start(*_ENGINES)
    trigger = _create(api)
    wait_until(
        lambda: sum(one.key.topic.startswith(_TOPIC) for one in mistral.registered()) >= 2,
        "both event engines listen to the topic of the trigger",
        timeout=20,
    )
    conf = cfg.ConfigOpts()
    conf([], project="another-service", default_config_files=[], default_config_dirs=[])
    transport = oslo_messaging.get_notification_transport(conf, url=mistral.url)
    try:
        notifier = oslo_messaging.Notifier(
            transport,
            "compute.one",
            driver="messagingv2",
            topics=[_TOPIC],
            serializer=_Contexts(),
        )
        for number in range(_COUNT):
            notifier.info({}, _EVENT, {"number": number})
        notifier.info({}, "compute.instance.delete.end", {})
        # Nothing writes to the database any more when the API does.
        wait_until(lambda: _ended(api) >= _COUNT, "an execution for each event", timeout=40)
        api.ask("DELETE", f"/v2/event_triggers/{trigger}", expect=204)
        for name in _ENGINES:
            process = mistral.process(name)
            process.await_said("Deleted listener")
        notifier.info({}, _EVENT, {})
    finally:
        transport.cleanup()
    seconds = mistral.stop(*_ENGINES)
    made = len(_executions(api))
    assert made == _COUNT, f"{made} executions for {_COUNT} events"
    return f"{_COUNT} events, {made} executions; event engines stopped in {seconds:.1f} s"


def _create(api: API) -> str:
    [workflow] = api.ask("GET", "/v2/workflows?name=on_event")["workflows"]
    trigger: dict[str, Any] = {
        "name": "when one is made",
        "workflow_id": workflow["id"],
        "exchange": _EXCHANGE,
        "topic": _TOPIC,
        "event": _EVENT,
    }
    return str(api.ask("POST", "/v2/event_triggers", trigger, expect=201)["id"])


def _executions(api: API) -> list[Any]:
    found = api.ask("GET", "/v2/executions?workflow_name=on_event")
    return list(found["executions"])


def _ended(api: API) -> int:
    return sum(execution["state"] == "SUCCESS" for execution in _executions(api))
