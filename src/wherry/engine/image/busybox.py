"""The image of the pods that the cluster itself needs, made from the host's busybox.

Nothing of it is made before somebody asks for it.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.engine.errors import NotFound, Unavailable
from wherry.engine.image.manifest import host_platform

if TYPE_CHECKING:
    from wherry.engine.image.store import ImageStore

REFERENCE = "wherry.io/busybox:1"

_DIRECTORIES = (
    *(("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("root", 0o700)),
    *(("tmp", 0o1777), ("usr", 0o755), ("usr/bin", 0o755), ("usr/sbin", 0o755), ("var", 0o755)),
    *(("var/spool", 0o755), ("var/www", 0o755), ("www", 0o755)),
)
_FILES = {
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


async def ensure_busybox(store: ImageStore) -> str:
    """Make the image where it is missing; returns its reference.

    Raises:
        Unavailable: there is no busybox.
    """
    try:
        store.resolve(REFERENCE)
    except NotFound:
        host = host_platform()
        config = {
            "architecture": host.architecture,
            "os": host.os,
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "history": [{"created_by": "COPY busybox /bin/busybox"}],
        }
        await store.add_layered(config, tars=[layer(find())], reference=REFERENCE)
    return REFERENCE


async def layer(program: Path) -> AsyncIterator[bytes]:
    """``root`` as the layer of an image."""
    yield await asyncio.to_thread(root, program)


def find() -> Path:
    """The busybox of this machine.

    Raises:
        Unavailable: it has none.
    """
    found = shutil.which("busybox")
    if found is None:
        raise Unavailable("busybox is not installed (Debian package busybox-static)")
    return Path(found)


def root(program: Path) -> bytes:
    """A tar with busybox, its applets as links, and what a program expects of ``/``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory, mode in _DIRECTORIES:
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        add_file(tar, "bin/busybox", program.read_bytes(), 0o755)
        for applet in _applets(program):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.LNKTYPE, "bin/busybox"
            entry.mode = 0o755
            tar.addfile(entry)
        for name, text in _FILES.items():
            add_file(tar, name, text.encode(), 0o600 if name.endswith("shadow") else 0o644)
    return buffer.getvalue()


def _applets(program: Path) -> list[str]:
    """The commands that this busybox has in it."""
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name != "busybox"]


def add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    """Put a file into ``tar``."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
