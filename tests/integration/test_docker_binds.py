"""Directories and files of the host in containers: the real client and the real engine."""

import re
import stat
import subprocess
from pathlib import Path

import pytest
from mounts_helper import shell

pytest_plugins = ("docker_fixtures",)
pytestmark = pytest.mark.usefixtures("no_volumes")


def test_a_bind_is_made_by_v_and_not_by_mount(engine, host):
    shell(engine, "-v", f"{host}/a/b:/x", "touch /x/f")
    assert (host / "a" / "b" / "f").exists()
    assert stat.S_IMODE((host / "a" / "b").stat().st_mode) == 0o755
    done = shell(engine, "--mount", f"type=bind,source={host}/no,target=/x", "true", ok=False)
    assert done.code == 125
    assert (
        f'daemon: invalid mount config for type "bind": bind source path does not exist: {host}/no'
        in done.err
    )
    assert not (host / "no").exists()


def test_a_source_that_went_away_is_told_at_the_start(engine, host):
    (host / "a").mkdir()
    mount = f"type=bind,source={host}/a,target=/x"
    engine.docker("create", "--name", "web", "--mount", mount, "busybox")
    (host / "a").rmdir()
    done = engine.docker("start", "web", ok=False)
    assert f"bind source path does not exist: {host}/a" in done.err
    (host / "a").mkdir()
    engine.docker("start", "web")


def test_single_files_sockets_and_devices_can_be_mounted(engine, host):
    (host / "f").write_text("mine\n")
    assert shell(engine, "-v", f"{host}/f:/etc/passwd:ro", "cat /etc/passwd").out == "mine\n"
    assert shell(engine, "-v", f"{host}/f:/new/deep/file", "cat /new/deep/file").out == "mine\n"
    assert shell(engine, "-v", f"{engine.socket}:/var/run/docker.sock",
                 "test -S /var/run/docker.sock && echo yes").out == "yes\n"  # fmt: skip
    assert shell(engine, "-v", "/dev/zero:/x", "head -c 2 /x | wc -c").out == "2\n"


def test_a_directory_over_a_file_is_refused_with_docker_s_hint(engine, host):
    (host / "f").write_text("")
    for source, target in ((host, "/etc/passwd"), (host / "f", "/etc")):
        done = shell(engine, "-v", f"{source}:{target}", "true", ok=False)
        assert f'error mounting "{source}" to rootfs at "{target}"' in done.err
        assert "Are you trying to mount a directory onto a file (or vice-versa)?" in done.err


def test_read_only_reaches_what_is_mounted_below(engine, host):
    (host / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host / "sub"], check=True)
    try:
        script = "touch /x/f; touch /x/sub/f"
        done = shell(engine, "-v", f"{host}:/x:ro", script, ok=False)
        assert done.err.count("Read-only file system") == 2
        mount = f"type=bind,source={host},target=/x,readonly"
        done = shell(engine, "--mount", mount, script, ok=False)
        assert done.err.count("Read-only file system") == 2
        # As it was before, and as old clients expect it.
        done = shell(engine, "--mount", f"{mount},bind-recursive=writable", script, ok=False)
        assert done.err.count("Read-only file system") == 1
        assert (host / "sub" / "f").exists()
        forced = f"{mount},bind-recursive=readonly,bind-propagation=rprivate"
        done = shell(engine, "--mount", forced, script, ok=False)
        assert done.err.count("Read-only file system") == 2
        shell(engine, "--mount", f"{mount},bind-recursive=disabled", "test ! -e /x/sub/f")
    finally:
        subprocess.run(["umount", host / "sub"], check=True)


def test_what_the_source_s_mount_forbids_stays_forbidden(engine, host):
    options = "size=1m,nosuid,nodev,noexec"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", host], check=True)
    try:
        shown = shell(engine, "-v", f"{host}:/x", "grep ' /x ' /proc/mounts").out
        assert re.search(r"tmpfs rw,nosuid,nodev,noexec,", shown)
        subprocess.run(["mount", "-o", "remount,bind,ro", host], check=True)
        assert "Read-only" in shell(engine, "-v", f"{host}:/x", "touch /x/f", ok=False).err
    finally:
        subprocess.run(["umount", host], check=True)


@pytest.fixture
def shared(host):
    """A shared mount."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host], check=True)
    subprocess.run(["mount", "--make-shared", host], check=True)
    (host / "sub").mkdir()
    yield host
    subprocess.run(["umount", "-R", host], check=True)


@pytest.mark.parametrize(
    ("mode", "seen", "spread"),
    [("rshared", True, True), ("rslave", True, False), ("rprivate", False, False)],
)
def test_propagation(engine, shared, mode, seen, spread):
    volume = ("-v", f"{shared}:/x:{mode}")
    engine.docker("run", "-d", "--name", "web", "--privileged", *volume, "busybox", "sleep", "100")
    assert engine.inspect("web", "{{(index .Mounts 0).Propagation}}") == mode
    subprocess.run(["mount", "-t", "tmpfs", "outer", shared / "sub"], check=True)
    found = engine.docker("exec", "web", "grep", "-c", "^outer", "/proc/mounts", ok=False).out
    assert (found.strip() == "1") == seen
    engine.docker("exec", "web", "mkdir", "-p", "/x/in")
    engine.docker("exec", "web", "mount", "-t", "tmpfs", "inner", "/x/in")
    assert (f"inner {shared}/in " in Path("/proc/self/mounts").read_text()) == spread


@pytest.mark.parametrize(("mode", "what"), [("shared", "shared"), ("slave", "shared or slave")])
def test_a_private_source_cannot_propagate(engine, host, mode, what):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", host], check=True)
    subprocess.run(["mount", "--make-private", host], check=True)
    try:
        done = shell(engine, "-v", f"{host}:/x:{mode}", "true", ok=False)
        assert done.code == 125
        assert f"path {host} is mounted on {host} but it is not a {what} mount" in done.err
    finally:
        subprocess.run(["umount", host], check=True)
