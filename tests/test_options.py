# SPDX-License-Identifier: Apache-2.0
"""Every option does what it says: each stands in the table with what is seen of it."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import oslo_messaging
import pytest
from oslo_config import cfg, generator

from harness.options.bench import Bench
from harness.options.proxies import running
from harness.options.rows import PROXY, REDIS, ZMQ, Row
from harness.options.table import TABLE
from harness.services import child_environment
from harness.traffic import at_once
from zmq_matchmaker.testing import RedisServer
from zmq_oslo_driver import options
from zmq_oslo_driver.errors import InvalidConfiguration
from zmq_proxy import new_config

KNOWN: Final = {
    ZMQ: "rpc_zmq_host rpc_zmq_bind_address rpc_zmq_min_port rpc_zmq_max_port "
    "rpc_zmq_bind_port_retries rpc_zmq_matchmaker rpc_zmq_serialization rpc_zmq_topic_backlog "
    "rpc_zmq_contexts rpc_zmq_ipc_dir zmq_linger rpc_poll_timeout zmq_target_expire "
    "zmq_target_update use_pub_sub use_router_proxy use_dynamic_connections "
    "zmq_failover_connections "
    "zmq_immediate zmq_tcp_keepalive zmq_tcp_keepalive_idle zmq_tcp_keepalive_cnt "
    "zmq_tcp_keepalive_intvl rpc_thread_pool_size rpc_message_ttl rpc_use_acks "
    "rpc_ack_timeout_base rpc_ack_timeout_multiplier rpc_retry_attempts subscribe_on",
    REDIS: "host port password sentinel_hosts sentinel_group_name wait_timeout check_timeout "
    "socket_timeout",
    PROXY: "host frontend_port backend_port publisher_port local_publisher ack_pub_sub url",
}
"""The names that operators know from the transport of old."""
DEFAULTS: Final = {
    "rpc_zmq_bind_address": "*",
    "rpc_zmq_min_port": 49153,
    "rpc_zmq_max_port": 65536,
    "rpc_zmq_bind_port_retries": 100,
    "rpc_zmq_matchmaker": "dummy",
    "rpc_zmq_serialization": "json",
    "zmq_target_expire": 120,
    "use_pub_sub": True,
    "use_router_proxy": False,
}

EFFECTIVE: Final = [row for row in TABLE if row.look is not None]
DEPRECATED: Final = [row for row in TABLE if row.look is None]


def registered() -> dict[str, dict[str, cfg.Opt]]:
    """All options, by group and name, as the packages offer them to the config generator."""
    found: dict[str, dict[str, cfg.Opt]] = {}
    for point in metadata.entry_points(group="oslo.config.opts", name="oslo.messaging.zmq"):
        for group, listed in point.load()():
            found.setdefault(group, {}).update({option.dest: option for option in listed})
    return found


@pytest.mark.parametrize("row", EFFECTIVE, ids=lambda row: row.name)
def test_an_option_has_its_effect(row: Row, tmp_path: Path, redis_server: RedisServer) -> None:
    # A time that does not fit is taken again, since the machine has other work.
    for _ in range(3 if row.timed else 1):
        seen, expected = _effect(row, tmp_path, redis_server)
        if seen == expected:
            return
    assert seen == expected, row.effect


def _effect(row: Row, folder: Path, redis_server: RedisServer) -> tuple[list[Any], list[Any]]:
    """What is seen of the option with each of its values, and what should be."""
    benches = [Bench(folder, redis_server, tried) for tried in row.trials()]
    try:
        # Most of the time is spent waiting.
        looks = [functools.partial(row.look, bench) for bench in benches if row.look]
        seen = [look() for look in looks] if row.alone else at_once(looks)
        cases = zip(benches, row.cases.values(), strict=True)
        return seen, [bench.filled(thing) for bench, thing in cases]
    finally:
        Bench.close(benches)


def test_the_table_has_every_option_and_no_other_and_each_makes_a_difference() -> None:
    names = [(row.group, row.option) for row in TABLE]
    assert len(set(names)) == len(names)
    assert set(names) == {(group, name) for group, found in registered().items() for name in found}
    for row in EFFECTIVE:
        assert len({repr(seen) for seen in row.cases.values()}) > 1, row.name


@pytest.mark.parametrize("group", KNOWN)
def test_the_names_that_operators_know_are_options(group: str) -> None:
    assert set(KNOWN[group].split()) <= set(registered()[group])


def test_the_defaults_are_those_that_operators_know() -> None:
    found = registered()[ZMQ]
    assert {name: found[name].default for name in DEFAULTS} == DEFAULTS


def test_the_options_that_a_proxy_shares_with_services_have_the_same_defaults() -> None:
    theirs, ours = new_config(), cfg.ConfigOpts()
    options.register(ours)
    for conf in (theirs, ours):
        conf([], project="tests", default_config_files=[])
    for group in (ZMQ, REDIS):
        assert {name: ours[group][name] for name in theirs[group]} == dict(theirs[group])


def test_the_config_generator_lists_all_options_with_one_namespace(tmp_path: Path) -> None:
    output = tmp_path / "zmq.conf"
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(["--namespace", "oslo.messaging.zmq", "--output-file", str(output)])
    generator.generate(conf)
    listed: set[tuple[str, str]] = set()
    group = ""
    for line in output.read_text().splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif found := re.match(r"#(\w+) ?=", line):
            listed.add((group, found[1]))
    assert {(row.group, row.option) for row in TABLE} <= listed


@pytest.mark.parametrize("place", ["file", "url"])
@pytest.mark.parametrize(
    "option",
    [
        "zmq_linger",
        "use_pub_sub",
        "rpc_zmq_serialization",
        "rpc_zmq_min_port",
        "zmq_tcp_keepalive",
        "subscribe_on",
    ],
)
def test_a_value_that_cannot_be_is_an_error_that_names_the_option(
    option: str, place: str, bench: Bench
) -> None:
    in_file = {option: "nonsense"} if place == "file" else {}
    query = f"?{option}=nonsense" if place == "url" else ""
    with (
        bench.conf({ZMQ: in_file}) as conf,
        pytest.raises(InvalidConfiguration, match=rf"{option}\b.*nonsense"),
    ):
        oslo_messaging.get_rpc_transport(conf, url=f"zmq://{query}")


# -- deprecated ------------------------------------------------------------------------


def test_a_deprecated_option_has_a_reason_in_whole_sentences() -> None:
    for group, found in registered().items():
        for name, option in found.items():
            deprecated = (group, name) in {(row.group, row.option) for row in DEPRECATED}
            assert bool(option.deprecated_for_removal) == deprecated, name
            if deprecated:
                assert re.fullmatch(r"[A-Z](.* ){4}.*\.", option.deprecated_reason), name


_SERVICE: Final = """
import logging, sys
import oslo_messaging
from oslo_config import cfg
logging.basicConfig(level="WARNING", stream=sys.stdout)
cfg.CONF([f"--config-file={sys.argv[1]}"], project="tests")
oslo_messaging.get_rpc_transport(cfg.CONF, url=sys.argv[2]).cleanup()
"""


def _said(*arguments: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SERVICE, *map(str, arguments)],
        env=child_environment(EVENTLET_NO_GREENDNS="yes"),
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    return done.stdout


def test_a_service_that_sets_a_deprecated_option_is_told_so_with_the_reason(bench: Bench) -> None:
    groups: dict[str, dict[str, str]] = {}
    for row in DEPRECATED:
        groups.setdefault(row.group, {})[row.option] = next(iter(row.cases))
    said = _said(bench.file(groups), "zmq+redis:///")
    for row in DEPRECATED:
        if row.group != PROXY:
            reason = registered()[row.group][row.option].deprecated_reason
            assert f'"{row.option}" from group "{row.group}" is deprecated' in said
            assert reason.rstrip(".") in said
    assert _said(bench.file({ZMQ: {"zmq_linger": "1"}}), "zmq+redis:///") == ""


def test_a_service_is_told_of_a_deprecated_option_in_its_url(bench: Bench) -> None:
    said = _said(bench.file({}), "zmq://?rpc_poll_timeout=3")
    assert "rpc_poll_timeout in the query of the transport URL is deprecated: Nothing" in said


def test_a_proxy_that_sets_a_deprecated_option_is_told_so_with_the_reason(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    option = registered()[PROXY]["ack_pub_sub"]
    with running(bench, "router", ack_pub_sub=True):
        assert '"ack_pub_sub" from group "zmq_proxy_opts" is deprecated' in caplog.text
        assert option.deprecated_reason.rstrip(".") in caplog.text


@pytest.fixture
def bench(tmp_path: Path, redis_server: RedisServer) -> Bench:
    """A place to try options, without one."""
    return Bench(tmp_path, redis_server)
