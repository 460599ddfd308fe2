"""Images as users handle them: the docker client, skopeo, and a daemon that may be killed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import zstandard
from docker_harness import Daemon

pytest_plugins = ("docker_fixtures",)

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")


def root_archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def images(engine: Daemon):
    """The engine with busybox alone, before and after."""
    yield engine
    engine.remove_all()
    named = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    extra = [name for name in named if name != "busybox:latest" and "<none>" not in name]
    if extra:
        engine.docker("rmi", "-f", *extra)
    engine.docker("image", "prune", "-f")
    assert engine.docker("images", "-aq").out.split() == [identity(engine, "busybox")[7:19]]


def identity(engine: Daemon, name: str) -> str:
    return engine.docker("image", "inspect", "-f", "{{.Id}}", name).out.strip()


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}


def stored(engine: Daemon) -> list[str]:
    """All that lies in the store, also while something goes."""
    walk = os.walk(engine.data / "images")
    return sorted(f"{top}/{name}" for top, *names in walk for name in (*names[0], *names[1]))


def skopeo(*arguments: str) -> str:
    return subprocess.run(
        ["skopeo", *arguments], capture_output=True, text=True, check=True, timeout=300
    ).stdout


# ---- importing, listing, looking


def test_import_takes_settings_and_message(images, tmp_path):
    file = tmp_path / "root.tar"
    file.write_bytes(root_archive(hello=b"hi\n"))
    done = images.docker(
        "import", "-m", "by hand", "-c", 'CMD ["/hello"]', "-c", "ENV A=b", "-c", "EXPOSE 80",
        "--platform", "linux/arm64/v8", str(file), "team/hello:1",
    )  # fmt: skip
    assert done.out.strip() == identity(images, "team/hello:1")
    (document,) = json.loads(images.docker("image", "inspect", "team/hello:1").out)
    assert document["Config"] == {
        "Cmd": ["/hello"],
        "Env": ["A=b"],
        "ExposedPorts": {"80/tcp": {}},
    }
    assert (document["Architecture"], document["Variant"]) == ("arm64", "v8")
    assert document["Comment"] == "by hand"
    assert document["Size"] == 3
    history = images.docker("history", "--format", "{{.ID}} {{.Size}} {{.Comment}}", "team/hello:1")
    assert history.out == f"{document['Id'][7:19]} 3B by hand\n"


def test_import_from_a_web_server(images, http_files):
    (http_files.root / "root.tar").write_bytes(root_archive(hello=b"hi\n"))
    done = images.docker("import", f"{http_files.url}/root.tar", "web:1")
    assert f"Downloading from {http_files.url}/root.tar" in done.out
    missing = images.docker("import", f"{http_files.url}/nope.tar", "web:2", ok=False)
    assert "404" in missing.err
    assert identity(images, "web:1") in done.out


def test_images_are_listed_with_their_filters(images):
    images.docker("import", "-c", "LABEL tier=web", "-", "a:1", input=root_archive(a=b"1"))
    images.docker("import", "-", "b:1", input=root_archive(b=b"1"))
    dangling = images.docker("import", "-", input=root_archive(c=b"1")).out.strip()

    def shown(*arguments: str) -> list[str]:
        return images.docker(
            "images", "--format", "{{.Repository}}:{{.Tag}}", *arguments
        ).out.split()

    assert sorted(shown()) == ["<none>:<none>", "a:1", "b:1", "busybox:latest"]
    assert shown("--filter", "label=tier=web") == ["a:1"]
    assert shown("--filter", "reference=b*:1") == ["b:1"]
    assert shown("b") == ["b:1"]
    assert shown("--filter", "since=a:1", "--filter", "dangling=false") == ["b:1"]
    assert shown("--filter", "before=a:1") == ["busybox:latest"]
    ids = images.docker("images", "-q", "--no-trunc", "--filter", "dangling=true").out.split()
    assert ids == [dangling]
    assert "<none>" in images.docker("images", "--digests", "a").out
    refused = images.docker("images", "--filter", "colour=red", ok=False)
    assert refused.err.strip() == "Error response from daemon: invalid filter 'colour'"


def test_old_versions_of_the_api_see_old_fields(images):
    (entry,) = images.request("GET", "/v1.24/images/json").body
    assert entry["VirtualSize"] == entry["Size"]
    (entry,) = images.request("GET", "/v1.50/images/json").body
    assert "VirtualSize" not in entry and entry["Containers"] == -1


# ---- saving and loading


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, zstandard.compress])
def test_what_is_saved_loads_again_the_same(images, tmp_path, pack):
    images.docker("import", "-", "a:1", input=root_archive(a=b"1" * 5000))
    images.docker("tag", "a:1", "reg.example:5000/b/c:2")
    before = identity(images, "a:1")
    first = images.docker("save", "a:1", "reg.example:5000/b/c:2").raw
    images.docker("rmi", "a:1", "reg.example:5000/b/c:2")
    done = images.docker("load", input=pack(first))
    assert sorted(done.out.splitlines()) == [
        "Loaded image: a:1",
        "Loaded image: reg.example:5000/b/c:2",
    ]
    assert identity(images, "reg.example:5000/b/c:2") == before
    file = tmp_path / "again.tar"
    images.docker("save", "-o", str(file), "a:1", "reg.example:5000/b/c:2")
    assert file.read_bytes() == first


def test_a_saved_image_without_a_name_keeps_its_id(images):
    images.docker("import", "-", "a:1", input=root_archive(a=b"1"))
    wanted = identity(images, "a:1")
    archive = images.docker("save", wanted).raw
    images.docker("rmi", "a:1")
    assert images.docker("load", input=archive).out == f"Loaded image ID: {wanted}\n"


def test_what_cannot_be_loaded_says_why_and_leaves_nothing(images):
    before = stored(images)
    refused = images.docker("load", input=b"not an archive" * 100, ok=False)
    assert (refused.code, refused.err.strip()) == (
        1,
        "Error processing tar file: archive/tar: invalid tar header",
    )
    refused = images.docker("load", input=root_archive(x=b""), ok=False)
    assert refused.err.strip() == "invalid archive: does not contain a manifest.json"
    assert stored(images) == before


@needs_skopeo
def test_skopeo_reads_what_we_save(images, tmp_path):
    file = tmp_path / "saved.tar"
    images.docker("save", "-o", str(file), "busybox")
    wanted = identity(images, "busybox")
    inspected = json.loads(skopeo("inspect", "--config", f"docker-archive:{file}"))
    (ours,) = json.loads(images.docker("image", "inspect", "busybox").out)
    assert inspected["rootfs"]["diff_ids"] == ours["RootFS"]["Layers"]
    layout = tmp_path / "layout"
    with tarfile.open(file) as tar:
        tar.extractall(layout, filter="data")
    manifest = json.loads(skopeo("inspect", "--raw", f"oci:{layout}"))
    assert manifest["config"]["digest"] == wanted
    skopeo("copy", f"docker-archive:{file}", f"dir:{tmp_path / 'copy'}")
    copied = json.loads((tmp_path / "copy/manifest.json").read_text())
    assert copied["config"]["digest"] == wanted


@needs_skopeo
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_we_load_what_skopeo_writes(images, tmp_path, form):
    images.docker("import", "-", "a:1", input=root_archive(a=b"1" * 100_000))
    images.docker("save", "-o", str(tmp_path / "saved.tar"), "a:1")
    images.docker("rmi", "a:1")
    written = tmp_path / "written.tar"
    skopeo("copy", f"docker-archive:{tmp_path / 'saved.tar'}", f"{form}:{written}:a:2")
    assert images.docker("load", "-i", str(written)).out == "Loaded image: a:2\n"
    images.docker("save", "-o", str(tmp_path / "again.tar"), "a:2")
    before, after = members(written), members(tmp_path / "again.tar")
    for name, data in before.items():
        if name.startswith("blobs/"):
            assert after[name] == data
    assert images.docker("create", "a:2", "x").code == 0


def test_layers_deletions_and_all_appear_in_a_container(images, tmp_path):
    """A second layer over busybox, made by hand as OCI wants it."""
    file = tmp_path / "base.tar"
    images.docker("save", "-o", str(file), "busybox")
    base = members(file)
    (item,) = json.loads(base["manifest.json"])
    config = json.loads(base[item["Config"]])
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, data in (
            ("etc/.wh.passwd", b""),
            ("tmp/new", b"new\n"),
            ("root/.wh..wh..opq", b""),
            ("root/only", b"only\n"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    digest = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    config["rootfs"]["diff_ids"].append(digest)
    config["history"].append({"created_by": "by hand"})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in (
            ("config.json", json.dumps(config).encode()),
            ("base.tar", base[item["Layers"][0]]),
            ("top.tar", layer.getvalue()),
            (
                "manifest.json",
                json.dumps(
                    [
                        {
                            "Config": "config.json",
                            "RepoTags": ["two:1"],
                            "Layers": ["base.tar", "top.tar"],
                        }
                    ]
                ).encode(),
            ),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    images.docker("load", input=archive.getvalue())
    script = "ls /etc; cat /tmp/new; ls /root; stat -c %a /tmp"
    done = images.docker("run", "--rm", "two:1", "sh", "-c", script)
    lines = done.out.split()
    assert "passwd" not in lines and "group" in lines
    assert lines[-3:] == ["new", "only", "1777"]


# ---- tagging and removing


def test_untagging_and_deleting(images):
    images.docker("import", "-", "a:1", input=root_archive(a=b"1"))
    wanted = identity(images, "a:1")
    images.docker("tag", "a:1", "b:2")
    refused = images.docker("rmi", wanted[7:19], ok=False)
    assert refused.err.strip() == (
        f"Error response from daemon: conflict: unable to delete {wanted[7:19]} (must be forced)"
        " - image is referenced in multiple repositories"
    )
    assert images.docker("rmi", "a:1").out == "Untagged: a:1\n"
    lines = images.docker("rmi", "b:2").out.splitlines()
    assert lines[:2] == ["Untagged: b:2", f"Deleted: {wanted}"]
    assert len(lines) == 3 and lines[2].startswith("Deleted: sha256:")
    missing = images.docker("rmi", "b:2", ok=False)
    assert missing.err.strip() == "Error response from daemon: No such image: b:2"
    refused = images.docker("tag", "busybox", "UPPER", ok=False)
    assert "must be lowercase" in refused.err


def test_what_containers_use_stays(images):
    wanted = identity(images, "busybox")[7:19]
    container = images.docker("run", "-d", "busybox", "sleep", "60").out.strip()
    refused = images.docker("rmi", "busybox", ok=False)
    assert refused.err.strip() == (
        'Error response from daemon: conflict: unable to remove repository reference "busybox"'
        f" (must force) - container {container[:12]} is using its referenced image {wanted}"
    )
    refused = images.docker("rmi", "-f", wanted, ok=False)
    assert refused.err.strip() == (
        f"Error response from daemon: conflict: unable to delete {wanted} (cannot be forced)"
        f" - image is being used by running container {container[:12]}"
    )
    pruned = images.docker("image", "prune", "-af")
    assert pruned.out == "Total reclaimed space: 0B\n"


def test_a_stopped_container_starts_again_after_its_image_was_removed(images):
    images.docker("tag", "busybox", "mine:1")
    archive = images.docker("save", "busybox").raw
    container = images.docker("create", "mine:1", "echo", "alive").out.strip()
    images.docker("rmi", "-f", "mine:1", "busybox")
    assert images.docker("images", "-q").out == ""
    assert images.docker("start", "-a", container).out == "alive\n"
    images.kill()
    images.start()
    assert images.docker("start", "-a", container).out == "alive\n"
    images.docker("rm", container)
    images.docker("load", input=archive)


# ---- registries out of reach


def test_a_registry_that_is_not_there_is_reported_at_once(images):
    started = time.monotonic()
    pulled = images.docker("pull", "127.0.0.1:1/app", ok=False)
    assert pulled.err.strip() == (
        'Error response from daemon: Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect:'
        " connection refused"
    )
    ran = images.docker("run", "127.0.0.1:1/app", ok=False)
    assert ran.code == 125
    assert "Unable to find image '127.0.0.1:1/app:latest' locally" in ran.err
    assert time.monotonic() - started < 60


# ---- bad luck


def test_a_kill_in_the_middle_of_loading_leaves_no_trace(images, tmp_path):
    big = tmp_path / "big.tar"
    with tarfile.open(big, "w") as tar:
        for number in range(60):
            info = tarfile.TarInfo(f"file{number}")
            info.size = 1 << 20
            tar.addfile(info, io.BytesIO(os.urandom(1 << 20)))
    images.docker("import", str(big), "big:1")
    archive = tmp_path / "saved.tar"
    images.docker("save", "-o", str(archive), "big:1")
    images.docker("rmi", "big:1")
    before = stored(images)
    for delay in (0.05, 0.1, 0.2, 0.3, 0.4):
        client = images.spawn("load", "-i", str(archive))
        time.sleep(delay)
        images.kill()
        client.wait(60)
        images.start()
        if "big" in images.docker("images").out:
            assert images.docker("save", "big:1").raw == archive.read_bytes()
            images.docker("rmi", "big:1")
        assert stored(images) == before


def test_a_client_that_leaves_in_the_middle_of_loading_leaves_no_trace(images, tmp_path):
    before = stored(images)
    client = images.spawn("load", stdin=subprocess.PIPE)
    client.stdin.write(root_archive(a=b"1" * 3_000_000)[:1_000_000])
    client.stdin.flush()
    time.sleep(0.3)
    client.send_signal(signal.SIGKILL)
    client.wait()
    deadline = time.monotonic() + 60
    while stored(images) != before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
