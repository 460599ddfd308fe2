import pytest
from containers_helper import make

from wherry.engine.container.container import Container, PublishedPort
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import BadParameter, Conflict, NotFound


@pytest.fixture
def store(tmp_path):
    store = ContainerStore(tmp_path / "containers")
    store.load()
    return store


def put(store, id, name):
    container = make(id, name, home=store.root / id)
    container.home.mkdir()
    store.reserve_name(name, id)
    store.save(container)
    store.add(container)
    return container


def test_a_container_is_found_by_id_name_and_unambiguous_prefix(store):
    one, two = put(store, "ab" * 32, "web"), put(store, "ac" * 32, "db")
    assert store.get("ab" * 32) is one
    assert store.get("/db") is two
    assert store.get("ac") is two
    with pytest.raises(BadParameter, match="multiple IDs found with provided prefix: a"):
        store.get("a")


def test_what_is_not_there_is_named(store):
    with pytest.raises(NotFound, match="No such container: nope"):
        store.get("nope")
    with pytest.raises(NotFound):
        store.get("")


def test_a_taken_name_is_refused_in_docker_s_words(store):
    one = put(store, "ab" * 32, "web")
    with pytest.raises(Conflict) as caught:
        store.reserve_name("web", "cd" * 32)
    assert caught.value.message == (
        f'Conflict. The container name "/web" is already in use by container "{one.id}". You have '
        "to remove (or rename) that container to be able to reuse that name."
    )


def test_a_name_is_free_again_once_its_container_is_gone(store):
    one = put(store, "ab" * 32, "web")
    store.discard(one)
    store.reserve_name("web", "cd" * 32)
    assert store.find("web") is None


def test_generated_names_do_not_collide(store):
    taken = {store.generate_name(f"{n:064x}") for n in range(2000)}
    assert len(taken) == 2000


def test_ids_do_not_look_like_numbers(store):
    assert all(not store.new_id()[:12].isdigit() for _ in range(500))


def test_containers_outlive_the_daemon(store):
    one = put(store, "ab" * 32, "web")
    one.state.running, one.state.started_at = True, 5
    one.ports.append(PublishedPort("tcp", 80, "0.0.0.0", 8080))
    one.endpoints["bridge"].address = "172.17.0.2"
    store.save(one)
    again = ContainerStore(store.root)
    assert again.load() == []
    two = again.get("web")
    assert (two.state, two.ports, two.endpoints) == (one.state, one.ports, one.endpoints)
    assert two.config == one.config


def test_half_made_directories_are_told_apart(store):
    put(store, "ab" * 32, "web")
    (store.root / ("cd" * 32)).mkdir()
    again = ContainerStore(store.root)
    assert [path.name for path in again.load()] == ["cd" * 32]
    assert len(again) == 1


def test_a_damaged_document_is_left_alone_and_does_not_stop_the_daemon(store):
    one = put(store, "ab" * 32, "web")
    (one.home / "container.json").write_bytes(b"{")
    again = ContainerStore(store.root)
    assert again.load() == []
    assert len(again) == 0
    assert one.home.exists()


def test_fields_of_a_later_daemon_are_not_in_the_way(tmp_path):
    one = make()
    data = one.encode().replace(b'"oom_killed"', b'"something_new":1,"oom_killed"')
    assert Container.decode(data, tmp_path).state == one.state


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "created"),
        ({"started_at": 1}, "exited"),
        ({"running": True}, "running"),
        ({"running": True, "paused": True}, "paused"),
        ({"running": True, "restarting": True}, "restarting"),
        ({"removing": True, "started_at": 1}, "removing"),
        ({"dead": True}, "dead"),
    ],
)
def test_the_one_word_for_a_state_is_docker_s(fields, status):
    container = make()
    for name, value in fields.items():
        setattr(container.state, name, value)
    assert container.state.status == status
