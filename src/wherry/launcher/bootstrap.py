"""Base images without a registry: busybox from this machine's, Debian from its packages.

``wherry images bootstrap`` makes them, so that what people try first (``docker run busybox``,
``FROM debian:bookworm``) works on a machine that reaches no registry. They carry the names of the
images that they stand for, and are replaced when those are pulled.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from wherry.launcher.instance import Instance

SUITE = "bookworm"
_APT_OPTIONS = Path("/etc/apt/apt.conf.d")
_PIECE = 1 << 20
_BUSYBOX_DIRECTORIES = (
    *(("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("root", 0o700)),
    *(("tmp", 0o1777), ("usr", 0o755), ("usr/bin", 0o755), ("usr/sbin", 0o755), ("var", 0o755)),
    *(("var/spool", 0o755), ("var/www", 0o755), ("www", 0o755)),
)
_BUSYBOX_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "bin:x:2:2:bin:/bin:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n"
    ),
    "etc/group": (
        "root:x:0:\ndaemon:x:1:\nbin:x:2:\nadm:x:4:\ntty:x:5:\nwheel:x:10:root\n"
        "www-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n"
    ),
    "etc/shadow": "root:*:::::::\nnobody:*:::::::\n",
}
# What makes Debian smaller and quicker in an image; each is a file of configuration.
_DEBIAN_FILES = {
    "etc/apt/apt.conf.d/docker-clean": (
        "# Packages that were installed are not kept: in a layer they would be for ever.\n"
        'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
    ),
    "etc/apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
    "etc/apt/apt.conf.d/docker-no-recommends-of-suggests": (
        'Apt::AutoRemove::SuggestsImportant "false";\n'
    ),
    "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
    "usr/sbin/policy-rc.d": "#!/bin/sh\n# No service starts by itself in a container.\nexit 101\n",
}


class BootstrapFailed(Exception):
    """An image could not be made; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is made: its names, its settings, and its root file system as a tar."""

    names: Callable[[], Sequence[str]]
    changes: Sequence[str]
    tar: Callable[[], AsyncIterator[bytes]]


def make(instance: Instance, wanted: Sequence[str], *, again: bool = False) -> Iterator[str]:
    """Make the images ``wanted`` (all without any) in the engine of ``instance``; yields lines.

    With ``again`` also those that are there.

    Raises:
        BootstrapFailed: an image could not be made; those before it are there.
    """
    for name in wanted or tuple(RECIPES):
        if name not in RECIPES:
            known = ", ".join(RECIPES)
            raise BootstrapFailed(f"there is no recipe for {name}, only for {known}")
        recipe = RECIPES[name]
        names = recipe.names()
        made = asyncio.run(_make(instance.docker_socket, recipe, names, again=again))
        yield f"{', '.join(names)}: {'made' if made else 'is there already'}"


async def _make(socket: Path, recipe: Recipe, names: Sequence[str], *, again: bool) -> bool:
    connector = aiohttp.UnixConnector(str(socket))
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, base_url="http://docker", timeout=timeout
    ) as session:
        try:
            if not again and await _is_there(session, names[0]):
                return False
            await import_image(session, names[0], recipe.tar(), recipe.changes)
            for name in names[1:]:
                repository, _, tag = name.partition(":")
                query = {"repo": repository, "tag": tag}
                async with session.post(f"/images/{names[0]}/tag", params=query) as answer:
                    await _expect(answer, 201, name)
        except aiohttp.ClientConnectorError:
            raise BootstrapFailed("the engine does not run; `wherry up` starts it") from None
    return True


async def _is_there(session: aiohttp.ClientSession, name: str) -> bool:
    async with session.get(f"/images/{name}/json") as answer:
        return answer.status == 200


async def import_image(
    session: aiohttp.ClientSession,
    name: str,
    tar: bytes | AsyncIterator[bytes],
    changes: Sequence[str],
) -> None:
    """Import a root file system as ``name``, by the Engine API.

    Raises:
        BootstrapFailed: the engine refuses it.
    """
    repository, _, tag = name.partition(":")
    query = [("fromSrc", "-"), ("repo", repository), ("tag", tag or "latest")]
    query += [("changes", change) for change in changes]
    async with session.post("/images/create", params=query, data=tar) as answer:
        await _expect(answer, 200, name)


async def _expect(answer: aiohttp.ClientResponse, status: int, name: str) -> None:
    text = await answer.text()
    if answer.status != status or '"error"' in text:
        raise BootstrapFailed(f"making {name} failed: {text.strip()}")


# ---- busybox


def find_busybox() -> Path:
    """The busybox of this machine.

    Raises:
        BootstrapFailed: it has none.
    """
    found = shutil.which("busybox")
    if found is None:
        raise BootstrapFailed("busybox is not installed (Debian package busybox-static)")
    return Path(found)


def _busybox_names() -> list[str]:
    """``busybox:latest``, and the version of the program."""
    shown = subprocess.run([find_busybox()], capture_output=True, text=True, check=False)
    version = re.search(r"v(\d+\.\d+\.\d+)", shown.stdout + shown.stderr)
    return ["busybox:latest", *([f"busybox:{version[1]}"] if version else [])]


async def _busybox_tar() -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(busybox_root, find_busybox())


def busybox_root(busybox: Path) -> bytes:
    """A tar with busybox, its applets as links, and what a program expects of ``/``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory, mode in _BUSYBOX_DIRECTORIES:
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in _applets(busybox):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.LNKTYPE, "bin/busybox"
            entry.mode = 0o755
            tar.addfile(entry)
        for name, text in _BUSYBOX_FILES.items():
            _add(tar, name, text.encode(), 0o600 if name.endswith("shadow") else 0o644)
    return buffer.getvalue()


def _applets(busybox: Path) -> list[str]:
    """The commands that this busybox has in it."""
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name != "busybox"]


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


# ---- Debian


async def _debian_tar() -> AsyncIterator[bytes]:
    """What mmdebstrap makes, with the files of ``_DEBIAN_FILES`` in it."""
    if shutil.which("mmdebstrap") is None:
        raise BootstrapFailed(
            "mmdebstrap is not installed, which debian:bookworm is made with"
            " (apt-get install mmdebstrap)"
        )
    with tempfile.TemporaryDirectory(prefix="wherry-bootstrap-") as directory:
        whole = Path(directory, "debian.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar"]
        # What this machine's apt was told of proxies and mirrors holds for the image's, too.
        command += [f"--aptopt={path}" for path in sorted(_APT_OPTIONS.glob("99*"))]
        command += [SUITE, str(whole)]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            why = " ".join(done.stderr.strip().splitlines()[-3:])
            raise BootstrapFailed(f"mmdebstrap failed: {why}")
        with tarfile.open(whole, mode="a") as tar:
            for name, text in _DEBIAN_FILES.items():
                _add(tar, name, text.encode(), 0o755 if name.endswith("policy-rc.d") else 0o644)
        with whole.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece


RECIPES = {
    "busybox": Recipe(_busybox_names, ('CMD ["sh"]',), _busybox_tar),
    "debian": Recipe(
        lambda: (f"debian:{SUITE}", f"debian:{SUITE}-slim", "debian:latest"),
        ('CMD ["bash"]',),
        _debian_tar,
    ),
}
