"""Name servers follow the places of containers; their sockets are only pretended."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "container"))
from containers_helper import make

from wherry.engine.container.container import Endpoint
from wherry.engine.network.dns import resolvers as kept
from wherry.engine.network.dns.resolvers import Resolvers
from wherry.engine.network.dns.zone import find
from wherry.net.nftables.nft import NftError


class FakeServer:
    refusal = None

    def __init__(self, namespace, places, forwarding):
        self.namespace, self.places, self.forwarding = namespace, places, forwarding
        self.closed = False
        SERVERS[namespace.name] = self

    async def open(self):
        if FakeServer.refusal:
            raise FakeServer.refusal

    def close(self):
        self.closed = True


SERVERS = {}


@pytest.fixture
def resolvers(monkeypatch):
    SERVERS.clear()
    FakeServer.refusal = None
    monkeypatch.setattr(kept, "NameServer", FakeServer)
    monkeypatch.setattr(
        kept, "host_file", lambda *, direct: "nameserver 127.0.0.53\noptions edns0\n"
    )
    return Resolvers(lambda id: Path("/run/netns", id))


def container(name, digit, *networks, **options):
    made = make(id=digit * 64, name=name, **options)
    made.endpoints = {network: endpoint(network, digit) for network in networks}
    return made


def endpoint(network, digit, **settings):
    return Endpoint(
        network,
        network_id=f"id of {network}",
        endpoint_id="e",
        address=f"172.18.0.{digit}",
        gateway="172.18.0.1",
        **settings,
    )


def seen(name, digit):
    return find(SERVERS[digit * 64].places, name)


async def test_containers_of_one_network_see_each_other(resolvers):
    web = container("web", "2", "front", config={"Hostname": "site"})
    db = container("db", "3", "front", "back")
    db.endpoints["front"].aliases = ["Store"]
    for each in (web, db):
        await resolvers.attach(each)
    assert resolvers.serves(web)
    assert seen("db", "2") == seen("store", "2") == seen("3" * 12, "2") == ["172.18.0.3"]
    assert seen("site", "3") == seen("web.front", "3") == ["172.18.0.2"]
    assert seen("web.back", "3") is None


async def test_links_are_seen_by_who_has_them(resolvers):
    web, db = container("web", "2", "front"), container("db", "3", "front")
    web.endpoints["front"].links = ["db:Base", "db"]
    for each in (web, db):
        await resolvers.attach(each)
    assert seen("base", "2") == ["172.18.0.3"]
    assert seen("base", "3") is None


async def test_places_and_names_may_change(resolvers):
    web, db = container("web", "2", "front"), container("db", "3", "back")
    for each in (web, db):
        await resolvers.attach(each)
    assert seen("db", "2") is None
    web.endpoints["back"] = endpoint("back", "2")
    await resolvers.attach(web)
    assert seen("db", "2") == ["172.18.0.3"]
    db.name = "base"
    await resolvers.attach(db)
    assert seen("db", "2") is None and seen("base", "2") == ["172.18.0.3"]
    del web.endpoints["back"], web.endpoints["front"]
    await resolvers.attach(web)
    assert seen("base", "2") is None and seen("web", "3") is None
    assert resolvers.serves(web)  # its resolv.conf says so


async def test_who_has_left_is_forgotten(resolvers):
    web, db = container("web", "2", "front"), container("db", "3", "front")
    for each in (web, db):
        await resolvers.attach(each)
    resolvers.detach(web)
    resolvers.detach(web)
    assert SERVERS["2" * 64].closed and not resolvers.serves(web)
    assert seen("web", "3") is None
    resolvers.close()
    assert SERVERS["3" * 64].closed


async def test_networks_without_names(resolvers):
    plain = container("plain", "2", "bridge")
    pod = container("pod", "3", "k8s_pods")
    apart = container("apart", "4", "front")
    apart.endpoints["front"].endpoint_id = ""  # asked for, not given yet
    for each in (plain, pod, apart):
        await resolvers.attach(each)
        assert not resolvers.serves(each)
    assert not SERVERS


async def test_whom_unknown_names_are_asked_of(resolvers):
    await resolvers.attach(container("web", "2", "front"))
    (upstream,) = SERVERS["2" * 64].forwarding.upstreams
    assert (upstream.address, upstream.from_host) == ("127.0.0.53", True)
    assert SERVERS["2" * 64].forwarding.allowed and SERVERS["2" * 64].forwarding.single_labels
    chosen = container("own", "3", "front", host={"Dns": ["127.0.0.1"], "DnsOptions": ["ndots:2"]})
    await resolvers.attach(chosen)
    (upstream,) = SERVERS["3" * 64].forwarding.upstreams
    assert (upstream.address, upstream.from_host) == ("127.0.0.1", False)
    assert not SERVERS["3" * 64].forwarding.single_labels


async def test_without_a_way_out_nobody_else_is_asked(resolvers):
    web = container("web", "2", "inside")
    web.endpoints["inside"].gateway = ""
    await resolvers.attach(web)
    assert not SERVERS["2" * 64].forwarding.allowed
    web.endpoints["front"] = endpoint("front", "2")
    await resolvers.attach(web)
    assert SERVERS["2" * 64].forwarding.allowed


@pytest.mark.parametrize("refusal", [OSError("no namespace"), NftError("no table")])
async def test_without_sockets_there_is_no_name_server(resolvers, refusal, caplog):
    FakeServer.refusal = refusal
    web = container("web", "2", "front")
    await resolvers.attach(web)
    assert not resolvers.serves(web)
    assert "the name server of 222222222222" in caplog.text
