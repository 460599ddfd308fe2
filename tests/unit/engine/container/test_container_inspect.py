import pytest
from containers_helper import make

from wherry.engine.container import inspect
from wherry.engine.container.container import PublishedPort
from wherry.engine.container.units import (
    human_duration,
    parse_duration,
    parse_rfc3339,
    parse_since,
    timestamp,
)
from wherry.engine.errors import BadParameter


def running():
    container = make(config={"ExposedPorts": {"80/tcp": {}, "53/udp": {}}})
    container.state.running = container.holding = True
    container.state.started_at = 10 * 10**9
    container.ports = [PublishedPort("tcp", 80, "0.0.0.0", 8080)]
    endpoint = container.endpoints["bridge"]
    endpoint.address, endpoint.prefix_length, endpoint.gateway = "172.17.0.2", 16, "172.17.0.1"
    endpoint.endpoint_id = "e" * 64
    return container


def shown(container):
    return inspect.inspect(container, driver_data={}, exec_ids=None)


def test_inspect_shows_where_a_running_container_is():
    network = shown(running())["NetworkSettings"]
    assert network["IPAddress"] == network["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert network["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}],
        "53/udp": None,
    }


def test_one_that_never_ran_has_go_s_zero_times():
    state = shown(make())["State"]
    assert state["Status"] == "created"
    assert state["StartedAt"] == state["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert shown(make())["NetworkSettings"]["Ports"] == {}


def test_ps_shows_published_and_exposed_ports():
    assert inspect.summary(running(), "busybox")["Ports"] == [
        {"PrivatePort": 53, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
    ] or inspect.summary(running(), "busybox")["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]


def test_arguments_with_blanks_are_quoted():
    assert inspect.command_line(make(config={"Cmd": ["sh", "-c", "sleep 1"]})) == "sh -c 'sleep 1'"


def test_the_status_line_says_since_when():
    container = running()
    assert inspect.status_line(container, now=40) == "Up 30 seconds"
    container.state.paused = True
    assert inspect.status_line(container, now=40) == "Up 30 seconds (Paused)"
    container.state.paused, container.state.restarting = False, True
    container.state.exit_code, container.state.finished_at = 3, 20 * 10**9
    assert inspect.status_line(container, now=21) == "Restarting (3) 1 second ago"
    container.state.running = container.state.restarting = False
    assert inspect.status_line(container, now=110) == "Exited (3) About a minute ago"
    assert inspect.status_line(make()) == "Created"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (59, "59 seconds"),
        (119, "About a minute"),
        (3540, "59 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_are_worded_as_docker_does(seconds, text):
    assert human_duration(seconds) == text


def test_times_come_back_as_they_went():
    assert timestamp(parse_rfc3339("2024-05-01T10:00:00.25+02:00")) == "2024-05-01T08:00:00.25Z"
    assert timestamp(1_000_000_000, fixed=True) == "1970-01-01T00:00:01.000000000Z"


def test_since_is_seconds_with_a_fraction_or_a_date():
    assert parse_since("12.5") == 12_500_000_000
    assert parse_since("1970-01-01T00:00:01Z") == 10**9
    assert parse_since("") == 0
    with pytest.raises(BadParameter):
        parse_since("yesterday")


def test_go_durations():
    assert parse_duration("1h30m") == 5400
    assert parse_duration("1.5s") == 1.5
    assert parse_duration("10") is None
