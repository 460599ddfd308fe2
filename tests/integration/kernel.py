"""What the kernel holds, as comparable sets: to see that nothing is left behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path


def state() -> dict[str, set[str]]:
    """Mounts, links, routes, nftables tables, cgroups, network namespaces files, monitors."""
    return {
        "mounts": {
            line.split()[1]
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if not line.split()[1].startswith(("/proc", "/dev"))
        },
        "links": {link["ifname"] for link in _ip("link")},
        "routes": {f"{r.get('type', '')} {r['dst']} {r.get('dev', '')}" for r in _ip("route")},
        "tables": set(_output("nft", "list", "tables").splitlines()),
        "cgroups": _cgroups(),
        "monitors": _conmons(),
    }


def left_behind(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there now and was not before."""
    return {kind: after[kind] - before[kind] for kind in before if after[kind] - before[kind]}


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _ip(what: str) -> list[dict[str, str]]:
    result: list[dict[str, str]] = json.loads(_output("ip", "-j", what, "show") or "[]")
    return result


def _cgroups() -> set[str]:
    return {str(path) for path in Path("/sys/fs/cgroup").rglob("*wherry*") if path.is_dir()}


def _conmons() -> set[str]:
    """Command lines of the monitors of instances that this suite made (conftest names them)."""
    found = set()
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() == "conmon":
                found.add((comm.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return {line for line in found if "/run/wherry/instance" in line}
