"""What goes into the store comes out the same; what goes wrong leaves nothing."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from pathlib import Path

import orjson
import pytest
import zstandard
from image_archives import Opened, Tar, digest, docker_archive, image_config, oci_archive, pieces

from wherry.engine.errors import BadParameter, Conflict, EngineError, NotFound
from wherry.engine.filters import Filters
from wherry.engine.image.manifest import Platform


def files(root: Path) -> list[str]:
    """Everything below the store but the catalog and the fixed directories."""
    fixed = {"tmp", "tmp/trash", "blobs", "blobs/sha256", "layers", "empty", "images.json"}
    found = (str(path.relative_to(root)) for path in root.rglob("*"))
    return sorted(name for name in found if name not in fixed)


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            info.name: tar.extractfile(info).read()  # type: ignore[union-attr]
            for info in tar
            if info.isreg()
        }


async def test_an_old_docker_archive_loads_and_is_unpacked(opened: Opened, layer: bytes) -> None:
    lines = await opened.load(docker_archive(["box:1", "other/box:2"], [layer]))
    assert lines == ["Loaded image: box:1", "Loaded image: other/box:2"]
    image = opened.store.resolve("box:1")
    assert image.repo_tags == ("box:1", "other/box:2")
    assert image.id == digest(image_config([layer]))
    assert image.size == 4
    (top,) = opened.store.layers(image)
    assert (top / "etc/hostname").read_bytes() == b"box\n"
    assert opened.events == [("load", image.id, image.id)]


async def test_saving_and_loading_again_changes_no_digest(
    opened: Opened, layer: bytes, tmp_path: Path
) -> None:
    await opened.load(docker_archive(["box:1"], [layer]))
    saved = await opened.save("box:1")
    other = Opened(tmp_path / "other")
    await other.store.open()
    assert await other.load(saved) == ["Loaded image: box:1"]
    assert other.store.resolve("box:1").manifest == opened.store.resolve("box:1").manifest
    assert await other.save("box:1") == saved


async def test_what_is_loaded_again_was_not_tagged_again(opened: Opened, layer: bytes) -> None:
    await opened.load(docker_archive(["box:1"], [layer]))
    before = opened.store.resolve("box:1")
    assert await opened.load(docker_archive(["box:1"], [layer])) == ["Loaded image: box:1"]
    assert opened.store.resolve("box:1") == before


async def test_packed_layers_of_an_oci_layout_are_saved_as_they_came(
    opened: Opened, layer: bytes
) -> None:
    archive = oci_archive("box:1", [layer])
    assert await opened.load(archive) == ["Loaded image: box:1"]
    before, after = members(archive), members(await opened.save("box:1"))
    blobs = {name: data for name, data in before.items() if name.startswith("blobs/")}
    assert {name: after[name] for name in blobs} == blobs
    (item,) = json.loads(after["manifest.json"])
    assert item["RepoTags"] == ["box:1"]
    (entry,) = json.loads(after["index.json"])["manifests"]
    assert entry["digest"] == json.loads(before["index.json"])["manifests"][0]["digest"]


@pytest.mark.parametrize(
    "pack", [gzip.compress, zstandard.ZstdCompressor().compress, bz2.compress, lzma.compress]
)
async def test_layers_and_archives_may_be_packed_in_any_way(
    opened: Opened, layer: bytes, pack: object
) -> None:
    archive = oci_archive("box:1", [layer], pack)  # type: ignore[arg-type]
    assert await opened.load(pack(archive)) == ["Loaded image: box:1"]  # type: ignore[operator]
    (top,) = opened.store.layers(opened.store.resolve("box:1"))
    assert (top / "etc/hostname").exists()
    saved = await opened.save("box:1")
    assert await opened.store.remove("box:1")
    assert await opened.load(saved) == ["Loaded image: box:1"]


async def test_a_bare_ref_name_is_no_name_of_an_image(opened: Opened, layer: bytes) -> None:
    (line,) = await opened.load(oci_archive("latest", [layer]))
    assert line == f"Loaded image ID: {digest(image_config([layer]))}"


async def test_layers_in_common_are_kept_and_saved_once(opened: Opened, layer: bytes) -> None:
    top = Tar().add("etc/motd", b"hi\n").bytes()
    await opened.load(docker_archive(["a:1"], [layer]))
    await opened.load(docker_archive(["b:1"], [layer, top]))
    a, b = opened.store.resolve("a:1"), opened.store.resolve("b:1")
    assert a.chain == b.chain[:1]
    assert opened.store.layers(b)[1:] == list(opened.store.layers(a))
    names = list(members(await opened.save("a:1", "b:1")))
    assert len(names) == len(set(names)) == 2 * 2 + 2 + 4
    assert opened.store.list() and (await opened.store.remove("a:1"))[-1] == {"Deleted": a.id}
    assert (await opened.store.remove("b:1"))[1:] == [
        {"Deleted": b.id},
        {"Deleted": b.chain[1]},
        {"Deleted": b.chain[0]},
    ]


async def test_a_link_in_an_old_archive_leads_to_the_layer_it_means(
    opened: Opened, layer: bytes
) -> None:
    config = image_config([layer, layer])
    tar = Tar().add("c.json", config).add("one/layer.tar", layer)
    tar.symlink("two/layer.tar", "../one/layer.tar")
    item = {"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}
    tar.add("manifest.json", json.dumps([item]).encode())
    assert await opened.load(tar.bytes()) == ["Loaded image: x:1"]
    assert len(opened.store.layers(opened.store.resolve("x:1"))) == 2


async def test_a_name_that_moves_is_said(opened: Opened, layer: bytes) -> None:
    await opened.load(docker_archive(["box:1"], [layer]))
    old = opened.store.resolve("box:1").id
    lines = await opened.load(docker_archive(["box:1"], [layer], author="else"))
    assert lines[0] == (
        f"The image box:1 already exists, renaming the old one with ID {old} to empty string"
    )
    assert opened.store.resolve(old).repo_tags == ()


async def test_progress_is_told_unless_it_is_to_be_quiet(opened: Opened, layer: bytes) -> None:
    archive = docker_archive(["box:1"], [layer])
    messages = [message async for message in opened.store.load(pieces(archive), quiet=False)]
    assert messages[0]["status"] == "Loading layer"
    assert messages[0]["id"] == digest(layer)[7:19]
    assert messages[0]["progressDetail"] == {"current": len(layer), "total": len(layer)}


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"", "does not contain a manifest.json"),
        (b"no archive at all" * 100, "invalid tar header"),
        (Tar().add("manifest.json", b"null").bytes(), "manifest cannot be null"),
        (Tar().add("manifest.json", b"{").bytes(), "invalid manifest.json"),
        (Tar().add("manifest.json", b'[{"Config":"x"}]').bytes(), "x is not in it"),
        (Tar().add("blobs/sha256/" + "0" * 64, b"x").bytes(), "invalid blob: expected digest"),
    ],
)
async def test_a_wrong_archive_is_refused_and_leaves_nothing(
    opened: Opened, tmp_path: Path, archive: bytes, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        await opened.load(archive)
    assert files(tmp_path / "image") == []


async def test_a_layer_with_another_digest_is_refused(
    opened: Opened, layer: bytes, tmp_path: Path
) -> None:
    config = image_config([b"something else"])
    tar = Tar().add("c.json", config).add("l.tar", layer)
    item = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l.tar"]}]
    tar.add("manifest.json", json.dumps(item).encode())
    with pytest.raises(BadParameter, match='invalid diffID for layer 0: expected "sha256:'):
        await opened.load(tar.bytes())
    assert files(tmp_path / "image") == []


async def test_a_hostile_second_packing_of_a_known_layer_is_refused(
    opened: Opened, layer: bytes
) -> None:
    await opened.load(docker_archive(["box:1"], [layer]))
    archive = oci_archive("evil:1", [layer], lambda data: gzip.compress(b"evil"))
    with pytest.raises(BadParameter, match="invalid diffID"):
        await opened.load(archive)
    with pytest.raises(NotFound):
        opened.store.resolve("evil:1")


async def test_the_number_of_layers_must_agree(opened: Opened, layer: bytes) -> None:
    tar = Tar().add("c.json", image_config([layer]))
    tar.add("manifest.json", b'[{"Config":"c.json","Layers":[]}]')
    with pytest.raises(BadParameter, match="layers length mismatch: expected 0, got 1"):
        await opened.load(tar.bytes())


async def test_an_image_for_another_system_is_refused(opened: Opened, layer: bytes) -> None:
    with pytest.raises(BadParameter, match="cannot load windows image on linux"):
        await opened.load(docker_archive(["box:1"], [layer], os="windows"))


async def test_the_wanted_platform_is_chosen_from_an_index(opened: Opened, layer: bytes) -> None:
    entries = []
    tar = Tar().add("oci-layout", b"{}")
    for architecture in ("amd64", "arm64"):
        config = image_config([layer], architecture=architecture)
        manifest = orjson.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "x", "digest": digest(config), "size": len(config)},
                "layers": [{"mediaType": "x", "digest": digest(layer), "size": len(layer)}],
            }
        )
        for blob in (config, manifest):
            tar.add(f"blobs/sha256/{digest(blob)[7:]}", blob)
        entries.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(manifest),
                "size": len(manifest),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = orjson.dumps({"schemaVersion": 2, "manifests": entries})
    tar.add(f"blobs/sha256/{digest(layer)[7:]}", layer)
    tar.add(f"blobs/sha256/{digest(index)[7:]}", index)
    entry = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest(index),
        "size": len(index),
        "annotations": {"io.containerd.image.name": "docker.io/library/multi:1"},
    }
    tar.add("index.json", orjson.dumps({"schemaVersion": 2, "manifests": [entry]}))
    stream = opened.store.load(pieces(tar.bytes()), quiet=True, platform=Platform("linux", "arm64"))
    assert [message async for message in stream] == [{"stream": "Loaded image: multi:1\n"}]
    assert opened.store.resolve("multi:1").platform == Platform("linux", "arm64")


async def test_import_makes_an_image_of_a_root_file_system(opened: Opened, layer: bytes) -> None:
    image = await opened.store.import_(
        pieces(gzip.compress(layer)),
        reference="mine",
        message="made by hand",
        changes=["CMD sleep 1\nENV A=1 B=2", 'LABEL x="y z"'],
    )
    assert image.repo_tags == ("mine:latest",)
    assert image.settings["Cmd"] == ["/bin/sh", "-c", "sleep 1"]
    assert image.settings["Env"] == ["A=1", "B=2"]
    assert image.labels == {"x": "y z"}
    assert image.config["history"][0]["comment"] == "made by hand"
    assert [event[0] for event in opened.events] == ["tag", "import"]


async def test_an_import_that_is_no_archive_leaves_nothing(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="invalid tar header"):
        await opened.store.import_(pieces(b"nonsense" * 1000))
    with pytest.raises(BadParameter, match="frob is not a valid change command"):
        await opened.store.import_(pieces(b""), changes=["FROB x"])
    assert files(tmp_path / "image") == []


async def test_new_layers_go_on_top_of_a_base(opened: Opened, layer: bytes) -> None:
    await opened.load(docker_archive(["box:1"], [layer]))
    base = opened.store.resolve("box:1")
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]}}
    top = Tar().add("etc/.wh.hostname", b"").bytes()
    image = await opened.store.add_layered(
        config, base=base, tars=[pieces(top)], parent=base.id, reference="box:2"
    )
    assert image.chain[:1] == base.chain
    assert image.parent == base.id
    assert opened.store.children(base.id) == [image.id]
    again = await opened.store.add_layered(config, base=base, tars=[pieces(top)], parent=base.id)
    assert again.id == image.id


async def test_images_are_found_by_name_and_by_the_beginning_of_their_id(
    opened: Opened, layer: bytes
) -> None:
    await opened.load(docker_archive(["box:latest"], [layer]))
    image = opened.store.resolve("box")
    for name in ("box:latest", "docker.io/library/box", image.id, image.id[7:], image.id[:20]):
        assert opened.store.resolve(name).id == image.id
    assert opened.store.resolve(image.id[7:11]).id == image.id
    for name in ("nope", "box:2", "0000"):
        if not image.id[7:].startswith(name):
            with pytest.raises(NotFound, match=f"No such image: {name}"):
                opened.store.resolve(name)


async def test_saving_by_id_gives_no_tags_and_by_repository_all(
    opened: Opened, layer: bytes
) -> None:
    await opened.load(docker_archive(["box:1", "box:2"], [layer]))
    image = opened.store.resolve("box:1")
    (by_id,) = json.loads(members(await opened.save(image.id))["manifest.json"])
    assert by_id["RepoTags"] is None
    (by_name,) = json.loads(members(await opened.save("box"))["manifest.json"])
    assert by_name["RepoTags"] == ["box:1", "box:2"]
    for name in ("box:3", "nope"):
        with pytest.raises(NotFound):
            await opened.save(name)


async def test_all_is_there_after_opening_again(
    opened: Opened, layer: bytes, tmp_path: Path
) -> None:
    await opened.load(docker_archive(["box:1"], [layer]))
    await opened.store.tag("box:1", "box:2")
    again = Opened(tmp_path / "image")
    await again.store.open()
    assert again.store.resolve("box:2") == opened.store.resolve("box:1")
    assert await again.save("box:1") == await opened.save("box:1")


async def test_rubbish_of_a_killed_daemon_is_swept_at_the_start(
    opened: Opened, layer: bytes, tmp_path: Path
) -> None:
    await opened.load(docker_archive(["box:1"], [layer]))
    root = tmp_path / "image"
    before = files(root)
    (root / "tmp/half/diff").mkdir(parents=True)
    (root / "blobs/sha256" / ("0" * 64)).write_bytes(b"never named")
    (root / "layers" / ("1" * 64) / "diff").mkdir(parents=True)
    (root / "layers" / ("1" * 64) / "layer.json").write_bytes(b"")
    again = Opened(root)
    await again.store.open()
    assert files(root) == before


async def test_an_image_whose_content_is_lost_does_not_stop_the_others(
    opened: Opened, layer: bytes, tmp_path: Path
) -> None:
    await opened.load(docker_archive(["good:1"], [layer]))
    await opened.load(docker_archive(["bad:1"], [Tar().add("f", b"x").bytes()]))
    bad = opened.store.resolve("bad:1")
    (tmp_path / "image/layers" / bad.chain[0][7:] / "layer.json").unlink()
    again = Opened(tmp_path / "image")
    await again.store.open()
    assert [image.repo_tags for image in again.store.list()] == [("good:1",)]


async def test_an_upload_that_breaks_off_leaves_nothing(
    opened: Opened, layer: bytes, tmp_path: Path
) -> None:
    async def broken() -> object:  # type: ignore[misc]
        yield docker_archive(["box:1"], [layer])[:2000]
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        async for _ in opened.store.load(broken(), quiet=True):  # type: ignore[arg-type]
            pass
    assert files(tmp_path / "image") == []


async def test_a_stalled_upload_can_be_cancelled(opened: Opened, tmp_path: Path) -> None:
    started = asyncio.Event()

    async def stalled() -> object:  # type: ignore[misc]
        yield bytes(10)
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(opened.store.import_(stalled()))  # type: ignore[arg-type]
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
    assert files(tmp_path / "image") == []


async def test_many_at_once_do_not_disturb_each_other(opened: Opened, layer: bytes) -> None:
    tops = [Tar().add(f"f{number}", os.urandom(20_000)).bytes() for number in range(8)]

    async def live(number: int) -> None:
        name = f"box:{number}"
        for _ in range(3):
            await opened.load(docker_archive([name], [layer, tops[number]]))
            saved = await opened.save(name)
            await opened.store.remove(name)
            await opened.load(saved)
            for directory in opened.store.layers(opened.store.resolve(name)):
                assert list(directory.iterdir())
            if number % 2:
                await opened.store.remove(name)

    await asyncio.gather(*(live(number) for number in range(8)))
    assert sorted(image.repo_tags for image in opened.store.list()) == [
        (f"box:{number}",) for number in range(0, 8, 2)
    ]


async def test_what_a_container_stands_on_stays_after_a_removal_by_force(
    opened: Opened, layer: bytes, tmp_path: Path
) -> None:
    await opened.load(docker_archive(["box:1"], [layer]))
    image = opened.store.resolve("box:1")
    containers = ["c" * 64]
    opened.store.in_use = lambda one: containers if one == image.id else []
    with pytest.raises(Conflict):
        await opened.store.remove("box:1")
    records = await opened.store.remove("box:1", force=True)
    assert records == [{"Untagged": "box:1"}, {"Deleted": image.id}]
    assert opened.store.list() == []
    assert opened.store.by_id(image.id).chain == image.chain
    assert (opened.store.layers(image)[0] / "etc/hostname").exists()
    again = Opened(tmp_path / "image")
    await again.store.open()
    assert (again.store.layers(again.store.by_id(image.id))[0] / "etc/hostname").exists()
    await again.store.release(image.id)
    assert files(tmp_path / "image") == []


async def test_prune_takes_what_has_no_name_and_all_only_when_asked(
    opened: Opened, layer: bytes
) -> None:
    await opened.load(docker_archive([], [layer]))
    await opened.load(docker_archive(["used:1"], [layer], author="used"))
    await opened.load(docker_archive(["box:1"], [layer], author="me"))
    used = opened.store.resolve("used:1").id
    opened.store.in_use = lambda one: ["c" * 64] if one == used else []
    dangling = digest(image_config([layer]))
    assert await opened.store.prune(Filters({})) == {
        "ImagesDeleted": [{"Deleted": dangling}],
        "SpaceReclaimed": 0,
    }
    pruned = await opened.store.prune(Filters({"dangling": ["false"]}))
    assert pruned["ImagesDeleted"][0] == {"Untagged": "box:1"}
    assert [image.id for image in opened.store.list()] == [used]
    assert await opened.store.prune(Filters({})) == {"ImagesDeleted": None, "SpaceReclaimed": 0}


async def test_an_image_without_layers_has_an_empty_root(opened: Opened) -> None:
    await opened.load(docker_archive(["scratchy:1"], []))
    (directory,) = opened.store.layers(opened.store.resolve("scratchy:1"))
    assert list(directory.iterdir()) == []
