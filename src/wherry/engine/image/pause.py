"""The image of the container that holds a pod's namespaces, made from the host's catatonit.

catatonit is an init that with ``-P`` does nothing but reap children and wait for a signal, which is
all that a pause container is for. Debian links it statically, so it is the whole image.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.engine.errors import NotFound, Unavailable
from wherry.engine.image.manifest import host_platform

if TYPE_CHECKING:
    from wherry.engine.image.store import ImageStore

REFERENCE = "registry.k8s.io/pause:3.10"
_ENTRYPOINT = ["/pause", "-P"]


async def ensure_pause(store: ImageStore) -> str:
    """Make the image where it is missing; returns its reference.

    Raises:
        Unavailable: catatonit is not installed.
    """
    try:
        store.resolve(REFERENCE)
    except NotFound:
        program = find_catatonit()
        await store.add_layered(_config(program), tars=[_layer(program)], reference=REFERENCE)
    return REFERENCE


def find_catatonit() -> Path:
    """Where catatonit is.

    Raises:
        Unavailable: nowhere.
    """
    for place in (shutil.which("catatonit"), "/usr/libexec/podman/catatonit"):
        if place is not None and os.access(place, os.X_OK):
            return Path(place)
    raise Unavailable("catatonit is not installed; pods need it (apt-get install catatonit)")


def _config(program: Path) -> dict[str, object]:
    host = host_platform()
    # The program's own date, so that the same program gives the same image.
    made = datetime.fromtimestamp(int(program.stat().st_mtime), UTC)
    created = made.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "architecture": host.architecture,
        "os": host.os,
        "created": created,
        "config": {"Entrypoint": _ENTRYPOINT, "WorkingDir": "/", "User": "65535:65535"},
        "history": [{"created": created, "created_by": "COPY catatonit /pause"}],
    }


async def _layer(program: Path) -> AsyncIterator[bytes]:
    data = program.read_bytes()
    info = tarfile.TarInfo("pause")
    info.size, info.mode = len(data), 0o755
    info.mtime = int(program.stat().st_mtime)
    yield info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512 + 1024)
