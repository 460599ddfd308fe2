"""What the kernel holds, as comparable sets: to see that nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from wherry.launcher import slots
from wherry.launcher.instance import RUN_ROOT, Instance

_CABLE = re.compile(r"veth[0-9a-f]{7}")


def state() -> dict[str, set[str]]:
    """Mounts, links, routes, nftables tables, cgroups, network namespaces files, monitors."""
    return {
        "mounts": {
            line.split()[1]
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if not line.split()[1].startswith(("/proc", "/dev"))
        },
        # A cable that hangs on a bridge comes and goes with a container of some instance; one that
        # hangs on nothing was left behind.
        "links": {link["ifname"] for link in _ip("link") if "master" not in link},
        "routes": {f"{r.get('type', '')} {r['dst']} {r.get('dev', '')}" for r in _ip("route")},
        "tables": set(_output("nft", "list", "tables").splitlines()),
        "cgroups": _cgroups(),
        "monitors": _monitors(),
    }


def left_behind(before: dict[str, set[str]], instance: Instance) -> dict[str, set[str]]:
    """What is there now and was not before, of this instance.

    Others come and go meanwhile: only what carries its directory's name or its slot's number
    counts, and the cable of a container, which has neither. (A network that a user made has no
    slot in its name, nor has the limit of a pod's bandwidth: these tests make none.) The slot is
    free by now; what carries its number is somebody else's where the next has taken it.
    """
    after = state()
    others = slots.holder(RUN_ROOT, instance.slot) not in (None, instance.data_dir)
    own = str(instance.data_dir), str(instance.run_dir)

    def counts(kind: str, entry: str) -> bool:
        if kind in ("mounts", "monitors"):
            return any(each in entry for each in own)
        if not others and _slot(entry) == instance.slot:
            return True
        return kind == "links" and bool(_CABLE.fullmatch(entry))

    left = {
        kind: {entry for entry in after[kind] - before[kind] if counts(kind, entry)}
        for kind in before
    }
    return {kind: entries for kind, entries in left.items() if entries}


def _slot(entry: str) -> int | None:
    """Whose name or range it carries, by the numbers that `wherry.launcher.instance` gives."""
    if found := re.search(r"wherry(\d+)", entry):
        return int(found[1])
    if found := re.search(r"\b10\.(\d+)\.", entry):
        number = int(found[1])
        return 244 - number if number > 200 else number - (150 if number > 150 else 96)
    return None


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _ip(what: str) -> list[dict[str, str]]:
    result: list[dict[str, str]] = json.loads(_output("ip", "-j", what, "show") or "[]")
    return result


def _cgroups() -> set[str]:
    # (os.walk passes over what goes away meanwhile; other instances come and go.)
    return {
        f"{directory}/{name}"
        for directory, children, _ in os.walk("/sys/fs/cgroup")
        for name in children
        if "wherry" in name
    }


def _monitors() -> set[str]:
    """Command lines of all processes that outlive a daemon: monitors, name servers."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if "/runtime/monitor/__main__.py" in command or " wherry.kube.dns " in command:
            found.add(command)
    return found
