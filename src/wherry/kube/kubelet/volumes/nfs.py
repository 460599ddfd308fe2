"""Volumes of NFS servers, mounted by the node's own ``mount`` program.

The protocol's versions and options are the helper's to know (mount.nfs of nfs-common), as for
upstream's kubelet.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wherry.kube.kubelet.environment import ConfigError
from wherry.kube.kubelet.volumes import mounts

Object = dict[str, Any]

TIMEOUT = 120.0  # seconds in which a server answers, or does not


def arguments(source: Object, target: Path, options: Sequence[str], *, readonly: bool) -> list[str]:
    """What ``mount`` is told."""
    server, path = source["server"], source["path"]
    if ":" in server and not server.startswith("["):
        server = f"[{server}]"
    chosen = [*options]
    if readonly and "ro" not in chosen:
        chosen.append("ro")
    told = ["-t", "nfs"]
    if chosen:
        told += ["-o", ",".join(chosen)]
    return [*told, f"{server}:{path}", str(target)]


async def mount(source: Object, target: Path, options: Sequence[str], *, readonly: bool) -> None:
    """Mount the server's directory at ``target``; nothing happens where it is mounted already.

    Raises:
        ConfigError: it cannot be mounted; the text says what the program said.
    """
    if target.exists() and mounts.is_mounted(target):
        return
    target.mkdir(parents=True, exist_ok=True, mode=0o750)
    told = arguments(source, target, options, readonly=readonly)
    program = shutil.which("mount")
    if program is None:
        raise ConfigError("mount failed: the program mount is not installed on the node")
    process = await asyncio.create_subprocess_exec(
        program, *told, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate()
    except TimeoutError:
        output = f"no answer in {TIMEOUT:.0f} seconds".encode()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == 0:
        return
    with contextlib.suppress(OSError):
        target.rmdir()
    text = output.decode("utf-8", "replace").strip()
    if not shutil.which("mount.nfs", path="/sbin:/usr/sbin:/bin:/usr/bin"):
        text += "\nThe node has no mount.nfs (Debian package nfs-common)."
    raise ConfigError(
        f"mount failed: exit status {process.returncode}\nMounting command: mount\n"
        f"Mounting arguments: {' '.join(told)}\nOutput: {text}\n"
    )
