"""The image of an ingress controller's pod, made from what is on this machine: its Python, this
program, nginx, and the libraries that they need, above the busybox that all our images have.

Everything of Python stands in it where it stands here, so that the interpreter finds its parts.
Nothing of it is made before a pod asks for it, and it is made anew when the program or nginx is
another.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import wherry
from wherry.engine.errors import NotFound, Unavailable
from wherry.engine.image import busybox
from wherry.engine.image.manifest import host_platform

if TYPE_CHECKING:
    from wherry.engine.image.store import ImageStore

_MADE_FROM: Final = "io.wherry.made-from"
_PACKAGES: Final = "usr/lib/wherry"
_NGINX: Final = "usr/sbin/nginx"
_DISTRIBUTIONS: Final = ("aiohttp", "bcrypt", "cryptography", "orjson", "uvloop")
_NOT_NEEDED: Final = frozenset(
    [
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "ensurepip",
        "lib2to3",
        "pydoc_data",
        "distutils",
        "site-packages",
        "dist-packages",
        "unittest",
        "sqlite3",
        "curses",
        "dbm",
    ]
)
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
_CHUNK = 4 * 1024 * 1024

Files = dict[str, Path]
"""Where a file of this machine stands in the image."""


async def ensure_ingress(store: ImageStore, reference: str) -> None:
    """Make the image where it is missing or old.

    Raises:
        Unavailable: nginx or busybox is not installed.
    """
    made_from = await asyncio.to_thread(_fingerprint)
    try:
        if store.resolve(reference).labels.get(_MADE_FROM) == made_from:
            return
    except NotFound:
        pass
    files = await asyncio.to_thread(_files)
    host = host_platform()
    config = {
        "architecture": host.architecture,
        "os": host.os,
        "config": {
            "Entrypoint": [_interpreter(), "-m", "wherry.kube.ingress"],
            "Env": [
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                f"PYTHONPATH=/{_PACKAGES}",
                "PYTHONDONTWRITEBYTECODE=1",
            ],
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "Labels": {_MADE_FROM: made_from},
        },
        "history": [
            {"created_by": "COPY busybox /bin/busybox"},
            {"created_by": "COPY python wherry nginx /"},
        ],
    }
    base = busybox.layer(busybox.find())
    await store.add_layered(config, tars=[base, _layer(files)], reference=reference)


def find_nginx() -> Path:
    """The nginx of this machine.

    Raises:
        Unavailable: it has none.
    """
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise Unavailable(
            "nginx is not installed; an ingress controller's image needs it (apt-get install nginx)"
        )
    return Path(found)


def _interpreter() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _program() -> Path:
    return Path(wherry.__file__).parent


def _fingerprint() -> str:
    """Changes with what the image is made from."""
    seen = hashlib.sha256(_interpreter().encode())
    for path in (find_nginx(), *sorted(_program().rglob("*.py"))):
        about = path.stat()
        seen.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return seen.hexdigest()


def _files() -> Files:
    found: Files = {_NGINX: find_nginx(), _interpreter().lstrip("/"): Path(_interpreter())}
    for name in ("stdlib", "platstdlib"):
        # The base's: a virtual environment has none.
        variables = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
        variables |= {"installed_base": sys.base_prefix}
        variables |= {"installed_platbase": sys.base_exec_prefix}
        place = Path(sysconfig.get_path(name, vars=variables))
        found |= {str(path).lstrip("/"): path for path in _tree(place)}
    program = _program()
    for path in _tree(program):
        found[f"{_PACKAGES}/wherry/{path.relative_to(program)}"] = path
    for name in _with_what_they_need(_DISTRIBUTIONS):
        for file in importlib.metadata.distribution(name).files or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.is_file():
                found[f"{_PACKAGES}/{file}"] = path
    programs = [p for p in found.values() if ".so" in p.suffixes or p.stat().st_mode & 0o111]
    for path in _libraries(programs):
        found[str(path).lstrip("/")] = path
    return found


def _tree(place: Path) -> Iterator[Path]:
    """Modules below ``place``, with their bytecode, without what only developers need."""
    bytecode = f".{sys.implementation.cache_tag}.pyc"
    for directory, names, files in os.walk(place):
        names[:] = sorted(n for n in names if n not in _NOT_NEEDED and not n.startswith("config-"))
        for name in sorted(files):
            if name.endswith((".pyc", ".pyo")) and not name.endswith(bytecode):
                continue
            path = Path(directory, name)
            if path.is_file():
                yield path


def _with_what_they_need(names: Iterable[str]) -> list[str]:
    """Distributions and those that they require, without extras."""
    waiting, found = list(names), list[str]()
    while waiting:
        name = waiting.pop()
        try:
            requires = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # one for another version of Python
        if name in found:
            continue
        found.append(name)
        for requirement in requires:
            if "extra ==" not in requirement and (match := _REQUIREMENT.match(requirement)):
                waiting.append(match[0].lower().replace("_", "-"))
    return found


def _libraries(programs: Sequence[Path]) -> set[Path]:
    """The shared libraries that programs and modules load."""
    # What is no program it says, too, and ends with 1.
    argv = ["ldd", *map(str, programs)]
    listed = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = set()
    for line in listed.stdout.splitlines():
        words = line.split()
        place = words[2] if len(words) > 2 and words[1] == "=>" else words[0] if words else ""
        if line[:1].isspace() and place.startswith("/"):
            found.add(Path(place))
    return found


async def _layer(files: Files) -> AsyncIterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for name, path in sorted(files.items()):
        about = path.stat()
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = about.st_size, 0o755 if about.st_mode & 0o111 else 0o644
        entry.mtime = int(about.st_mtime)  # bytecode is of a source with this date
        data = await asyncio.to_thread(path.read_bytes)
        parts += [entry.tobuf(tarfile.GNU_FORMAT), data, bytes(-len(data) % 512)]
        size += len(data)
        if size > _CHUNK:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join([*parts, bytes(1024)])
