# SPDX-License-Identifier: Apache-2.0
"""The command line, the options, and what is said about those that cannot work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zmq_proxy import InvalidConfiguration, Settings, __version__, new_config


def load(tmp_path: Path, text: str, *arguments: str) -> Settings:
    """The settings that a file with `text` makes."""
    file = tmp_path / "proxy.conf"
    file.write_text(text)
    conf = new_config()
    conf(["--config-file", str(file), *arguments], project="test")
    return Settings.load(conf)


def test_version_and_help_are_printed(deployment: Any) -> None:
    assert deployment.run("--version") == (0, f"{__version__}\n")
    code, text = deployment.run("--help")
    assert code == 0
    options = ("--config-file", "--log-file", "--debug", "--host", "--frontend-port PORT")
    for option in (*options, "--publisher-port PORT", "--role ROLE", "--local-publisher"):
        assert option in text
    assert "use_router_proxy or use_pub_sub" in " ".join(text.split())


def test_the_command_line_wins_over_the_file_and_the_services_own_host_is_not_ours(
    tmp_path: Path,
) -> None:
    text = (
        "[DEFAULT]\nhost = a-nova-host\ntransport_url = zmq+redis://localhost/\n"
        "[zmq_proxy_opts]\nhost = 127.0.0.1\nfrontend_port = 1111\nbackend_port = 2222\n"
    )
    settings = load(tmp_path, text)
    assert settings.address.advertise == "127.0.0.1"
    assert (settings.frontend_port, settings.backend_port) == (1111, 2222)
    settings = load(tmp_path, text, "--host", "::1", "--frontend-port", "0")
    assert settings.address.advertise == "::1"
    assert (settings.frontend_port, settings.backend_port) == (0, 2222)


def test_a_host_may_be_an_adapter_or_a_name_under_which_others_reach_us(tmp_path: Path) -> None:
    text = "[DEFAULT]\ntransport_url = zmq+redis://localhost/\n"
    assert load(tmp_path, text, "--host", "lo").address.host in ("127.0.0.1", "::1")
    address = load(tmp_path, text, "--host", "localhost").address
    assert (address.host, address.advertise) == ("*", "localhost")


def test_the_transport_url_tells_the_matchmaker_and_its_query_the_options(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "[DEFAULT]\ntransport_url = zmq+redis://me:secret@h1:7,h2/zone"
        "?zmq_linger=2.5&rpc_zmq_serialization=msgpack&socket_timeout=3\n",
    )
    assert settings.sockets.linger == 2.5
    assert settings.matchmaker.scheme == "redis"
    assert [host.name for host in settings.matchmaker.hosts] == ["h1", "h2"]
    assert settings.matchmaker.path == "/zone"
    assert dict(settings.matchmaker.query) == {"socket_timeout": "3"}
    by_option = load(
        tmp_path,
        "[DEFAULT]\ntransport_url = zmq://h1/\n[oslo_messaging_zmq]\nrpc_zmq_matchmaker = redis\n",
    )
    assert by_option.matchmaker.scheme == "redis"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "transport_url: not set"),
        ("rabbit://me:hidden@h/", "transport_url: the scheme 'rabbit'"),
        ("zmq+redis://me:hidden@h:port/", "transport_url: the port of host 'h'"),
        ("zmq+redis://me:hidden@[h/", "transport_url: cannot be parsed"),
        ("zmq+redis://me:hidden@h/?zmq_linger=long", "transport_url: zmq_linger"),
    ],
)
def test_a_transport_url_that_cannot_work_is_named_without_its_password(
    tmp_path: Path, url: str, said: str
) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        load(tmp_path, f"[DEFAULT]\ntransport_url = {url}\n")
    assert str(caught.value).startswith(said)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            "[oslo_messaging_zmq]\nrpc_zmq_bind_address = eth99",
            "[oslo_messaging_zmq] rpc_zmq_bind_address: 'eth99' is neither",
        ),
        ("[zmq_proxy_opts]\nhost = no such host", "[zmq_proxy_opts] host: 'no such host' is"),
        (
            "[oslo_messaging_zmq]\nrpc_zmq_min_port = 100\nrpc_zmq_max_port = 100",
            "[oslo_messaging_zmq] rpc_zmq_min_port: the range",
        ),
        (
            "[zmq_proxy_opts]\nfrontend_port = 99\nbackend_port = 99",
            "[zmq_proxy_opts] backend_port: 99",
        ),
        (
            "[oslo_messaging_zmq]\nzmq_target_update = 100",
            "transport_url or [oslo_messaging_zmq]: zmq_target_update (100 s)",
        ),
    ],
)
def test_an_option_that_cannot_work_is_named(tmp_path: Path, section: str, said: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        load(tmp_path, f"[DEFAULT]\ntransport_url = zmq+redis://localhost/\n{section}\n")
    assert str(caught.value).startswith(said)


def test_a_port_that_is_in_use_ends_the_command_with_1_and_names_the_option(
    deployment: Any, busy_port: int
) -> None:
    code, text = deployment.run("--frontend-port", str(busy_port))
    assert code == 1
    assert f"[zmq_proxy_opts] frontend_port: the port {busy_port} of '127.0.0.1' is in use" in text
    one_port = f"rpc_zmq_min_port = {busy_port}\nrpc_zmq_max_port = {busy_port + 1}"
    code, text = deployment.run(config=deployment.config(one_port))
    assert code == 1
    assert "ports range exceeded" in text
    assert deployment.records() == ()


def test_a_matchmaker_that_is_unknown_or_cannot_be_shared_ends_the_command_with_1(
    deployment: Any,
) -> None:
    code, text = deployment.run(config="[DEFAULT]\ntransport_url = zmq+nosuch://h/\n")
    assert code == 1
    assert "transport_url: there is no matchmaker 'nosuch'; installed: dummy, file, redis" in text
    code, text = deployment.run(config="[DEFAULT]\ntransport_url = zmq://\n")
    assert code == 1
    assert "transport_url: the matchmaker 'dummy' works within one process only" in text
    assert "Traceback" not in text


def test_an_address_of_another_machine_ends_the_command_with_1(deployment: Any) -> None:
    code, text = deployment.run("--host", "192.0.2.1")
    assert code == 1
    assert "[zmq_proxy_opts] host: cannot bind tcp://192.0.2.1:" in text


def test_bad_arguments_and_files_end_the_command_with_an_error_code(
    deployment: Any, tmp_path: Path
) -> None:
    code, text = deployment.run("--frontend-port", "70000")
    assert code == 1
    assert "--frontend-port" in text
    code, text = deployment.run("--no-such-option")
    assert code == 2
    assert "--no-such-option" in text
    code, text = deployment.run("--config-file", str(tmp_path / "missing.conf"))
    assert code == 1
    assert "missing.conf" in text
    code, text = deployment.run(config=deployment.config(proxy_options="frontend_port = many"))
    assert code == 1
    assert "frontend_port" in text
    assert "Traceback" not in text


def test_the_log_goes_to_the_log_file_and_names_no_password(
    deployment: Any, tmp_path: Path
) -> None:
    log = tmp_path / "proxy.log"
    process = deployment.start("--log-file", str(log), "--debug")
    deployment.endpoints(process)
    assert process.end() == 0
    assert "routes from tcp://127.0.0.1:" in log.read_text()
    assert process.output == ""
    config = "[DEFAULT]\ntransport_url = zmq+redis://me:hidden@h:1/?no_such_setting=1\n"
    code, text = deployment.run("--log-file", str(log), config=config)
    assert code == 1
    assert "no_such_setting" in text
    assert "no_such_setting" in log.read_text()
    assert "hidden" not in text + log.read_text()


def test_the_example_in_the_readme_runs(run_python: Callable[[str], str]) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    example = readme.partition("```python\n")[2].partition("```")[0]
    assert run_python(example) == "alice says hello\n"
