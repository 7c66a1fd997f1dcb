# SPDX-License-Identifier: Apache-2.0
"""RPC from process to process, over each matchmaker that works between processes."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg
from oslo_messaging import MessageDeliveryFailure, MessagingTimeout, Target

from harness.leaks import wait_until
from harness.services import Service
from zmq_matchmaker import Key, Role
from zmq_oslo_driver.errors import CleanedUp, SerializationError, ServerLost

MakeService = Callable[..., Service]
MakeTransport = Callable[..., Any]


def client(transport: Any, topic: str = "work", **target: Any) -> Any:
    return oslo_messaging.get_rpc_client(transport, Target(topic=topic, **target), timeout=20)


def has_noted(server: Any, count: int) -> bool:
    return len(server.call({}, "noted")) >= count


def test_a_call_returns_what_the_server_returns(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    caller = client(make_transport(url))
    for value in ("text", 1, 2.5, None, True, [1, [2]], {"a": {"b": None}}, "ünïcödé ✓", ""):
        assert caller.call({}, "echo", value=value) == value


def test_the_context_arrives_with_the_call(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    assert client(make_transport(url)).call({"user": "me"}, "context") == {"user": "me"}


def test_calls_to_a_topic_are_balanced_over_its_servers(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    for name in ("one", "two", "three"):
        make_service(url, ("", "work", name))
    caller = client(make_transport(url))
    answers = Counter(caller.call({}, "whoami")[0] for _ in range(30))
    assert answers == {"one": 10, "two": 10, "three": 10}


def test_servers_of_one_process_take_turns_too(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"), ("", "work", "two"), ("", "other", "three"))
    caller = client(make_transport(url))
    answers = Counter(caller.call({}, "whoami")[0] for _ in range(20))
    assert answers == {"one": 10, "two": 10}


def test_a_directed_call_reaches_exactly_that_server(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"), ("", "work", "two"))
    make_service(url, ("", "work", "three"))
    caller = client(make_transport(url))
    for name in ("three", "one", "two", "two", "three"):
        assert caller.prepare(server=name).call({}, "whoami")[0] == name


def test_f32_names_with_dots_ats_slashes_and_prefixes_do_not_cross(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    names = [
        ("", "cinder-volume", "host@lvm"),
        ("", "cinder-volume.host@lvm", "host"),
        ("", "cinder", "volume"),
        ("", "nova", "a/b"),
        ("", "nova-x", "ü:1"),
        ("other", "cinder-volume", "host@lvm"),
        ("other", "nova", "a/b"),
    ]
    for exchange, topic, server in names:
        make_service(url, (exchange, topic, server))
    transport = make_transport(url)
    pids = set()
    for exchange, topic, server in names:
        caller = client(transport, topic, exchange=exchange or None)
        bare = caller.call({}, "whoami")
        assert bare == caller.prepare(server=server).call({}, "whoami")
        pids.add(bare[1])
    assert len(pids) == len(names)


def test_a_cast_is_executed_once(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    make_service(url, ("", "work", "two"))
    caller = client(make_transport(url))
    texts = [f"cast {number}" for number in range(50)]
    for text in texts:
        caller.cast({}, "note", text=text)

    def noted() -> list[str]:
        return [
            text
            for name in ("one", "two")
            for text in caller.prepare(server=name).call({}, "noted")
        ]

    wait_until(lambda: len(noted()) >= 50, "all casts executed")
    assert sorted(noted()) == sorted(texts)


def test_a_fanout_reaches_every_server_once(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"), ("", "work", "two"))
    make_service(url, ("", "work", "three"))
    make_service(url, ("other", "work", "four"))
    transport = make_transport(url)
    caller = client(transport)
    for number in range(5):
        caller.prepare(fanout=True).cast({}, "note", text=str(number))
    for name in ("one", "two", "three"):
        server = caller.prepare(server=name)
        wait_until(functools.partial(has_noted, server, 5), f"5 copies at {name}")
        assert sorted(server.call({}, "noted")) == list("01234")
    assert client(transport, exchange="other").call({}, "noted") == []


def test_a_fanout_reaches_also_a_server_that_did_not_answer_lately(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    make_service(url, ("", "work", "two"))
    transport = make_transport(url)
    caller = client(transport)
    directory = transport._driver._use().directory
    key = Key(Role.LISTENER, "openstack", "work")
    wait_until(lambda: len(directory.refresh(key, 5)) == 2, "both are known")
    directory.nack(key, directory.lookup(key, 5)[0])
    assert len(directory.lookup(key, 5)) == 1
    caller.prepare(fanout=True).cast({}, "note", text="all")
    for name in ("one", "two"):
        server = caller.prepare(server=name)
        wait_until(functools.partial(has_noted, server, 1), f"a copy at {name}")


def test_f01_a_fanout_that_nobody_listens_to_is_a_success(
    url: str, make_transport: MakeTransport
) -> None:
    started = time.monotonic()
    client(make_transport(url)).prepare(fanout=True).cast({}, "note", text="nobody")
    assert time.monotonic() - started < 5


def test_an_allowed_remote_exception_is_raised_as_itself(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    caller = client(make_transport(url))
    with pytest.raises(ValueError, match="told to fail"):
        caller.call({}, "fail", kind="ValueError", text="told to fail")


def test_f31_any_other_remote_exception_becomes_a_remote_error(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    caller = client(make_transport(url))
    with pytest.raises(oslo_messaging.RemoteError, match="told to fail") as caught:
        caller.call({}, "fail", kind="peculiar", text="told to fail")
    assert caught.value.exc_type == "_Peculiar"
    assert "in fail" in str(caught.value)


def test_modules_in_allowed_remote_exmods_are_raised_as_themselves(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    transport = make_transport(url, allowed_remote_exmods=["oslo_messaging.rpc.dispatcher"])
    with pytest.raises(oslo_messaging.rpc.dispatcher.NoSuchMethod):
        client(transport).call({}, "no_such_method")


def test_f31_an_exception_that_cannot_be_serialised_arrives_with_its_text(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    caller = client(make_transport(url))
    with pytest.raises(ValueError, match="the text survives"):
        caller.call({}, "fail_unserialisably")
    assert caller.call({}, "echo", value=1) == 1


def test_a_reply_that_cannot_be_serialised_is_an_error_at_once(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    caller = client(make_transport(url))
    started = time.monotonic()
    with pytest.raises(oslo_messaging.RemoteError, match="the reply is not serialisable as json"):
        caller.call({}, "unserialisable")
    assert time.monotonic() - started < 5


def test_an_exception_that_is_too_large_arrives_as_an_error_that_says_so(
    file_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    url = f"{file_url}?zmq_max_message_size=65536"
    make_service(url, ("", "work", "one"))
    caller = client(make_transport(url))
    text = "the beginning" + "x" * 60_000
    with pytest.raises(oslo_messaging.RemoteError, match=r"ValueError cannot be sent.*beginning"):
        caller.call({}, "fail", kind="ValueError", text=text)


def test_arguments_that_cannot_be_serialised_are_an_error_that_names_the_target(
    url: str, make_transport: MakeTransport
) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SerializationError, match=r"topic 'work'.*not serialisable as json"):
        client(make_transport(url)).call({}, "echo", value=loop)


def test_a_call_that_takes_too_long_times_out_exactly_when_due(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    caller = client(make_transport(url))
    caller.call({}, "echo", value=1)
    started = time.monotonic()
    with pytest.raises(MessagingTimeout, match="no reply within"):
        caller.prepare(timeout=1).call({}, "slow", seconds=2.0)
    assert 0.99 < time.monotonic() - started < 1.5


def test_a_timeout_may_be_longer_than_the_system_can_wait(
    file_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(file_url, ("", "work", "one"))
    caller = client(make_transport(file_url)).prepare(timeout=1e12)
    assert caller.call({}, "echo", value=1) == 1


def test_no_monitor_timeout_is_none(
    file_url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(file_url, ("", "work", "one"))
    caller = client(make_transport(file_url)).prepare(call_monitor_timeout=0)
    assert caller.call({}, "echo", value=1) == 1


def test_f01_a_call_that_nobody_listens_to_times_out_and_says_so(
    url: str, make_transport: MakeTransport
) -> None:
    started = time.monotonic()
    with pytest.raises(MessagingTimeout, match=r"nobody listens on .*topic 'work'"):
        client(make_transport(url)).prepare(timeout=1).call({}, "echo", value=1)
    assert 0.99 < time.monotonic() - started < 1.5


def test_f01_a_server_that_appears_before_the_timeout_is_still_used(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    transport = make_transport(url)
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(client(transport).call({}, "echo", value="late"))
    )
    thread.start()
    make_service(url, ("", "work", "one"))
    thread.join()
    assert answers == ["late"]


def test_a_cast_without_a_listener_fails_after_the_send_timeout(
    url: str, make_transport: MakeTransport, conf: Any
) -> None:
    conf.set_override("zmq_send_timeout", 0.5, group="oslo_messaging_zmq")
    with pytest.raises(MessageDeliveryFailure, match="nobody listens"):
        client(make_transport(url)).cast({}, "note", text="lost")


def test_a_cast_without_retries_fails_at_once(url: str, make_transport: MakeTransport) -> None:
    caller = oslo_messaging.get_rpc_client(make_transport(url), Target(topic="work"), retry=0)
    started = time.monotonic()
    with pytest.raises(MessageDeliveryFailure):
        caller.cast({}, "note", text="lost")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "options", [oslo_messaging.TransportOptions(at_least_once=True), {"at_least_once": True}]
)
def test_f01_at_least_once_says_at_once_that_nobody_listens(
    url: str, options: Any, make_transport: MakeTransport
) -> None:
    caller = oslo_messaging.get_rpc_client(
        make_transport(url),
        Target(topic="work"),
        timeout=20,
        transport_options=options,
    )
    started = time.monotonic()
    with pytest.raises(oslo_messaging.MessageUndeliverable):
        caller.call({}, "echo", value=1)
    assert time.monotonic() - started < 5


def test_a_monitored_call_lives_while_its_server_lives(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    caller = client(make_transport(url)).prepare(timeout=60, call_monitor_timeout=2)
    assert caller.call({}, "slow", seconds=3.5) == "one"


def test_a_monitored_call_of_an_unknown_method_leaves_no_thread_in_its_server(
    file_url: str, make_transport: MakeTransport, conf: cfg.ConfigOpts
) -> None:
    transport = make_transport(file_url)
    server = oslo_messaging.get_rpc_server(
        transport, Target(topic="work", server="one"), [object()], executor="threading"
    )
    conf.set_override("executor_thread_pool_size", 1)
    server.start()
    caller = client(make_transport(f"{file_url}?zmq_linger=1"))
    with pytest.raises(oslo_messaging.RemoteError, match="NoSuchMethod"):
        caller.call({}, "unknown")
    before = threading.active_count()
    for monitor in (2, 3600):
        with pytest.raises(oslo_messaging.RemoteError, match="NoSuchMethod"):
            caller.prepare(call_monitor_timeout=monitor).call({}, "unknown")
    wait_until(lambda: threading.active_count() <= before, "no thread is left")
    server.stop()
    server.wait()


def test_f03_a_caller_learns_soon_that_its_server_was_killed(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    service = make_service(url, ("", "work", "one"))
    caller = client(make_transport(url))
    caller.call({}, "echo", value=1)
    timer = threading.Timer(0.5, service.kill)
    timer.start()
    started = time.monotonic()
    with pytest.raises(ServerLost, match="connection lost"):
        caller.call({}, "slow", seconds=15.0)
    timer.join()
    assert time.monotonic() - started < 5


def test_f02_after_a_server_was_killed_the_next_calls_go_to_the_others(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    victim = make_service(url, ("", "work", "one"))
    make_service(url, ("", "work", "two"))
    caller = client(make_transport(url))
    assert {caller.call({}, "whoami")[0] for _ in range(4)} == {"one", "two"}
    victim.kill()
    assert {caller.call({}, "whoami")[0] for _ in range(6)} == {"two"}


def test_f07_all_servers_leave_and_return_without_a_restart_of_the_client(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    caller = client(make_transport(url))
    for _ in range(3):
        service = make_service(url, ("", "work", "one"))
        assert caller.call({}, "whoami") == ["one", service.pid]
        service.stop()
        with pytest.raises(MessagingTimeout, match="nobody listens"):
            caller.prepare(timeout=0.3).call({}, "whoami")
    make_service(url, ("", "work", "one"))
    assert caller.call({}, "whoami")[0] == "one"


def test_sixteen_threads_get_their_own_answers(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    make_service(url, ("", "work", "two"))
    caller = client(make_transport(url))
    wrong: list[Any] = []

    def work(thread: int) -> None:
        for number in range(50):
            value = [thread, number]
            answer = caller.call({}, "echo", value=value)
            if answer != value:
                wrong.append((value, answer))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_body_of_64_megabytes_goes_there_and_back(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    make_service(url, ("", "work", "one"))
    value = "x" * 64 * 2**20
    answer = client(make_transport(url)).prepare(timeout=60).call({}, "echo", value=value)
    assert answer == value


def test_json_and_msgpack_services_understand_each_other(
    url: str, make_service: MakeService, make_transport: MakeTransport, conf: Any
) -> None:
    make_service(url, ("", "work", "json"))
    make_service(url, ("", "work", "pack"), options={"rpc_zmq_serialization": "msgpack"})
    for serializer in ("json", "msgpack"):
        conf.set_override("rpc_zmq_serialization", serializer, group="oslo_messaging_zmq")
        caller = client(make_transport(url))
        for name in ("json", "pack"):
            answer = caller.prepare(server=name).call({}, "echo", value={"a": [1, "é", None]})
            assert answer == {"a": [1, "é", None]}


def test_stopping_a_service_takes_no_time_and_leaves_nothing(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    service = make_service(url, ("", "work", "one"), ("", "work", "two"))
    client(make_transport(url)).call({}, "echo", value=1)
    said = service.stop()
    assert said["seconds"] < 2
    surplus = {
        name: count - said["before"][name]
        for name, count in said["after"].items()
        if count > said["before"][name]
    }
    assert surplus == {}


def test_a_transport_that_was_cleaned_up_says_so(url: str, make_transport: MakeTransport) -> None:
    transport = make_transport(url)
    transport.cleanup()
    transport.cleanup()
    with pytest.raises(CleanedUp, match="cleaned up"):
        client(transport).call({}, "echo", value=1)


def test_f28_a_transport_made_before_a_fork_works_in_the_child(
    url: str, make_service: MakeService, make_transport: MakeTransport
) -> None:
    service = make_service(url, ("", "work", "child"), fork_before_start=True)
    caller = client(make_transport(url))
    assert caller.call({}, "whoami") == ["child", service.pid]
    assert service.pid != service.process.pid
    assert service.stop()["stopped"]
