"""What is mounted on this machine, by whomsoever; in mount namespaces of the tests' own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# No UTF-8; and what Python takes for the end of a line, or for a space.
ODD = b"a\xff b\r\xe2\x80\xa8c\x0b\x85\xc2\xa0d"

SEEN = """
import subprocess, sys
from pathlib import Path
from wherry.engine.container import mount_sources
from wherry.kube.kubelet.volumes import mounts
from wherry.launcher import requirements
from wherry.runtime import cgroups, rootfs

root, place = map(Path, sys.argv[1:])
subprocess.run(("mount", "-t", "tmpfs", "none", place), check=True)
assert cgroups.discover().trees
assert not any("cgroup" in fault for fault in requirements.missing())
assert mount_sources.source_mount(str(place))[0] == str(place)
for module in (rootfs, mounts):
    assert module.mounts_below(root) == [place], module
mounts.remove_tree(root)
assert not root.exists()
"""

PEERS = """
import subprocess, sys
from pathlib import Path
from wherry.kube.kubelet.volumes import mounts

root = Path(sys.argv[1])
one, other = root / "one", root / "other"
for place in (one, other):
    place.mkdir(parents=True)
for words in (
    ("-t", "tmpfs", "none", one),
    ("--make-shared", one),
    ("--bind", one, other),
):
    subprocess.run(("mount", *words), check=True)
(one / "within").mkdir()
subprocess.run(("mount", "-t", "tmpfs", "none", one / "within"), check=True)
assert len(mounts.mounts_below(root)) == 4
mounts.remove_tree(root)
assert not root.exists()
"""


def alone(script: str, *arguments: bytes) -> None:
    """Run ``script`` where its mounts are nobody else's."""
    argv = ["unshare", "--mount", sys.executable, "-c", script, *arguments]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def test_a_mount_may_have_any_name(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path) + b"/root"
    place = root + b"/" + ODD
    os.makedirs(place)
    alone(SEEN, root, place)


def test_what_goes_with_its_peer_is_no_hindrance(tmp_path: Path) -> None:
    alone(PEERS, os.fsencode(tmp_path / "root"))
