import pytest

from wherry.engine.network.dns.zone import Member, Place, Zone, find, find_name


@pytest.fixture
def front():
    zone = Zone("front")
    zone.enter(Member("1", ("web", "www", "1111", "Host"), ("172.18.0.2", "fd00::2")))
    zone.enter(Member("2", ("db", "2222"), ("172.18.0.3",)))
    zone.enter(Member("3", ("a.b", "www"), ("172.18.0.4",)))
    return zone


@pytest.fixture
def back():
    zone = Zone("back.net")
    zone.enter(Member("2", ("db", "2222"), ("172.19.0.3",)))
    zone.enter(Member("4", ("cache",), ("172.19.0.4",)))
    return zone


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web", ["172.18.0.2", "fd00::2"]),
        ("WEB.", ["172.18.0.2", "fd00::2"]),
        ("host", ["172.18.0.2", "fd00::2"]),
        ("1111", ["172.18.0.2", "fd00::2"]),
        ("www", ["172.18.0.2", "fd00::2", "172.18.0.4"]),
        ("db", ["172.18.0.3"]),
        ("db.front", ["172.18.0.3"]),
        ("db.back.net", ["172.19.0.3"]),
        ("DB.Back.Net.", ["172.19.0.3"]),
        ("a.b", ["172.18.0.4"]),
        ("a.b.front", ["172.18.0.4"]),
        ("cache", ["172.19.0.4"]),
        ("cache.front", None),
        ("b", None),
        ("front", None),
        ("", None),
        (".", None),
        ("web.elsewhere", None),
    ],
)
def test_who_is_found_on_two_networks(front, back, name, addresses):
    assert find([Place(front), Place(back)], name) == addresses


def test_the_order_of_networks_decides(front, back):
    assert find([Place(back), Place(front)], "db") == ["172.19.0.3"]


def test_a_network_that_one_is_not_on_is_not_seen(front):
    assert find([Place(front)], "cache") is None
    assert find([Place(front)], "db.back.net") is None


def test_a_link_s_alias_is_found_and_hides_the_name_of_another(front):
    places = [Place(front, {"store": "db", "web": "db", "lost": "gone"})]
    assert find(places, "store") == ["172.18.0.3"]
    assert find(places, "store.front") == ["172.18.0.3"]
    assert find(places, "web") == ["172.18.0.3"]
    assert find(places, "lost") is None
    assert find([Place(front)], "store") is None


def test_who_has_left_is_not_found_and_who_is_renamed_is(front):
    front.leave("2")
    assert front.addresses("db") is None
    assert front.name_of("172.18.0.3") is None
    front.enter(Member("1", ("site",), ("172.18.0.9",)))
    assert front.addresses("web") is None
    assert front.addresses("site") == ["172.18.0.9"]
    front.leave("1")
    front.leave("3")
    front.leave("3")
    assert len(front) == 0


def test_addresses_are_called_by_the_container_s_name(front, back):
    places = [Place(front), Place(back)]
    assert find_name(places, "172.18.0.2") == "web.front"
    assert find_name(places, "fd00::2") == "web.front"
    assert find_name(places, "172.19.0.4") == "cache.back.net"
    assert find_name(places, "172.18.0.99") is None
