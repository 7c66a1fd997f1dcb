# SPDX-License-Identifier: Apache-2.0
"""Configuration and transport URL: defaults, overrides, and errors that name the culprit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg
from oslo_messaging import TransportURL
from oslo_messaging.conffixture import ConfFixture

from zmq_core import Serializer
from zmq_oslo_driver import options
from zmq_oslo_driver.errors import InvalidConfiguration
from zmq_oslo_driver.settings import Settings


@pytest.fixture
def conf() -> Iterator[cfg.ConfigOpts]:
    conf = cfg.ConfigOpts()
    fixture = ConfFixture(conf)
    fixture.setUp()
    conf([], project="tests")
    options.register(conf)
    yield conf
    fixture.cleanUp()


def load(conf: cfg.ConfigOpts, url: str = "zmq://", **overrides: Any) -> Settings:
    for name, value in overrides.items():
        conf.set_override(name, value, group=options.GROUP)
    return Settings.load(conf, TransportURL.parse(conf, url))


def test_the_defaults_are_those_that_operators_know(conf: cfg.ConfigOpts) -> None:
    settings = load(conf)
    assert (settings.node.min_port, settings.node.max_port) == (49153, 65536)
    assert settings.node.bind_retries == 100
    assert settings.node.bind_address == "*"
    assert settings.serializer is Serializer.JSON
    assert settings.directory.expire == 120
    assert settings.matchmaker.scheme == "dummy"


def test_the_url_names_the_matchmaker_and_the_option_is_for_urls_that_do_not(
    conf: cfg.ConfigOpts,
) -> None:
    assert load(conf, "zmq+redis://host").matchmaker.scheme == "redis"
    assert load(conf, "zmq://host", rpc_zmq_matchmaker="redis").matchmaker.scheme == "redis"
    assert load(conf, "zmq+dummy://").matchmaker.scheme == "dummy"


def test_an_option_in_the_urls_query_wins(conf: cfg.ConfigOpts) -> None:
    settings = load(conf, "zmq://?rpc_zmq_bind_address=lo&zmq_linger=1.5", zmq_linger=9)
    assert settings.node.bind_address == "lo"
    assert settings.node.linger == 1.5


def test_an_option_of_the_wrong_type_in_the_query_is_an_error(conf: cfg.ConfigOpts) -> None:
    with pytest.raises(InvalidConfiguration, match=r"transport_url.*: rpc_zmq_min_port .*many"):
        load(conf, "zmq://?rpc_zmq_min_port=many")


def test_an_empty_port_range_names_the_option(conf: cfg.ConfigOpts) -> None:
    with pytest.raises(InvalidConfiguration, match=r"rpc_zmq_min_port.*rpc_zmq_max_port 5000"):
        load(conf, rpc_zmq_min_port=5000, rpc_zmq_max_port=5000)


def test_a_zero_keepalive_time_names_the_option(conf: cfg.ConfigOpts) -> None:
    with pytest.raises(InvalidConfiguration, match="zmq_tcp_keepalive_idle"):
        load(conf, zmq_tcp_keepalive_idle=0)


def test_records_that_would_expire_before_a_refresh_name_both_options(conf: cfg.ConfigOpts) -> None:
    with pytest.raises(InvalidConfiguration, match=r"zmq_target_update.*zmq_target_expire"):
        load(conf, zmq_target_update=100)


def test_an_unknown_matchmaker_lists_those_there_are(conf: cfg.ConfigOpts) -> None:
    with pytest.raises(InvalidConfiguration, match=r"nonsense.*dummy.*file.*redis"):
        oslo_messaging.get_rpc_transport(conf, url="zmq+nonsense://")


def test_an_unknown_adapter_lists_those_there_are_when_a_server_starts(
    conf: cfg.ConfigOpts,
) -> None:
    transport = oslo_messaging.get_rpc_transport(conf, url="zmq://?rpc_zmq_bind_address=eth99")
    target = oslo_messaging.Target(topic="t", server="s")
    server = oslo_messaging.get_rpc_server(transport, target, [], executor="threading")
    with pytest.raises(InvalidConfiguration, match=r"rpc_zmq_bind_address.*eth99.*lo"):
        server.start()
    transport.cleanup()


def test_passwords_do_not_show_in_settings(conf: cfg.ConfigOpts) -> None:
    settings = load(conf, "zmq+redis://user:hunter2@host")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.matchmaker)
