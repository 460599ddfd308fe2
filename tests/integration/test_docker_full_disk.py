"""The engine on a disk that is full: it says so, and loses nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from docker_harness import Daemon


@pytest.fixture
def small_disk(tmp_path: Path):
    """An engine whose files are on a disk of 400 MB, of which images leave 256 MB free."""
    root = tmp_path / "disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", root], check=True)
    daemon = Daemon(root)
    try:
        daemon.start()
        daemon.import_busybox()
        yield daemon
        daemon.stop()
    finally:
        (root / "ballast").unlink(missing_ok=True)
        daemon.purge()
        subprocess.run(["umount", "-l", root], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_a_full_disk_refuses_clearly_and_loses_nothing(small_disk: Daemon) -> None:
    engine = small_disk
    engine.docker("run", "-d", "--name", "old", "busybox", "sh", "-c", "trap exit TERM; sleep 1000")
    engine.docker("create", "--name", "kept", "busybox", "true")
    fill(engine.root)
    refused = engine.docker("run", "-d", "--name", "new", "busybox", "true", ok=False)
    assert refused.code == 125
    assert "no space left on device" in refused.err.lower()
    assert engine.docker("volume", "create", "v", ok=False).code == 1
    assert engine.docker("network", "create", "n", ok=False).code == 1
    assert engine.docker("exec", "old", "echo", "alive").out == "alive\n"
    names = engine.docker("ps", "-a", "--format", "{{.Names}}").out.split()
    assert {"old", "kept"} <= set(names)
    engine.docker("kill", "old")
    assert engine.docker("wait", "old").out == "137\n"
    (engine.root / "ballast").unlink()
    engine.kill()
    engine.start()
    assert engine.inspect("old", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"
    engine.docker("rm", "-f", "new", ok=False)
    engine.docker("start", "old", "kept")
    engine.docker("run", "--rm", "busybox", "true")
    engine.remove_all()
    assert not engine.holdings()["mounts"] or engine.holdings()["mounts"] == [str(engine.root)]


def test_a_log_that_fills_the_disk_does_not_stop_its_container(small_disk: Daemon) -> None:
    engine = small_disk
    engine.docker("run", "-d", "--name", "loud", "busybox", "sh", "-c", "cat; exit 4")
    fill(engine.root)
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 5"
    engine.docker("create", "--name", "talks", "busybox", "sh", "-c", script, ok=False)
    (engine.root / "ballast").unlink()
    engine.docker("rm", "-f", "talks", ok=False)
    engine.docker("create", "--name", "talks", "busybox", "sh", "-c", "sleep 1; " + script)
    engine.docker("start", "talks")
    fill(engine.root)
    assert engine.docker("wait", "talks").out == "5\n"
