import pytest
from containers_helper import make

from wherry.engine.container import links
from wherry.engine.container.container import Container, Endpoint, Link
from wherry.engine.container.hosts_file import Record
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import BadParameter, Conflict, EngineError, NotFound


@pytest.fixture
def store(tmp_path):
    return ContainerStore(tmp_path)


def add(store, name, digit, *, running=True, address="", **options):
    container = make(id=digit * 64, name=name, home=store.root / name, **options)
    container.home.mkdir()
    container.state.running = running
    network = container.network_mode
    container.endpoints = {network: Endpoint(network, endpoint_id="e", address=address)}
    store.reserve_name(name, container.id)
    store.add(container)
    return container


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("db", ("db", "db")),
        ("db:store", ("db", "store")),
        ("/db:/web/store", ("db", "store")),
        ("/db", ("/db", "/db")),
    ],
)
def test_links_as_requests_and_inspect_have_them(text, parsed):
    assert links.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "empty string specified for links"), ("a:b:c", "bad format for links: a:b:c")],
)
def test_what_is_no_link(text, problem):
    with pytest.raises(BadParameter, match=f"^{problem}$"):
        links.parse(text)


def test_links_are_to_containers_that_are_there(store):
    db = add(store, "db", "2")
    add(store, "joiner", "3", host={"NetworkMode": f"container:{db.id}"})
    add(store, "hosted", "4", host={"NetworkMode": "host"})
    assert links.resolve(["db:x", "joiner", "db:x"], store) == [
        Link("x", db.id, "db"),
        Link("joiner", db.id, "db"),
    ]
    with pytest.raises(BadParameter) as missing:
        links.resolve(["nope:x"], store)
    assert missing.value.message == ("could not get container for nope: No such container: nope")
    with pytest.raises(BadParameter, match="host type networking can't be used with links"):
        links.resolve(["hosted"], store)


def test_names_follow_renames(store):
    db, web = add(store, "db", "2"), add(store, "web", "3")
    web.links = links.resolve(["db:store", "db"], store)
    assert links.shown(web, store) == ["/db:/web/store", "/db:/web/db"]
    assert links.names_by_child(store) == {db.id: ["/web/store", "/web/db"]}
    assert store.find("web/store") is db and store.find("/web/db") is db
    assert store.find("web/nope") is None and store.find("nope/db") is None
    web.name, db.name = "site", "base"
    assert links.shown(web, store)[0] == "/base:/site/store"
    assert links.shown(db, store) is None
    assert list(links.linking_to(db, store)) == [(web, link) for link in web.links]


def test_links_outlive_the_daemon(store):
    db, web = add(store, "db", "2"), add(store, "web", "3")
    web.links = links.resolve(["db:store"], store)
    assert Container.decode(web.encode(), web.home).links == [Link("store", db.id, "db")]


def test_who_is_linked_must_run_on_the_default_bridge(store):
    db, web = add(store, "db", "2", running=False), add(store, "web", "3")
    elsewhere = add(store, "far", "4", host={"NetworkMode": "front"})
    web.links = links.resolve(["db:store"], store)
    text = "Cannot link to a non running container: /db AS /web/store"
    with pytest.raises(EngineError, match=text):
        links.linked(web, store)
    assert links.linked(web, store, strict=False) == []
    store.discard(db)
    with pytest.raises(EngineError, match=text):
        links.linked(web, store)
    web.links = links.resolve(["far"], store)
    with pytest.raises(
        EngineError, match="Cannot link to /far, as it does not belong to the default network"
    ):
        links.linked(web, store)
    elsewhere.links = [Link("x", "gone", "x")]
    assert links.linked(elsewhere, store) == []


def test_what_a_link_brings(store):
    add(
        *(store, "db", "2"),
        address="172.17.0.2",
        config={
            "Hostname": "dbh",
            "Env": ["A=1", "HOME=/r", "PATH=/x", "unset"],
            "ExposedPorts": {f"{p}": {} for p in ("80/tcp", "82/tcp", "81/tcp", "53/udp", "443")},
        },
    )
    web = add(store, "web", "3", address="172.17.0.3")
    web.links = links.resolve(["db:data-base", "db"], store)
    children = links.linked(web, store)
    assert links.records(children) == [
        Record("172.17.0.2", "data-base dbh db"),
        Record("172.17.0.2", "db dbh"),
    ]
    variables = dict(v.split("=", 1) for v in links.environment(web, children))
    mine = {name: v for name, v in variables.items() if name.startswith("DATA_BASE_")}
    url = "tcp://172.17.0.2"
    expected = {
        "NAME": "/web/data-base",
        "ENV_A": "1",
        "PORT": "udp://172.17.0.2:53",
        "PORT_80_TCP_START": f"{url}:80",
        "PORT_80_TCP_PORT_START": "80",
        "PORT_80_TCP_END": f"{url}:82",
        "PORT_80_TCP_PORT_END": "82",
    }
    for port, kind in ((80, "tcp"), (81, "tcp"), (82, "tcp"), (443, "tcp"), (53, "udp")):
        one = f"PORT_{port}_{kind.upper()}"
        expected |= {
            one: f"{kind}://172.17.0.2:{port}",
            f"{one}_ADDR": "172.17.0.2",
            f"{one}_PORT": str(port),
            f"{one}_PROTO": kind,
        }
    assert mine == {f"DATA_BASE_{name}": value for name, value in expected.items()}
    assert variables["DB_NAME"] == "/web/db"


def test_links_are_removed_by_their_names(store):
    add(store, "db", "2")
    web = add(store, "web", "3")
    web.links = links.resolve(["db:a", "db:b"], store)
    assert links.remove("/web/a", store) is web
    assert [link.alias for link in web.links] == ["b"]
    with pytest.raises(Conflict, match="cannot remove the default link name of the container"):
        links.remove("db", store)
    for missing in ("web/a", "nope/b"):
        with pytest.raises(NotFound, match=f"No such container: {missing}"):
            links.remove(missing, store)
