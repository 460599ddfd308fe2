"""What the tests of mounts share."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

from docker_harness import Daemon, busybox_archive


def run(engine: Daemon, *arguments: str, **options: Any) -> Any:
    """``docker run --rm``."""
    return engine.docker("run", "--rm", *arguments, **options)


def shell(engine: Daemon, *arguments: str, ok: bool = True) -> Any:
    """``docker run --rm`` with options and, last, a script."""
    *options, script = arguments
    return run(engine, *options, "busybox", "sh", "-c", script, ok=ok)


def two_layers(name: str) -> bytes:
    """The archive of an image called ``name``: busybox, and a layer of odd things over it."""
    base, top = busybox_archive(), io.BytesIO()
    with tarfile.open(fileobj=top, mode="w") as archive:

        def add(
            path: str,
            kind: bytes,
            *,
            data: bytes = b"",
            mode: int = 0o644,
            owner: tuple[int, int] = (0, 0),
            link: str = "",
        ) -> None:
            info = tarfile.TarInfo(path)
            info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data)
            info.uid, info.gid = owner
            archive.addfile(info, io.BytesIO(data))

        add("data", tarfile.DIRTYPE, mode=0o2750, owner=(33, 50))
        add("data/sub", tarfile.DIRTYPE, mode=0o755, owner=(33, 50))
        add("data/f", tarfile.REGTYPE, data=b"one\n", mode=0o4755, owner=(33, 50))
        add("data/same", tarfile.LNKTYPE, link="data/f")
        add("data/link", tarfile.SYMTYPE, link="/data/f", owner=(33, 50))
        add("real", tarfile.DIRTYPE, mode=0o755)
        add("real/f", tarfile.REGTYPE, data=b"inside\n")
        add("linked", tarfile.SYMTYPE, link="/real")
        add("escape", tarfile.SYMTYPE, link="../../../../etc")
        add("etc/.wh.group", tarfile.REGTYPE)
    layers = [base, top.getvalue()]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
    }
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    members = [("manifest.json", json.dumps(manifest).encode())]
    members += [("config.json", json.dumps(config).encode()), *zip(names, layers, strict=True)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in members:
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
