"""Base images without a registry: busybox from this machine's, Debian from its packages.

``wherry images bootstrap`` makes them, so that what people try first (``docker run busybox``,
``FROM debian:bookworm``) works on a machine that reaches no registry. They carry the names of the
images that they stand for, and are replaced when those are pulled.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from wherry.engine.errors import Unavailable
from wherry.engine.image import busybox
from wherry.launcher.instance import Instance

SUITE = "bookworm"
_APT_OPTIONS = Path("/etc/apt/apt.conf.d")
_PIECE = 1 << 20
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


def _busybox_names() -> list[str]:
    """``busybox:latest``, and the version of the program."""
    shown = subprocess.run([find_busybox()], capture_output=True, text=True, check=False)
    version = re.search(r"v(\d+\.\d+\.\d+)", shown.stdout + shown.stderr)
    return ["busybox:latest", *([f"busybox:{version[1]}"] if version else [])]


async def _busybox_tar() -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(busybox.root, find_busybox())


def find_busybox() -> Path:
    """The busybox of this machine.

    Raises:
        BootstrapFailed: it has none.
    """
    try:
        return busybox.find()
    except Unavailable as error:
        raise BootstrapFailed(error.message) from None


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
                busybox.add_file(
                    tar, name, text.encode(), 0o755 if name.endswith("policy-rc.d") else 0o644
                )
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
