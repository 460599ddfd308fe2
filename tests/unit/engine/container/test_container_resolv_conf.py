import pytest

from wherry.engine.container import resolv_conf
from wherry.engine.container.resolv_conf import Wanted, behind, reachable, served
from wherry.host.resolv_conf import parse


def choices(servers=(), search=(), options=()):
    return {"Dns": list(servers), "DnsSearch": list(search), "DnsOptions": list(options)}


HOST = "# comment\n; another\nnameserver 10.0.0.2\nsearch a b\noptions edns0\nsortlist x\n"


def test_what_the_user_chose_replaces_what_the_host_has():
    wanted = resolv_conf.with_choices(parse(HOST), choices(["1.1.1.1"], ["."], ["ndots:5"]))
    assert str(wanted) == "nameserver 1.1.1.1\noptions ndots:5\n"
    assert str(resolv_conf.with_choices(parse(HOST), choices())) == str(parse(HOST))


def test_a_pod_may_search_the_root():
    chosen = choices(["1.1.1.1"], ["a.example", "."])
    assert list(resolv_conf.with_choices(parse(HOST), chosen).search) == ["a.example"]
    chosen["Annotations"] = {resolv_conf.SEARCH_ROOT: "true"}
    text = str(resolv_conf.with_choices(parse(HOST), chosen))
    assert text == "nameserver 1.1.1.1\nsearch a.example .\noptions edns0\n"


@pytest.mark.parametrize(
    ("servers", "ipv6", "left"),
    [
        (["127.0.0.53", "10.0.0.2"], False, ["10.0.0.2"]),
        (["::1", "fd00::1", "10.0.0.2"], False, ["10.0.0.2"]),
        (["::1", "fd00::1", "10.0.0.2"], True, ["fd00::1", "10.0.0.2"]),
        (["nonsense", "10.0.0.2"], True, ["10.0.0.2"]),
        (["::1"], False, ["8.8.8.8", "8.8.4.4"]),
        ([], True, ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"]),
    ],
)
def test_servers_out_of_reach_are_left_out(servers, ipv6, left):
    assert list(reachable(Wanted(servers), ipv6=ipv6).servers) == left


def test_servers_that_the_user_chose_stay():
    chosen = Wanted(["127.0.0.1", "::1"], chosen=True)
    assert reachable(chosen, ipv6=False) is chosen


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], "ndots:0"),
        (["edns0", "trust-ad"], "edns0 trust-ad ndots:0"),
        (["ndots:3"], "ndots:3"),
        (["ndots:x", "rotate"], "rotate ndots:0"),
    ],
)
def test_our_name_server_stands_alone_and_takes_names_as_they_are(options, shown):
    text = str(served(Wanted(["10.0.0.2"], ["a"], options), "127.0.0.11"))
    assert text == f"nameserver 127.0.0.11\nsearch a\noptions {shown}\n"


def test_who_is_asked_behind_ours_and_from_where():
    host = Wanted(["127.0.0.53", "10.0.0.2", "fd00::1", "fe80::1%eth0", "?"])
    assert behind(host, ipv6=False) == [
        ("127.0.0.53", True),
        ("10.0.0.2", False),
        ("fd00::1", True),
        ("fe80::1%eth0", True),
    ]
    assert behind(host, ipv6=True)[2:] == [("fd00::1", False), ("fe80::1%eth0", True)]
    assert behind(Wanted(["127.0.0.1"], chosen=True), ipv6=False) == [("127.0.0.1", False)]
    assert behind(Wanted(), ipv6=False) == [("8.8.8.8", False), ("8.8.4.4", False)]
