"""Programs of Debian's that only benchmarks need: unpacked into a directory, not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import PEERS, environment

_FILES = {
    "wrk": ("wrk", "libluajit-5.1-2", "libluajit2-5.1-2"),
    "dnsperf": ("dnsperf", "libldns3", "libnghttp2-14"),
    "dnsmasq": ("dnsmasq-base", "libhogweed6", "libnettle8", "libgmp10", "libdbus-1-3"),
}


def program(name: str) -> Path | None:
    """The machine's, or one unpacked alone; None where it cannot be had."""
    for directory in ("usr/bin", "usr/sbin"):
        if (place := PEERS / directory / name).exists():
            return place
    if found := shutil.which(name):
        return Path(found)
    packages: Sequence[str] = _FILES[name]
    PEERS.mkdir(parents=True, exist_ok=True)
    argv = ["apt-get", "-q", "download", *packages]
    if subprocess.run(argv, cwd=PEERS, capture_output=True, check=False).returncode:
        return None
    for package in packages:
        for deb in PEERS.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg", "-x", str(deb), str(PEERS)], check=True)
    return next(
        (p for d in ("usr/bin", "usr/sbin") if (p := PEERS / d / name).exists()),
        None,
    )


def libraries() -> dict[str, str]:
    """The environment in which those programs find their libraries."""
    machine = f"{os.uname().machine}-linux-gnu"
    places = (PEERS / "usr" / "lib" / machine, PEERS / "lib" / machine)
    return environment(LD_LIBRARY_PATH=":".join(map(str, places)))
