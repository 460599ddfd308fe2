"""``-v``, ``--mount``, ``--tmpfs``, ``--volumes-from``: the real client and the real engine."""

import io
import os
import re
import tarfile
import time

import pytest
from docker_harness import busybox_archive
from mounts_helper import run, shell, two_layers

pytest_plugins = ("docker_fixtures",)
pytestmark = pytest.mark.usefixtures("no_volumes")


@pytest.fixture(scope="module")
def layered(daemon):
    """An image of two layers with content, links and owners in it."""
    daemon.docker("load", input=two_layers("layered:1"))
    yield "layered:1"
    daemon.docker("rmi", "-f", "layered:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-v", "/a:/b:fast"), "invalid mode: fast"),
        (("-v", "/a:/"), "invalid volume specification: '/a:/': invalid mount config for type "
                         '"bind": invalid specification: destination can\'t be \'/\''),
        (("-v", "/a:/b", "-v", "/c:/b"), "Duplicate mount point: /b"),
        (("--tmpfs", "/b", "-v", "/c:/b"), "Duplicate mount point: /b"),
        (("-v", "a b:/x"), 'create a b: "a b" includes invalid characters for a local volume '
         'name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
         "directory, use absolute path"),
        (("--volumes-from", "nope"), "No such container: nope"),
        (("--volumes-from", "x:foo"), "invalid mode: foo"),
        (("--tmpfs", "b"), "invalid mount path: 'b' mount path must be absolute"),
        (("--mount", "type=volume,target=/b,readonly"), 'invalid mount config for type "volume": '
         "must not set ReadOnly mode when using anonymous volumes"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_in_docker_s_words(engine, arguments, message):
    done = engine.docker("create", *arguments, "busybox", ok=False)
    assert done.code == 1
    assert done.err.strip() == f"Error response from daemon: {message}"


# ---- what is shown


def test_inspect_and_ps_show_mounts_as_docker_does(engine, host):
    engine.docker(
        "create", "--name", "web", "-v", "data:/v", "-v", f"{host}:/b:ro", "-v", "/anon",
        "--tmpfs", "/t:size=1m", "--mount", "type=tmpfs,target=/m,tmpfs-size=2m",
        "--mount", "type=volume,source=data,target=/w,volume-nocopy", "busybox",
    )  # fmt: skip
    document = engine.inspect("web")
    anonymous = next(m["Name"] for m in document["Mounts"] if m["Destination"] == "/anon")

    def volume(name, destination, mode):
        source = str(engine.data / "volumes" / name / "_data")
        return {
            "Type": "volume", "Name": name, "Source": source, "Destination": destination,
            "Driver": "local", "Mode": mode, "RW": True, "Propagation": "",
        }  # fmt: skip

    assert sorted(document["Mounts"], key=lambda mount: mount["Destination"]) == [
        volume(anonymous, "/anon", ""),
        {
            "Type": "bind", "Source": str(host), "Destination": "/b", "Mode": "ro", "RW": False,
            "Propagation": "rprivate",
        },
        {
            "Type": "tmpfs", "Source": "", "Destination": "/m", "Mode": "", "RW": True,
            "Propagation": "",
        },
        volume("data", "/v", "z"),
        volume("data", "/w", "z"),
    ]  # fmt: skip
    assert document["Config"]["Volumes"] == {"/anon": {}}
    assert sorted(document["HostConfig"]["Binds"]) == [f"{host}:/b:ro", "data:/v"]
    assert document["HostConfig"]["Tmpfs"] == {"/t": "size=1m"}
    assert document["HostConfig"]["Mounts"] == [
        {"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 2 << 20}},
        {
            "Type": "volume", "Source": "data", "Target": "/w",
            "VolumeOptions": {"NoCopy": True, "DriverConfig": {}},
        },
    ]  # fmt: skip
    shown = engine.docker("ps", "-a", "--format", "{{.Mounts}} {{.LocalVolumes}}").out
    assert "data" in shown
    assert shown.split()[-1] == "3"
    for wanted, found in (("data", True), ("/v", True), (str(host), True), ("/t", False)):
        assert bool(engine.docker("ps", "-aq", "-f", f"volume={wanted}").out) == found
    plain = engine.docker("create", "busybox").out.strip()
    document = engine.inspect(plain)
    assert (document["Mounts"], document["Config"]["Volumes"]) == ([], None)
    assert "Mounts" not in document["HostConfig"]
    assert "Tmpfs" not in document["HostConfig"]


# ---- volumes take what the image has


def owners(text):
    lines = [line.split() for line in text.splitlines() if not line.startswith("total")]
    return {line[8]: (line[0], line[2], line[3]) for line in lines}


def test_an_empty_volume_takes_content_owners_and_modes(engine, layered):
    listing = ("-u", "0", layered, "ls", "-lna", "/data")
    before = owners(run(engine, *listing).out)
    assert before["."] == ("drwxr-s---", "33", "50")
    engine.docker("run", "--name", "web", "-v", "data:/data", *listing)
    after = owners(engine.docker("logs", "web").out)
    assert {name: after[name] for name in after if name != ".."} == {
        name: before[name] for name in before if name != ".."
    }
    script = "test /x/f -ef /x/same && readlink /x/link && echo two > /x/f"
    assert run(engine, "-u", "0", "-v", "data:/x", layered, "sh", "-c", script).out == "/data/f\n"
    # What is there is not touched again.
    assert run(engine, "-u", "0", "-v", "data:/data", layered, "cat", "/data/f").out == "two\n"


def test_nocopy_leaves_it_empty(engine, layered):
    for volume in (
        ("-v", "one:/data:nocopy"),
        ("--mount", "type=volume,source=two,target=/data,volume-nocopy"),
    ):
        assert run(engine, "-u", "0", *volume, layered, "ls", "-A", "/data").out == ""


def test_a_volume_below_another_takes_its_own_part(engine, layered):
    volumes = ("-v", "outer:/data", "-v", "inner:/data/sub", "-v", "top:/real")
    script = "ls /data; ls /real; stat -c %u:%g /data/sub"
    done = run(engine, "-u", "0", *volumes, layered, "sh", "-c", script)
    assert done.out == "f\nlink\nsame\nsub\nf\n33:50\n"


def test_a_target_that_is_a_link_is_followed_inside_the_container(engine, layered):
    volume = ("-v", "data:/linked")
    assert run(engine, "-u", "0", *volume, layered, "cat", "/real/f").out == "inside\n"
    before = sorted(os.listdir("/etc"))
    done = run(engine, "-u", "0", "-v", "up:/escape/new", layered, "ls", "-d", "/etc/new")
    assert done.out == "/etc/new\n"
    assert sorted(os.listdir("/etc")) == before


def test_a_volume_over_a_file_is_refused(engine):
    done = engine.docker("create", "-v", "data:/etc/passwd", "busybox", ok=False)
    assert re.search(r"daemon: source /.*/etc/passwd is not directory", done.err)
    done = engine.docker("create", "-v", "/etc/passwd", "busybox", ok=False)
    assert "cannot mount volume over existing file, file exists /" in done.err
    assert engine.docker("volume", "ls", "-q").out == "data\n"


def test_a_creation_that_fails_leaves_no_anonymous_volume(engine):
    mounts = [
        {"Type": "volume", "Target": "/b"},
        {
            "Type": "volume",
            "Source": "v2",
            "Target": "/y",
            "VolumeOptions": {"DriverConfig": {"Name": "nope"}},
        },
    ]
    body = {"Image": "busybox", "Volumes": {"/a": {}}, "HostConfig": {"Mounts": mounts}}
    done = engine.request("POST", "/containers/create", body)
    message = 'create v2: error looking up volume plugin nope: plugin "nope" not found'
    assert (done.status, done.body["message"]) == (404, message)
    assert engine.docker("volume", "ls", "-q").out == ""
    assert list((engine.data / "volumes").iterdir()) == []
    assert list((engine.data / "containers").iterdir()) == []


def test_a_part_of_a_volume(engine):
    script = "mkdir /v/sub; echo hi > /v/sub/f; ln -s sub /v/good; ln -s / /v/bad; echo x > /v/file"
    shell(engine, "-v", "data:/v", script)

    def part(subpath, script, ok=True):
        mount = f"type=volume,source=data,target=/x,volume-subpath={subpath}"
        return shell(engine, "--mount", mount, script, ok=ok)

    assert part("sub", "cat /x/f; touch /x/g").out == "hi\n"
    assert part("good", "ls /x").out == "f\ng\n"
    assert part("file", "cat /x").out == "x\n"
    path = engine.data / "volumes" / "data" / "_data"
    done = part("nope", "true", ok=False)
    assert f"daemon: cannot access path {path}/nope: no such file or directory" in done.err
    for subpath in ("bad", "bad/etc"):
        assert "path concatenation escapes the base directory" in part(subpath, "", ok=False).err
    done = part("../data", "true", ok=False)
    assert "subpath must be a relative path within the volume" in done.err


def test_an_image_can_be_mounted(engine, layered):
    mount = f"type=image,source={layered},target=/x"
    done = shell(engine, "--mount", mount, "cat /x/data/f; touch /x/data/g", ok=False)
    assert done.out == "one\n"
    assert "Read-only file system" in done.err
    done = shell(engine, "--mount", f"{mount},image-subpath=real", "ls /x")
    assert done.out == "f\n"
    engine.docker("run", "-d", "--name", "web", "--mount", mount, "busybox", "sleep", "100")
    shown = engine.inspect("web")["Mounts"][0]
    assert (shown["Type"], shown["Name"], shown["RW"]) == ("image", layered, False)
    assert "is using its referenced image" in (engine.docker("rmi", layered, ok=False).err)
    engine.kill()
    engine.start()
    assert engine.docker("exec", "web", "cat", "/x/data/f").out == "one\n"


# ---- volumes from others


def test_volumes_from_several_with_modes(engine, host):
    (host / "f").write_text("host\n")
    engine.docker("create", "--name", "one", "-v", "data:/v", "-v", f"{host}:/b", "busybox")
    engine.docker("create", "--name", "two", "-v", "other:/v", "--tmpfs", "/t", "busybox")
    shell(engine, "-v", "data:/v", "echo data > /v/f")
    shell(engine, "-v", "other:/v", "echo other > /v/f")
    chosen = ("--volumes-from", "one:ro", "--volumes-from", "two")
    done = shell(engine, *chosen, "cat /v/f /b/f; touch /v/g; touch /b/g; mount | grep -c ' /t '",
                 ok=False)  # fmt: skip
    assert done.out == "other\nhost\n0\n"
    assert done.err.count("Read-only file system") == 1
    chosen = ("--volumes-from", "two", "--volumes-from", "one", "-v", f"{host}:/v")
    assert shell(engine, *chosen, "cat /v/f").out == "host\n"
    assert shell(engine, "--volumes-from", "one:z", "cat /v/f").out == "data\n"
    engine.docker("create", "--name", "three", "--volumes-from", "one:ro", "busybox")
    assert engine.inspect("three")["HostConfig"]["VolumesFrom"] == ["one:ro"]
    mounts = {m["Destination"]: (m["RW"], m["Mode"]) for m in engine.inspect("three")["Mounts"]}
    assert mounts == {"/v": (False, ""), "/b": (False, "")}


# ---- tmpfs


@pytest.mark.parametrize(
    ("options", "shown", "mode"),
    [
        (("--tmpfs", "/t"), "rw,nosuid,nodev,noexec,relatime", "1777"),
        (
            ("--tmpfs", "/t:size=1m,mode=1770,uid=5,gid=6,exec"),
            "rw,nosuid,nodev,relatime,size=1024k,mode=1770,uid=5,gid=6",
            "1770",
        ),
        (("--tmpfs", "/t:ro,suid"), "ro,nodev,noexec,relatime", "1777"),
        (
            ("--mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700,readonly"),
            "ro,nosuid,nodev,noexec,relatime,size=1024k,mode=700",
            "700",
        ),
    ],
)
def test_tmpfs(engine, options, shown, mode):
    done = shell(engine, *options, "grep ' /t ' /proc/mounts; stat -c %a /t")
    line, found = done.out.splitlines()
    assert line.split()[3] == shown
    assert found == mode


def test_a_tmpfs_that_makes_no_sense_is_told_at_the_start(engine):
    done = shell(engine, "--tmpfs", "/t:foo", "true", ok=False)
    assert done.code == 125
    assert 'daemon: invalid tmpfs option ["foo"]' in done.err
    done = shell(engine, "--tmpfs", "/t:size=bad", "true", ok=False)
    assert 'error mounting "tmpfs" to rootfs at "/t"' in done.err


def test_a_read_only_root_leaves_mounts_writable(engine):
    script = "touch /t/f /v/f && for f in /x /etc/hosts; do touch $f || echo no; done"
    done = shell(engine, "--read-only", "--tmpfs", "/t", "-v", "data:/v", script)
    assert done.out == "no\nno\n"


def test_shared_memory_and_devices_can_be_replaced(engine):
    tmpfs = ("--mount", "type=tmpfs,target=/dev/shm,tmpfs-size=1m")
    assert "size=1024k" in shell(engine, *tmpfs, "grep ' /dev/shm ' /proc/mounts").out
    assert shell(engine, "-v", "/dev:/dev", "test -c /dev/pts/ptmx; test -c /dev/kmsg && echo all"
                 ).out == "all\n"  # fmt: skip


@pytest.mark.parametrize("target", ["/proc/sys", "/proc//self/attr", "/hidden/self"])
def test_nothing_lies_over_proc(engine, host, target):
    archive = io.BytesIO(busybox_archive())
    with tarfile.open(fileobj=archive, mode="a") as more:
        link = tarfile.TarInfo("hidden")
        link.type, link.linkname = tarfile.SYMTYPE, "proc"
        more.addfile(link)
    engine.docker("import", "-", "linked:1", input=archive.getvalue())
    options = (("-v", f"{host}:{target}"), ("-v", target), ("--tmpfs", target))
    for option in options:
        done = run(engine, *option, "linked:1", "/bin/true", ok=False)
        assert done.code == 125
        assert "cannot be mounted because it is inside /proc" in done.err
    engine.docker("rmi", "linked:1")
    done = shell(engine, "-v", f"{host}:/proc", "true", ok=False)
    assert '"/proc" cannot be mounted because it is not of type proc' in done.err
    (host / "f").write_text("mine\n")
    assert shell(engine, "-v", f"{host}/f:/proc/uptime", "cat /proc/uptime").out == "mine\n"


@pytest.mark.parametrize("runs", [False, True])
def test_cp_reaches_all_that_is_mounted(engine, host, layered, runs):
    (host / "f").write_text("host\n")
    device = ("-o", "type=none", "-o", "o=bind", "-o", f"device={host}")
    engine.docker("volume", "create", "far", *device)
    shell(engine, "-v", "data:/v", "mkdir /v/sub; echo part > /v/sub/f")
    engine.docker(
        "create", "--name", "web", "-v", "far:/far",
        "--mount", "type=volume,source=data,target=/part,volume-subpath=sub",
        "--mount", f"type=image,source={layered},target=/image,image-subpath=real",
        "busybox", "sleep", "100",
    )  # fmt: skip
    if runs:
        engine.docker("start", "web")
    for path, content in (("far", "host\n"), ("part", "part\n"), ("image", "inside\n")):
        engine.docker("cp", f"web:/{path}/f", str(host / "out"))
        assert (host / "out").read_text() == content
    engine.docker("cp", str(host / "f"), "web:/far/new")
    engine.docker("cp", str(host / "f"), "web:/part/new")
    assert (host / "new").read_text() == "host\n"
    assert (engine.data / "volumes" / "data" / "_data" / "sub" / "new").exists()
    assert "read-only" in engine.docker("cp", str(host / "f"), "web:/image/x", ok=False).err
    if not runs:
        deadline = time.monotonic() + 60
        while [line for line in engine.holdings()["mounts"] if "netns" not in line]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


# ---- bad luck


def test_a_daemon_killed_while_it_makes_a_container_leaves_no_anonymous_volume(engine, layered):
    for delay in (0.0, 0.002, 0.004, 0.006, 0.01):
        client = engine.spawn("create", "-v", "/data", "-v", "/y", "-v", "kept:/real", layered)
        while not list((engine.data / "volumes").iterdir()) and client.poll() is None:
            pass
        time.sleep(delay)
        engine.kill()
        client.wait()
        client.stdout.close()
        engine.start()
        made = engine.docker("ps", "-aq").out.split()
        anonymous = engine.docker("volume", "ls", "-q", "-f",
                                  "label=com.docker.volume.anonymous").out.split()  # fmt: skip
        assert len(anonymous) == 2 * len(made)
        assert not list((engine.data / "volumes").glob(".*"))
        if made:
            assert run(engine, "--volumes-from", made[0], "-u", "0", layered, "cat", "/data/f"
                       ).out == "one\n"  # fmt: skip
            engine.docker("rm", "-v", *made)
        if engine.docker("volume", "ls", "-q").out:
            engine.docker("volume", "rm", "kept")


def test_a_removal_cut_short_is_finished_with_its_volumes(engine):
    for delay in (0.0, 0.002, 0.005):
        engine.docker("create", "--name", "web", "-v", "/a", "-v", "/b", "busybox")
        client = engine.spawn("rm", "-v", "web")
        time.sleep(0.02 + delay)
        engine.kill()
        client.wait()
        client.stdout.close()
        engine.start()
        made = engine.docker("ps", "-aq").out.split()
        assert len(engine.docker("volume", "ls", "-q").out.split()) in (0, 2 * len(made))
        if made:
            engine.docker("rm", "-v", "web")
