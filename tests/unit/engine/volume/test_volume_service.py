"""Volumes on a disk, with nothing mounted."""

import os

import pytest

from wherry.engine.errors import BadParameter, Conflict, NotFound
from wherry.engine.events import EventBus
from wherry.engine.volume import local
from wherry.engine.volume.volume import ANONYMOUS_LABEL
from wherry.engine.volume.volumes import Volumes


@pytest.fixture
def events():
    return EventBus()


@pytest.fixture
def volumes(tmp_path, events):
    return opened(tmp_path, events)


def opened(tmp_path, events, users=None):
    volumes = Volumes(tmp_path / "volumes", events)
    volumes.open(users or {})
    return volumes


@pytest.fixture
def mounts(monkeypatch):
    log = []
    monkeypatch.setattr(local, "mount", lambda volume: log.append("mount"))
    monkeypatch.setattr(local, "unmount", lambda path: log.append("unmount"))
    return log


def told(events):
    return [(event.action, event.id) for event in events.history(0)]


async def test_a_volume_lives_until_it_is_removed(tmp_path, volumes, events):
    made = volumes.create("data", labels={"a": "b"})
    (made.path / "f").write_text("kept")
    again = opened(tmp_path, events)
    assert again.get("data") == made
    assert (again.get("data").path / "f").read_text() == "kept"
    await again.remove("data")
    assert not made.home.exists()
    assert told(events) == [("create", "data"), ("destroy", "data")]
    assert opened(tmp_path, events).all() == []


def test_making_it_again_gives_the_same(volumes, events):
    made = volumes.create("data", labels={"a": "b"})
    assert volumes.create("data", labels={"c": "d"}) is made
    assert told(events) == [("create", "data")]


def test_without_a_name_it_is_anonymous(volumes):
    made = volumes.create()
    assert len(made.name) == 64
    assert made.labels == {ANONYMOUS_LABEL: ""}


@pytest.mark.parametrize(
    ("name", "driver", "options", "kind", "message"),
    [
        ("x", "", {}, BadParameter, "volume name is too short, names should be at least two"),
        ("a b", "", {}, BadParameter, '"a b" includes invalid characters for a local volume name'),
        ("xy", "foo", {}, NotFound, "error looking up volume plugin foo: plugin"),
        ("xy", "", {"a": "b"}, BadParameter, 'invalid option: "a"'),
    ],
)
def test_what_cannot_be_made_is_told(tmp_path, volumes, name, driver, options, kind, message):
    with pytest.raises(kind) as caught:
        volumes.create(name, driver, options=options)
    assert caught.value.message.startswith(f"create {name}: {message}")
    assert list((tmp_path / "volumes").iterdir()) == []


async def test_what_a_container_has_is_not_removed(volumes):
    volumes.create("data")
    volumes.use("data", "c2")
    volumes.use("data", "c1")
    with pytest.raises(Conflict) as caught:
        await volumes.remove("data")
    assert caught.value.message == "remove data: volume is in use - [c1, c2]"
    volumes.drop("data", "c1")
    volumes.drop("data", "c2")
    await volumes.remove("data")
    with pytest.raises(NotFound, match="get data: no such volume"):
        await volumes.remove("data")


async def test_users_are_counted_again_from_the_containers(tmp_path, volumes, events):
    volumes.create("data")
    again = opened(tmp_path, events, {"c1": ["data", "data"]})
    assert again.users("data") == ["c1"]
    again.drop("data", "c1")
    assert again.users("data") == []


def test_half_made_and_half_removed_volumes_are_cleared(tmp_path, volumes, events):
    root = tmp_path / "volumes"
    (root / ".new-1" / "_data").mkdir(parents=True)
    (root / ".gone-2" / "_data").mkdir(parents=True)
    (root / ".gone-2" / "_data" / "f").write_text("x")
    (volumes.create("data").home / "_copy").mkdir()
    opened(tmp_path, events)
    assert [path.name for path in root.iterdir()] == ["data"]
    assert sorted(path.name for path in (root / "data").iterdir()) == ["_data", "volume.json"]


def test_what_is_no_volume_is_left_alone(tmp_path, volumes, events):
    (tmp_path / "volumes" / "mine").mkdir()
    (tmp_path / "volumes" / "file").write_text("x")
    assert opened(tmp_path, events).all() == []
    assert (tmp_path / "volumes" / "file").exists()


@pytest.mark.parametrize("made", [True, False])
def test_volumes_of_a_container_that_was_not_made_go(tmp_path, volumes, events, made):
    volumes.begin_claim("c1", ["n1", "n2"])
    volumes.create("n1")
    volumes.create("other")
    again = opened(tmp_path, events, {"c1": ["n1"]} if made else {})
    assert [volume.name for volume in again.all()] == (["n1", "other"] if made else ["other"])
    assert not list((tmp_path / "volumes").glob(".*"))


def test_a_claim_cut_short_is_forgotten(tmp_path, volumes, events):
    (tmp_path / "volumes" / ".claim-c1").write_text("[")
    opened(tmp_path, events)
    assert list((tmp_path / "volumes").iterdir()) == []


async def test_it_is_mounted_at_its_first_use_and_unmounted_at_its_last(volumes, mounts):
    volumes.create("data", options={"type": "tmpfs", "device": "tmpfs"})
    mounts.clear()
    await volumes.mount("data", "c1")
    await volumes.mount("data", "c2")
    await volumes.mount("data", "c2")
    assert mounts == ["unmount", "mount"]
    assert await volumes.unmount("data", "c1")
    assert not await volumes.unmount("data", "c1")
    assert await volumes.unmount("data", "c2")
    assert mounts == ["unmount", "mount"]
    assert await volumes.unmount("data", "c2")
    assert mounts == ["unmount", "mount", "unmount"]


async def test_a_plain_volume_is_never_mounted(volumes, mounts):
    volumes.create("data")
    await volumes.mount("data", "c1")
    await volumes.unmount("data", "c1")
    assert mounts == []


async def filled(volumes, image, name="data"):
    root = os.open(image, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await volumes.populate(name, "c1", root, "/srv")
    finally:
        os.close(root)


@pytest.fixture
def image(tmp_path):
    (tmp_path / "image" / "srv").mkdir(parents=True)
    (tmp_path / "image" / "srv" / "index").write_text("hello")
    (tmp_path / "image" / "srv").chmod(0o750)
    return tmp_path / "image"


async def test_an_empty_volume_takes_the_images_content(volumes, image):
    path = volumes.create("data").path
    await filled(volumes, image)
    assert (path / "index").read_text() == "hello"
    assert path.stat().st_mode & 0o777 == 0o750
    assert not (path.parent / "_copy").exists()


async def test_a_volume_with_content_stays_as_it_is(volumes, image):
    path = volumes.create("data").path
    (path / "mine").write_text("x")
    await filled(volumes, image)
    assert [entry.name for entry in path.iterdir()] == ["mine"]


async def test_who_looks_at_the_volume_sees_the_content_come(volumes, image):
    path = volumes.create("data").path
    await volumes.mount("data", "c2")
    inode = path.stat().st_ino
    await filled(volumes, image)
    assert path.stat().st_ino == inode
    assert (path / "index").read_text() == "hello"


async def test_pruning_leaves_what_is_used_and_what_is_elsewhere(volumes, events):
    for name in ("used", "free"):
        (volumes.create(name).path / "f").write_bytes(b"12345")
    volumes.create("far", options={"type": "nfs", "device": ":/x"})
    volumes.use("used", "c1")
    assert await volumes.prune(volumes.all()) == (["free"], 5)
    assert [volume.name for volume in volumes.all()] == ["far", "used"]
    assert events.history(0)[-1].attributes == {"reclaimed": "5"}
