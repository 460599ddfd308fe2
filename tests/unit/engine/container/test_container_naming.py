import pytest
from containers_helper import make

from wherry.engine.container import identity
from wherry.engine.container.container import Endpoint, Link
from wherry.engine.container.hosts_file import Record
from wherry.engine.container.naming import Naming
from wherry.engine.container.store import ContainerStore


class FakeResolvers:
    def __init__(self):
        self.attached = []
        self.served = set()

    def serves(self, container):
        return container.id in self.served

    async def attach(self, container):
        self.attached.append(container.name)

    def detach(self, container):
        self.attached.remove(container.name)


@pytest.fixture
def world(tmp_path):
    store, resolvers = ContainerStore(tmp_path), FakeResolvers()

    def add(name, digit, *, running=True):
        container = make(id=digit * 64, name=name, home=tmp_path / name)
        container.home.mkdir()
        container.state.running = running
        container.endpoints = {
            "bridge": Endpoint("bridge", endpoint_id="e", address=f"172.17.0.{digit}")
        }
        store.add(container)
        return container

    return Naming(store, resolvers), resolvers, add


def hosts(container):
    return container.file("hosts").read_text()


async def test_who_is_linked_to_a_container_learns_of_its_new_address(world):
    naming, _, add = world
    db, web, idle = add("db", "2"), add("web", "3"), add("idle", "4", running=False)
    for one in (web, idle):
        one.links = [Link("store", db.id, "db")]
        identity.write(one, linked=[Record("172.17.0.9", "store db")])
    await naming.attach(db)
    assert "172.17.0.2\tstore db\n" in hosts(web)
    assert "172.17.0.9\tstore db\n" in hosts(idle)


async def test_a_running_container_that_gets_a_name_server_asks_it(world):
    naming, resolvers, add = world
    web = add("web", "3")
    identity.write(web)
    assert naming.name_server(web) == ""
    resolvers.served.add(web.id)
    await naming.attach(web)
    assert web.file("resolv.conf").read_text().startswith("nameserver 127.0.0.11\n")


async def test_before_its_start_no_file_is_written(world):
    naming, _, add = world
    web = add("web", "3", running=False)
    await naming.attach(web)
    assert not web.file("hosts").exists()


async def test_a_new_name_is_told_where_the_container_is_on_a_network(world):
    naming, resolvers, add = world
    web = add("web", "3")
    await naming.renamed(web)
    assert resolvers.attached == ["web"]
    await naming.detach(web)
    web.endpoints["bridge"].endpoint_id = ""
    await naming.renamed(web)
    assert resolvers.attached == []
