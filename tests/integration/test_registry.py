"""Registries, as users meet them: docker, skopeo and umoci with ours and with Debian's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
from docker_harness import ROOT, Daemon
from registry_process import Server

pytest_plugins = ("docker_fixtures",)

CLIENTS = ROOT / ".venv" / "clients"


class Debians(Server):
    """Debian's docker-registry, the reference implementation."""

    def start(self) -> Server:
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}},
            "http": {"addr": f"127.0.0.1:{self.port}"},
        }
        path = self.directory / "config.yml"
        path.write_text(json.dumps(configuration))
        log = (self.directory / "log").open("wb")
        with log:
            self.process = subprocess.Popen(
                [CLIENTS / "docker-registry", "serve", path], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.05)


@pytest.fixture(params=["ours", "debian"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    kind = Server if request.param == "ours" else Debians
    server = kind(tmp_path / "registry").start()
    yield server
    server.stop()


@pytest.fixture
def images(engine: Daemon) -> Iterator[Daemon]:
    """The engine with busybox alone, before and after."""
    yield engine
    engine.remove_all()
    named = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    extra = [name for name in named if name != "busybox:latest" and "<none>" not in name]
    if extra:
        engine.docker("rmi", "-f", *extra)
    engine.docker("image", "prune", "-f")


def identity(engine: Daemon, name: str) -> str:
    return str(engine.docker("image", "inspect", "-f", "{{.Id}}", name).out.strip())


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_push_remove_pull_run(images: Daemon, registry: Server) -> None:
    name = f"{registry.host}/team/box:1"
    images.docker("tag", "busybox", name)
    pushed = images.docker("push", name).out
    assert f"The push refers to repository [{registry.host}/team/box]" in pushed
    digest = pushed.split("digest: ")[1].split()[0]
    before = identity(images, name)
    again = images.docker("push", name).out
    assert "Layer already exists" in again
    images.docker("rmi", name)
    images.docker("tag", "busybox", "keep:1")
    pulled = images.docker("pull", name).out
    assert f"Digest: {digest}" in pulled
    assert identity(images, name) == before
    images.docker("rmi", name)
    by_digest = f"{registry.host}/team/box@{digest}"
    images.docker("pull", by_digest)
    assert images.docker("run", "--rm", by_digest, "echo", "hello").out == "hello\n"
    shown = images.docker("images", "--digests", "--format", "{{.Digest}}").out
    assert digest in shown
    images.docker("rmi", by_digest)


def test_run_pulls_what_is_not_there(images: Daemon, registry: Server) -> None:
    name = f"{registry.host}/box:1"
    images.docker("tag", "busybox", name)
    images.docker("push", "-q", name)
    images.docker("rmi", name)
    done = images.docker("run", "--rm", name, "echo", "there")
    assert done.out == "there\n"
    assert f"Unable to find image '{name}' locally" in done.err
    missing = images.docker("run", "--rm", f"{registry.host}/box:none", "true", ok=False)
    assert missing.code == 125
    assert f"manifest for {registry.host}/box:none not found: manifest unknown" in missing.err


def test_all_tags_go_and_come(images: Daemon, registry: Server) -> None:
    repository = f"{registry.host}/many"
    for tag in ("a", "b", "c"):
        images.docker("tag", "busybox", f"{repository}:{tag}")
    images.docker("push", "--all-tags", repository)
    images.docker("rmi", *(f"{repository}:{tag}" for tag in ("a", "b", "c")))
    images.docker("pull", "--all-tags", repository)
    tags = images.docker("images", "--format", "{{.Tag}}", repository).out.split()
    assert sorted(tags) == ["a", "b", "c"]


def test_skopeo_and_umoci_agree_with_us(images: Daemon, registry: Server, tmp_path: Path) -> None:
    name = f"{registry.host}/box:1"
    images.docker("tag", "busybox", name)
    images.docker("push", "-q", name)
    told = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    shown = json.loads(images.docker("image", "inspect", name).out)[0]
    assert f"{registry.host}/box@{told['Digest']}" in shown["RepoDigests"]
    layout = tmp_path / "layout"
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:1")
    subprocess.run(
        [CLIENTS / "umoci", "unpack", "--image", f"{layout}:1", tmp_path / "bundle"], check=True
    )
    assert (tmp_path / "bundle" / "rootfs" / "bin" / "busybox").exists()
    # And the other way: what they push, we pull.
    subprocess.run(
        [CLIENTS / "umoci", "config", "--image", f"{layout}:1", "--config.label", "by=umoci"],
        check=True,
    )
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{registry.host}/box:2")
    images.docker("pull", "-q", f"{registry.host}/box:2")
    labels = images.docker("image", "inspect", "-f", "{{json .Config.Labels}}", f"{name[:-1]}2")
    assert json.loads(labels.out) == {"by": "umoci"}


def test_many_pull_at_once(images: Daemon, registry: Server, tmp_path: Path) -> None:
    names = []
    for number in range(4):
        name = f"{registry.host}/box:{number}"
        images.docker("import", "-c", f"LABEL n={number}", "-", name, input=_archive(number))
        names.append(name)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: images.docker("push", "-q", name), names))
        before = [identity(images, name) for name in names]
        images.docker("rmi", *names)
        pulls = [pool.submit(images.docker, "pull", "-q", name) for name in names * 2]
        copies = [
            pool.submit(
                skopeo, "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/{i}"
            )
            for i, name in enumerate(names)
        ]
        for future in (*pulls, *copies):
            future.result()
    assert [identity(images, name) for name in names] == before


def _archive(number: int) -> bytes:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(f"file-{number}")
        data = os.urandom(200_000)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_platform_is_chosen_from_an_index(
    images: Daemon, registry: Server, tmp_path: Path
) -> None:
    """An index made by hand of two images that skopeo has pushed."""
    import urllib.request

    entries = []
    for architecture in ("amd64", "arm64"):
        layout = tmp_path / architecture
        archive = _archive(1)
        source = tmp_path / f"{architecture}.tar"
        source.write_bytes(archive)
        subprocess.run([CLIENTS / "umoci", "init", "--layout", layout], check=True)
        umoci = [CLIENTS / "umoci"]
        subprocess.run([*umoci, "new", "--image", f"{layout}:x"], check=True)
        subprocess.run(
            [*umoci, "config", "--image", f"{layout}:x", "--architecture", architecture], check=True
        )
        subprocess.run([*umoci, "raw", "add-layer", "--image", f"{layout}:x", source], check=True)
        target = f"{registry.host}/multi:{architecture}"
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:x", f"docker://{target}")
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{target}").encode()
        digest = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{target}"))["Digest"]
        entries.append(
            {
                "mediaType": json.loads(raw).get(
                    "mediaType", "application/vnd.oci.image.manifest.v1+json"
                ),
                "size": len(raw),
                "digest": digest,
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    kind = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    request = urllib.request.Request(
        f"http://{registry.host}/v2/multi/manifests/all",
        json.dumps(index).encode(),
        {"Content-Type": kind},
        method="PUT",
    )
    urllib.request.urlopen(request).close()
    name = f"{registry.host}/multi:all"
    for architecture in ("arm64", "amd64"):
        images.docker("pull", "-q", "--platform", f"linux/{architecture}", name)
        found = images.docker("image", "inspect", "-f", "{{.Architecture}}", name).out.strip()
        assert found == architecture
    wrong = images.docker("pull", "--platform", "linux/s390x", name, ok=False)
    assert "no matching manifest for linux/s390x in the manifest list entries" in wrong.err


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    return path


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_login_push_logout(images: Daemon, tmp_path: Path, htpasswd: Path, kind: str) -> None:
    options = ("--htpasswd", str(htpasswd), "--auth", kind)
    registry = Server(tmp_path / "registry", *options).start()
    try:
        name = f"{registry.host}/box:1"
        images.docker("tag", "busybox", name)
        refused = images.docker("push", name, ok=False)
        assert refused.code == 1
        wrong = images.docker(
            *("login", "-u", "ann", "--password-stdin", registry.host), input=b"wrong", ok=False
        )
        assert wrong.code == 1
        assert "unauthorized" in wrong.err.lower()
        login = ("login", "-u", "ann", "--password-stdin", registry.host)
        assert "Login Succeeded" in images.docker(*login, input=b"secret").out
        images.docker("push", name)
        images.docker("rmi", name)
        images.docker("pull", name)
        assert "Removing login credentials" in images.docker("logout", registry.host).out
        images.docker("rmi", name)
        assert images.docker("pull", name, ok=False).code == 1
    finally:
        registry.stop()


def test_search_asks_the_registry_named(images: Daemon, tmp_path: Path) -> None:
    registry = Server(tmp_path / "registry").start()
    try:
        images.docker("tag", "busybox", f"{registry.host}/tools/box:1")
        images.docker("push", "-q", f"{registry.host}/tools/box:1")
        found = images.docker("search", "--format", "{{.Name}}", f"{registry.host}/box").out
        assert found.split() == ["tools/box"]
    finally:
        registry.stop()


def test_a_private_ca_is_trusted_by_its_file(images: Daemon, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.2"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", names),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key))
    registry = Server(tmp_path / "registry", *tls, host="localhost").start()
    place = Path("/etc/docker/certs.d") / registry.host
    made = [path for path in (place, *place.parents) if not path.exists()]
    place.mkdir(parents=True)
    try:
        shutil.copy(certificate, place / "ca.crt")
        name = f"{registry.host}/box:1"
        images.docker("tag", "busybox", name)
        images.docker("push", name)
        told = skopeo("inspect", f"--cert-dir={place}", f"docker://{name}")
        assert json.loads(told)["Digest"]
    finally:
        registry.stop()
        shutil.rmtree(place)
        for path in made[1:]:
            with contextlib.suppress(OSError):  # somebody beside us has something there by now
                path.rmdir()


def test_a_registry_that_was_killed_has_what_it_acknowledged(
    images: Daemon, tmp_path: Path
) -> None:
    """Pushes under way go on with it, or say that it is not there and can be made again."""
    registry = Server(tmp_path / "registry").start()
    try:
        names = [f"{registry.host}/box:{number}" for number in range(3)]
        for number, name in enumerate(names):
            images.docker("import", "-", name, input=_archive(number))
        images.docker("push", "-q", names[0])
        with ThreadPoolExecutor(2) as pool:
            pushes = [
                pool.submit(images.docker, "push", "-q", name, ok=False) for name in names[1:]
            ]
            registry.stop(signal.SIGKILL)
            registry.start()
            for name, push in zip(names[1:], pushes, strict=True):
                if push.result().code != 0:
                    assert "Errno" not in push.result().err
                    images.docker("push", "-q", name)
        images.docker("rmi", *names)
        for name in names:
            images.docker("pull", "-q", name)
    finally:
        registry.stop()


def test_garbage_is_collected_beside_a_registry_that_serves(images: Daemon, tmp_path: Path) -> None:
    registry = Server(tmp_path / "registry").start()
    try:
        old, new = _archive(1), _archive(2)
        name = f"{registry.host}/box:1"
        for data in (old, new):
            images.docker("import", "-", name, input=data)
            images.docker("push", "-q", name)
        argv = [sys.executable, "-m", "wherry", "registry", "garbage-collect"]
        argv += ["--root", str(registry.directory), "--delete-untagged", "--grace", "0"]
        environment = dict(os.environ, PYTHONPATH=str(ROOT / "src"))
        freed = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
        assert "freed 0.2 MB" in freed.stdout
        images.docker("rmi", name)
        images.docker("pull", "-q", name)
    finally:
        registry.stop()


def test_an_unreachable_registry_is_named(images: Daemon) -> None:
    refused = images.docker("pull", "127.0.0.1:1/box", ok=False)
    text = 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
    assert refused.err.strip().endswith(text)
