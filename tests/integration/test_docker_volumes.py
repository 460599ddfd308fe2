"""``docker volume`` and the life of volumes: the real clients against the real engine."""

import json
import os
import re
import signal
import time
from pathlib import Path

import docker
import pytest
from docker_harness import busybox_archive, until

pytest_plugins = ("docker_fixtures",)


@pytest.fixture(autouse=True)
def no_volumes(daemon):
    yield
    daemon.remove_all()
    names = daemon.docker("volume", "ls", "-q").out.split()
    if names:
        daemon.docker("volume", "rm", *names)
    assert [path.name for path in (daemon.data / "volumes").iterdir()] == []
    assert not [line for line in Path("/proc/self/mounts").read_text().splitlines()
                if f"{daemon.data}/volumes" in line]  # fmt: skip


@pytest.fixture
def client(daemon):
    client = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    yield client
    client.close()


def names(engine, *filters):
    arguments = [word for one in filters for word in ("-f", one)]
    return engine.docker("volume", "ls", "-q", *arguments).out.split()


def events(engine, since):
    until = str(time.time() + 0.001)
    out = engine.docker(
        "events", "--since", since, "--until", until, "--filter", "type=volume", "--format", "json"
    ).out
    return [json.loads(line) for line in out.splitlines()]


def test_create_ls_inspect_rm(engine):
    assert engine.docker("volume", "create", "data", "--label", "a=b").out == "data\n"
    assert engine.docker("volume", "create", "data").out == "data\n"
    assert re.fullmatch(r"[0-9a-f]{64}\n", engine.docker("volume", "create").out)
    shown = json.loads(engine.docker("volume", "inspect", "data").out)[0]
    assert shown | {"CreatedAt": ""} == {
        "CreatedAt": "",
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": str(engine.data / "volumes" / "data" / "_data"),
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", shown["CreatedAt"])
    lines = engine.docker("volume", "ls").out.splitlines()
    assert lines[0].split() == ["DRIVER", "VOLUME", "NAME"]
    assert len(lines) == 3
    assert engine.docker("volume", "rm", "data").out == "data\n"
    assert len(names(engine)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "nope"), "get nope: no such volume"),
        (("rm", "nope"), "get nope: no such volume"),
        (
            ("create", "x"),
            "create x: volume name is too short, names should be at least two alphanumeric "
            "characters",
        ),
        (
            ("create", "../up"),
            'create ../up: "../up" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path",
        ),
        (
            ("create", "-d", "foo", "data"),
            'create data: error looking up volume plugin foo: plugin "foo" not found',
        ),
        (("create", "-o", "foo=bar", "data"), 'create data: invalid option: "foo"'),
        (("create", "-o", "type=tmpfs", "data"), 'create data: missing required option: "device"'),
        (
            ("create", "-o", "size=1m", "data"),
            "create data: quota size requested but no quota support",
        ),
        (("ls", "-f", "dangling=maybe"), "invalid filter 'dangling=[maybe]'"),
        (("ls", "-f", "colour=red"), "invalid filter 'colour'"),
        (("prune", "-f", "--filter", "until=1h"), "invalid filter 'until'"),
    ],
)
def test_what_cannot_be_done_is_told_in_docker_s_words(engine, arguments, message):
    done = engine.docker("volume", *arguments, ok=False)
    assert done.code == 1
    assert done.err.strip() == f"Error response from daemon: {message}"


def test_removing_what_is_not_there_by_force_is_no_error(engine):
    engine.docker("volume", "rm", "-f", "nope")


def test_filters(engine):
    engine.docker("volume", "create", "used-1", "--label", "tier=db")
    engine.docker("volume", "create", "free-1", "--label", "tier=web")
    engine.docker("create", "-v", "used-1:/x", "busybox")
    assert names(engine, "dangling=true") == ["free-1"]
    assert names(engine, "dangling=false") == ["used-1"]
    assert names(engine, "name=^used") == ["used-1"]
    assert names(engine, "label=tier") == ["free-1", "used-1"]
    assert names(engine, "label=tier=web") == ["free-1"]
    assert names(engine, "driver=local", "name=free") == ["free-1"]
    assert names(engine, "driver=nfs") == []


def test_what_is_in_use_is_not_removed(engine):
    first = engine.docker("create", "-v", "data:/x", "busybox").out.strip()
    second = engine.docker("run", "-d", "-v", "data:/y", "busybox", "sleep", "100").out.strip()
    for force in ((), ("-f",)):
        done = engine.docker("volume", "rm", *force, "data", ok=False)
        assert done.code == 1
        assert "remove data: volume is in use - [" in done.err
        assert first in done.err
        assert second in done.err
    engine.kill()
    engine.start()
    assert "volume is in use" in engine.docker("volume", "rm", "data", ok=False).err
    engine.docker("rm", "-f", first, second)
    engine.docker("volume", "rm", "data")


def test_a_volume_outlives_its_containers(engine):
    engine.docker("run", "--rm", "-v", "data:/x", "busybox", "sh", "-c", "echo kept > /x/f")
    engine.kill()
    engine.start()
    assert engine.docker("run", "--rm", "-v", "data:/y", "busybox", "cat", "/y/f").out == "kept\n"


def test_anonymous_volumes_go_with_rm_v_and_with_rm_of_run(engine):
    engine.docker("run", "--name", "web", "-v", "/anon", "-v", "named:/x", "busybox")
    assert len(names(engine)) == 2
    engine.docker("rm", "web")
    assert len(names(engine)) == 2
    engine.docker("volume", "prune", "-f")
    assert names(engine) == ["named"]
    mount = ("--mount", "type=volume,target=/y")
    engine.docker("run", "--name", "web", "-v", "/anon", *mount, "-v", "named:/x", "busybox")
    assert len(names(engine)) == 3
    engine.docker("rm", "-v", "web")
    assert names(engine) == ["named"]
    engine.docker("run", "--rm", "-v", "/anon", "-v", "named:/x", "busybox")
    assert names(engine) == ["named"]
    engine.docker("run", "--rm", "-v", "/anon", "busybox", "no-such-program", ok=False)
    deadline = time.monotonic() + 60
    while engine.docker("ps", "-aq").out:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert names(engine) == ["named"]


def test_what_another_takes_over_stays_until_the_last(engine):
    engine.docker("run", "--name", "first", "-v", "/anon", "busybox", "touch", "/anon/f")
    engine.docker("run", "--name", "second", "--volumes-from", "first", "busybox", "ls", "/anon/f")
    engine.docker("rm", "-v", "first")
    assert len(names(engine)) == 1
    engine.docker("rm", "-v", "second")
    assert names(engine) == []


def test_volumes_of_the_image_are_made_and_labelled(engine):
    change = ("-c", "VOLUME /data", "-c", "VOLUME /tmp", "-c", 'CMD ["true"]')
    engine.docker("import", *change, "-", "withvol:1", input=busybox_archive())
    id = engine.docker("create", "-v", "mine:/data", "withvol:1").out.strip()
    document = engine.inspect(id)
    assert document["Config"]["Volumes"] == {"/data": {}, "/tmp": {}}
    mounts = {mount["Destination"]: mount for mount in document["Mounts"]}
    assert mounts["/data"]["Name"] == "mine"
    made = json.loads(engine.docker("volume", "inspect", mounts["/tmp"]["Name"]).out)[0]
    assert made["Labels"] == {"com.docker.volume.anonymous": ""}
    assert Path(made["Mountpoint"]).stat().st_mode & 0o7777 == 0o1777
    engine.docker("rm", "-v", id)
    engine.docker("rmi", "withvol:1")


def test_prune_takes_anonymous_ones_and_with_all_the_others(engine, client):
    engine.docker("volume", "create", "plain")
    engine.docker("volume", "create", "kept", "--label", "keep")
    opts = ("-o", "type=tmpfs", "-o", "device=tmpfs")
    engine.docker("volume", "create", "elsewhere", *opts)
    anonymous = engine.docker("volume", "create").out.strip()
    Path(engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", anonymous).out.strip(),
         "f").write_bytes(b"x" * 1000)  # fmt: skip
    engine.docker("run", "--name", "web", "-v", "used:/x", "busybox")
    done = engine.docker("volume", "prune", "-f")
    assert done.out == f"Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 1kB\n"
    engine.docker("volume", "prune", "-f", "--all", "--filter", "label!=keep")
    assert names(engine) == ["elsewhere", "kept", "used"]
    # Before 1.42 all that nobody used went.
    old = docker.APIClient(base_url=f"unix://{engine.socket}", version="1.41")
    assert old.prune_volumes() == {"VolumesDeleted": ["kept"], "SpaceReclaimed": 0}
    old.close()
    assert client.volumes.prune() == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    engine.docker("system", "prune", "-f", "--volumes")
    assert names(engine) == ["elsewhere", "used"]


def test_disk_usage_counts_volumes(engine, client):
    engine.docker("run", "-d", "-v", "data:/x", "busybox", "dd", "if=/dev/zero", "of=/x/f",
                  "bs=1000", "count=5")  # fmt: skip
    engine.docker("wait", engine.docker("ps", "-lq").out.strip())
    engine.docker("volume", "create", "far", "-o", "type=tmpfs", "-o", "device=tmpfs")
    found = client.df()["Volumes"]
    assert [(one["Name"], one["UsageData"]) for one in found] == [
        ("data", {"RefCount": 1, "Size": 5000})
    ]
    assert re.search(r"^data +1 +5kB$", engine.docker("system", "df", "-v").out, re.MULTILINE)
    line = next(
        line for line in engine.docker("system", "df").out.splitlines() if "Local Volumes" in line
    )
    assert line.split()[2:5] == ["1", "1", "5kB"]


def test_docker_py_knows_volumes(engine, client):
    made = client.volumes.create("data", labels={"a": "b"}, driver="local")
    assert (made.name, made.attrs["Labels"]) == ("data", {"a": "b"})
    assert [one.name for one in client.volumes.list(filters={"label": "a=b"})] == ["data"]
    Path(made.attrs["Mountpoint"], "f").write_text("1\n")
    (engine.root / "f").write_text("2\n")
    volumes = {"data": {"bind": "/x", "mode": "ro"}, str(engine.root): {"bind": "/y"}}
    out = client.containers.run("busybox", "cat /x/f /y/f", remove=True, volumes=volumes)
    assert out == b"1\n2\n"
    made.remove()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get("data")
    with pytest.raises(docker.errors.APIError) as caught:
        client.volumes.create("data", driver="foo")
    assert caught.value.status_code == 404


def test_events_tell_of_volumes(engine):
    since = str(time.time())
    engine.docker("volume", "create", "data")
    id = engine.docker("create", "-v", "data:/x:ro", "busybox").out.strip()
    engine.docker("start", "-a", id)
    engine.docker("rm", id)
    engine.docker("volume", "rm", "data")
    engine.docker("volume", "prune", "-f")
    told = [
        (e["Action"], e["Actor"]["ID"], e["Actor"]["Attributes"]) for e in events(engine, since)
    ]
    mounted = {"container": id, "destination": "/x", "driver": "local", "propagation": ""}
    assert told == [
        ("create", "data", {"driver": "local"}),
        ("mount", "data", {**mounted, "read/write": "false"}),
        ("unmount", "data", {"container": id, "driver": "local"}),
        ("destroy", "data", {"driver": "local"}),
        ("prune", "", {"reclaimed": "0"}),
    ]


def tmpfs(engine, name, *options):
    engine.docker("volume", "create", name, "-o", "type=tmpfs", "-o", "device=tmpfs", *options)
    return engine.data / "volumes" / name / "_data"


def is_mounted(path):
    return f" {path} " in Path("/proc/self/mounts").read_text()


def test_options_are_mounted_at_the_first_use_until_the_last(engine):
    path = tmpfs(engine, "mem", "-o", "o=size=1m,uid=7,nosuid")
    assert not is_mounted(path)
    for name in ("one", "two"):
        engine.docker("run", "-d", "--name", name, "-v", "mem:/x", "busybox", "sleep", "100")
    assert is_mounted(path)
    shown = engine.docker("exec", "one", "grep", " /x ", "/proc/mounts").out
    assert re.search(r"tmpfs rw,nosuid,.*size=1024k,uid=7", shown)
    engine.docker("exec", "one", "touch", "/x/f")
    engine.docker("exec", "two", "ls", "/x/f")
    engine.docker("rm", "-f", "one")
    assert is_mounted(path)
    engine.docker("rm", "-f", "two")
    assert not is_mounted(path)


@pytest.mark.parametrize("end", ["while the daemon is away", "later"])
def test_a_killed_daemon_finds_its_mounts(engine, end):
    path = tmpfs(engine, "mem")
    engine.docker("run", "-d", "--name", "web", "-v", "mem:/x", "busybox", "sleep", "100")
    pid = engine.inspect("web", "{{.State.Pid}}")
    engine.kill()
    if end != "later":
        os.kill(int(pid), signal.SIGKILL)
    engine.start()
    if end == "later":
        assert is_mounted(path)
        engine.docker("run", "--rm", "-v", "mem:/x", "busybox")
        assert is_mounted(path)
        engine.docker("kill", "web")
    engine.docker("wait", "web")
    until(lambda: not is_mounted(path))
    engine.docker("start", "web")
    assert is_mounted(path)


def test_a_directory_of_the_host_as_a_volume(engine):
    (engine.root / "host").mkdir()
    (engine.root / "host" / "f").write_text("there\n")
    engine.docker("volume", "create", "host", "-o", "type=none", "-o", "o=bind",
                  "-o", f"device={engine.root}/host")  # fmt: skip
    assert engine.docker("run", "--rm", "-v", "host:/x", "busybox", "cat", "/x/f").out == "there\n"
    engine.docker("volume", "rm", "host")
    assert (engine.root / "host" / "f").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("-o", "type=none", "-o", "o=bind", "-o", "device=/no/such"),
            "failed to mount local volume: mount /no/such:{path}, flags: 0x1000: "
            "no such file or directory",
        ),
        (
            ("-o", "type=foofs", "-o", "o=ro,fast", "-o", "device=/dev/x"),
            "failed to mount local volume: mount /dev/x:{path}, flags: 0x1, data: fast: "
            "no such device",
        ),
    ],
)
def test_what_cannot_be_mounted_is_told(engine, options, message):
    engine.docker("volume", "create", "bad", *options)
    path = engine.data / "volumes" / "bad" / "_data"
    done = engine.docker("run", "--rm", "-v", "bad:/x", "busybox", ok=False)
    message = message.format(path=path)
    assert f"daemon: error while mounting volume '{path}': {message}" in done.err
    # Where the image has content for it, the volume is needed when the container is made.
    done = engine.docker("create", "-v", "bad:/etc", "busybox", ok=False)
    assert f"daemon: {message}" in done.err


def test_there_are_no_cluster_volumes(engine):
    done = engine.request("PUT", "/volumes/x?version=1", {})
    assert done.status == 503
    assert done.body["message"].startswith("This node is not a swarm manager.")
    done = engine.request("POST", "/volumes/create", {"ClusterVolumeSpec": {"Group": "g"}})
    assert done.status == 503
