import pytest

from wherry.engine.container.container import PublishedPort
from wherry.engine.errors import BadParameter
from wherry.engine.network.ports import (
    PortRequest,
    by_container_port,
    ephemeral_range,
    parse_port,
    requests,
)


def test_a_port_has_a_protocol():
    assert parse_port("80") == (80, "tcp")
    assert parse_port("53/UDP") == (53, "udp")


@pytest.mark.parametrize("text", ["0", "65536", "x", "80/icmp", ""])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(BadParameter):
        parse_port(text)


def bound(bindings, **kwargs):
    return requests({}, bindings, publish_all=False, **kwargs)


def test_publications_as_the_client_sends_them():
    assert bound({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}) == [
        PortRequest("tcp", 80, "", 8080, 8080)
    ]
    assert bound({"80/tcp": [{"HostPort": "8000-8010"}]}) == [
        PortRequest("tcp", 80, "", 8000, 8010)
    ]
    assert bound({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}) == [
        PortRequest("tcp", 80, "127.0.0.1")
    ]


def test_publish_all_takes_the_exposed_ports_that_are_not_published_yet():
    found = requests(
        {"80/tcp": {}, "443/tcp": {}}, {"80/tcp": [{"HostPort": "80"}]}, publish_all=True
    )
    assert [(r.container_port, r.first) for r in found] == [(80, 80), (443, 0)]


@pytest.mark.parametrize(
    "binding", [{"HostPort": "9-8"}, {"HostPort": "x"}, {"HostPort": "70000"}, {"HostIp": "host"}]
)
def test_malformed_publications_are_refused(binding):
    with pytest.raises(BadParameter):
        bound({"80/tcp": [binding]})


def test_ports_of_one_container_port_are_listed_together():
    published = [
        PublishedPort("tcp", 80, "0.0.0.0", 1),
        PublishedPort("tcp", 80, "127.0.0.1", 2),
    ]
    assert by_container_port(["90"], published) == {
        "90/tcp": None,
        "80/tcp": [
            {"HostIp": "0.0.0.0", "HostPort": "1"},
            {"HostIp": "127.0.0.1", "HostPort": "2"},
        ],
    }


def test_the_machine_says_which_ports_are_ephemeral(tmp_path):
    (tmp_path / "range").write_text("100\t200\n")
    assert ephemeral_range(tmp_path / "range") == (100, 200)
    assert ephemeral_range(tmp_path / "none") == (49153, 65535)
