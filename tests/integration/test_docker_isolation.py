"""What a container may see and do, by the real client."""

import json
import os
from pathlib import Path

import pytest
from docker_harness import until

pytest_plugins = ("docker_fixtures",)

V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()

MEMORY = "memory" if V1 else "."


def run(engine, *options, command, ok=True):
    return engine.docker("run", "--rm", *options, "busybox", *command, ok=ok)


def sh(engine, script, *options, ok=True):
    return run(engine, *options, command=("sh", "-c", script), ok=ok)


def start(engine, name, *options, command=("sleep", "100")):
    return engine.docker("run", "-d", "--name", name, *options, "busybox", *command).out.strip()


def capabilities(engine, *options):
    """The effective set as a number."""
    out = sh(engine, "grep CapEff /proc/self/status", *options).out
    return int(out.split()[1], 16)


CHOWN, NET_ADMIN, NET_RAW, SYS_ADMIN = 1 << 0, 1 << 12, 1 << 13, 1 << 21
DEFAULT = 0x00000000A80425FB


def ours():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff"):
            return int(line.split()[1], 16)
    raise AssertionError


def test_capabilities(engine):
    assert capabilities(engine) == DEFAULT
    assert capabilities(engine, "--cap-add", "net_admin") == DEFAULT | NET_ADMIN
    assert capabilities(engine, "--cap-drop", "CHOWN") == DEFAULT & ~CHOWN
    assert capabilities(engine, "--cap-drop", "ALL", "--cap-add", "NET_RAW") == NET_RAW
    everything = capabilities(engine, "--privileged")
    assert everything == ours()
    assert capabilities(engine, "--cap-add", "ALL", "--cap-drop", "CHOWN") == everything & ~CHOWN
    assert capabilities(engine, "--user", "web") == 0


def test_system_calls_are_filtered(engine):
    assert "Seccomp:\t2" in sh(engine, "cat /proc/self/status").out
    assert (
        "Seccomp:\t0"
        in sh(engine, "cat /proc/self/status", "--security-opt", "seccomp=unconfined").out
    )
    assert "Seccomp:\t0" in sh(engine, "cat /proc/self/status", "--privileged").out
    refused = sh(engine, "unshare -U true", ok=False)
    assert "Operation not permitted" in refused.err


def test_a_profile_of_one_s_own(engine, tmp_path):
    profile = tmp_path / "profile.json"
    profile.write_text(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
            }
        )
    )
    done = sh(engine, "mkdir /x", "--security-opt", f"seccomp={profile}", ok=False)
    assert "Operation not permitted" in done.err


def test_a_broken_profile_is_refused(engine, tmp_path):
    profile = tmp_path / "profile.json"
    profile.write_text('{"syscalls": 7}')
    done = sh(engine, "true", "--security-opt", f"seccomp={profile}", ok=False)
    assert done.code == 125
    assert "Decoding seccomp profile failed" in done.err


def test_no_new_privileges(engine):
    status = "grep NoNewPrivs /proc/self/status"
    assert sh(engine, status).out.split()[1] == "0"
    assert sh(engine, status, "--security-opt", "no-new-privileges").out.split()[1] == "1"
    assert sh(engine, status, "--security-opt", "no-new-privileges=false").out.split()[1] == "0"


def test_security_options(engine):
    done = sh(engine, "true", "--security-opt", "label=type:x")
    assert "SELinux is not available" in done.err
    sh(engine, "true", "--security-opt", "apparmor=whatever")
    done = sh(engine, "true", "--security-opt", "magic=on", ok=False)
    assert 'invalid --security-opt 2: "magic=on"' in done.err
    done = engine.docker("run", "--rm", "--cap-add", "FLY", "busybox", "true", ok=False)
    assert 'invalid CapAdd: unknown capability: "CAP_FLY"' in done.err


def test_hidden_and_protected_paths(engine):
    assert sh(engine, "cat /proc/kcore | wc -c").out.strip() == "0"
    assert "Read-only file system" in sh(engine, "echo 1 > /proc/sys/kernel/sem", ok=False).err
    assert "Read-only file system" in sh(engine, f"mkdir /sys/fs/cgroup/{MEMORY}/x", ok=False).err
    open_ = ("--security-opt", "systempaths=unconfined")
    assert " /proc/kcore " not in sh(engine, "cat /proc/mounts", *open_).out
    start(engine, "web")
    shown = engine.inspect("web")["HostConfig"]
    assert "/proc/kcore" in shown["MaskedPaths"] and "/proc/sys" in shown["ReadonlyPaths"]


def test_a_privileged_container_has_devices_and_may_write(engine):
    script = "ls /dev | wc -l; mkdir /m && mount -t tmpfs x /m; grep -w /sys /proc/mounts"
    out = sh(engine, script, "--privileged").out
    assert int(out.splitlines()[0]) > 15
    assert " rw," in out.splitlines()[-1]
    assert " ro," in sh(engine, "grep -w /sys /proc/mounts").out
    start(engine, "web", "--privileged")
    assert engine.inspect("web", "{{.HostConfig.SecurityOpt}}") == "[label=disable]"
    assert engine.inspect("web", "{{.HostConfig.MaskedPaths}}") == "[]"


def test_devices(engine):
    done = sh(
        engine, "ls -l /dev/mine; head -c 3 /dev/mine | wc -c", "--device", "/dev/zero:/dev/mine"
    )
    assert "1,   5" in done.out and done.out.endswith("3\n")

    readable = ("--device", "/dev/loop-control:/dev/mine:r")
    sh(engine, "exec 3</dev/mine", *readable)
    done = sh(engine, "exec 3>/dev/mine", *readable, ok=False)
    assert "Operation not permitted" in done.err
    assert "ptmx" in sh(engine, "ls /dev/x", "--device", "/dev/pts:/dev/x").out
    for device, text in (("/dev/nope", "no such file or directory"), ("/etc", "not a device node")):
        done = sh(engine, "true", "--device", device, ok=False)
        assert done.code != 0
        assert (
            f'error gathering device information while adding custom device "{device}": {text}'
            in done.err
        )


def test_rules_for_devices_that_the_container_makes(engine):
    script = "mknod /x c 1 5 && head -c 1 /x | wc -c"
    assert sh(engine, "mknod /x b 200 1; head -c 1 /x", ok=False).code != 0
    assert sh(engine, script).out == "1\n"
    made = "mknod /x c 10 200; cat /x"
    assert "Operation not permitted" in sh(engine, made, ok=False).err
    allowed = sh(engine, made, "--device-cgroup-rule", "c 10:* rmw", ok=False)
    assert "Operation not permitted" not in allowed.err


def test_drivers_of_devices_are_refused(engine):
    done = sh(engine, "true", "--gpus", "all", ok=False)
    assert 'could not select device driver "" with capabilities: [[gpu]]' in done.err


def test_a_root_file_system_that_is_read_only(engine):
    done = sh(engine, "touch /x", "--read-only", ok=False)
    assert "Read-only file system" in done.err
    sh(engine, "touch /dev/shm/x /tmp/x", "--read-only", "--tmpfs", "/tmp")


def test_shared_memory(engine):
    size = "df -k /dev/shm | tail -1 | awk '{print $2}'"
    assert sh(engine, size).out == "65536\n"
    assert sh(engine, size, "--shm-size", "8m").out == "8192\n"


def test_limits_of_processes(engine):
    assert sh(
        engine, "ulimit -n; ulimit -c", "--ulimit", "nofile=1000:2000", "--ulimit", "core=0"
    ).out == ("1000\n0\n")
    done = sh(engine, "true", "--ulimit", "nofile=10:5", ok=False)
    assert "ulimit soft limit must be less than or equal to hard limit: 10 > 5" in done.err


# ---- sysctls


def test_sysctls_of_the_container_s_namespaces(engine):
    out = sh(
        engine,
        "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max",
        *("--sysctl", "net.core.somaxconn=77", "--sysctl", "kernel.msgmax=9000"),
        *("--sysctl", "fs.mqueue.msg_max=20"),
    ).out
    assert out.split() == ["77", "9000", "20"]


@pytest.mark.parametrize(
    ("options", "name", "text"),
    [
        (("--network", "host"), "net.ipv4.ip_forward", "not allowed in host network namespace"),
        (("--ipc", "host"), "kernel.msgmax", "is not allowed in the hosts ipc namespace"),
    ],
)
def test_sysctls_of_the_host_are_refused(engine, options, name, text):
    done = sh(engine, "true", *options, "--sysctl", f"{name}=1", ok=False)
    assert f'OCI runtime create failed: runc create failed: sysctl "{name}" {text}' in done.err


@pytest.mark.parametrize("name", ["kernel.pid_max", "vm.swappiness", "fs.file-max"])
def test_sysctls_without_a_namespace_are_refused(engine, name):
    host = {"Sysctls": {name: "1"}}
    body = {"Image": "busybox", "HostConfig": host}
    engine.request("POST", "/containers/create?name=web", body)
    done = engine.docker("start", "web", ok=False)
    assert f'sysctl "{name}" is not in a separate kernel namespace' in done.err


# ---- namespaces


def namespace(kind, pid="self"):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


@pytest.mark.parametrize(
    ("kind", "option"), [("pid", "--pid"), ("ipc", "--ipc"), ("uts", "--uts"), ("net", "--network")]
)
def test_namespaces_are_the_container_s_own_or_the_host_s(engine, kind, option):
    start(engine, "own")
    start(engine, "host", option, "host")
    pid = engine.inspect("own", "{{.State.Pid}}")
    assert namespace(kind, pid) != namespace(kind)
    assert namespace(kind, engine.inspect("host", "{{.State.Pid}}")) == namespace(kind)


@pytest.mark.parametrize(("kind", "option"), [("pid", "--pid"), ("ipc", "--ipc")])
def test_namespaces_of_another_container(engine, kind, option):
    start(engine, "first", "--ipc", "shareable", command=("sleep", "77"))
    start(engine, "second", option, "container:first")
    pids = [engine.inspect(name, "{{.State.Pid}}") for name in ("first", "second")]
    assert namespace(kind, pids[0]) == namespace(kind, pids[1])
    if kind == "pid":
        assert "sleep 77" in engine.docker("exec", "second", "ps").out
    else:
        engine.docker("exec", "first", "touch", "/dev/shm/here")
        assert engine.docker("exec", "second", "ls", "/dev/shm").out == "here\n"


def test_namespaces_that_cannot_be_joined(engine):
    first = start(engine, "first", "--ipc", "private")
    done = sh(engine, "true", "--ipc", "container:first", ok=False)
    assert f"container {first}: non-shareable IPC (hint: use IpcMode:shareable" in done.err
    engine.docker("create", "--name", "idle", "busybox")
    done = sh(engine, "true", "--pid", "container:idle", ok=False)
    assert "is not running" in done.err
    done = sh(engine, "true", "--pid", "container:nope", ok=False)
    assert "No such container: nope" in done.err


def test_without_ipc_there_is_no_shared_memory(engine):
    assert "/dev/shm" not in sh(engine, "cat /proc/mounts", "--ipc", "none").out


def test_groups_are_hidden_or_shown(engine):
    private = sh(engine, "cat /proc/self/cgroup", "--cgroupns", "private").out
    assert all(line.endswith(":/") for line in private.splitlines() if "wherry" in line or not V1)
    host = sh(engine, "cat /proc/self/cgroup", "--cgroupns", "host").out
    assert "/wherry" in host
    engine.docker("create", "--name", "web", "busybox")
    mode = engine.inspect("web", "{{.HostConfig.CgroupnsMode}}")
    assert mode == ("host" if V1 else "private")


def test_a_parent_group(engine):
    out = sh(engine, "cat /proc/self/cgroup", "--cgroup-parent", "/mine", "--cgroupns", "host").out
    assert "/mine/" in out


def test_names_of_the_host(engine):
    assert sh(engine, "hostname", "--hostname", "box_1").out == "box_1\n"
    shown = sh(engine, "cat /proc/sys/kernel/domainname; hostname", "--domainname", "example.com")
    assert shown.out.splitlines()[0] == "example.com"
    done = sh(engine, "true", "--uts", "host", "--hostname", "x", ok=False)
    assert "conflicting options: hostname and the UTS mode" in done.err
    done = sh(engine, "true", "--hostname", "x" * 70, ok=False)
    assert done.code in (125, 128) and "sethostname" in done.err


# ---- users


def test_users_by_name_and_number(engine):
    assert (
        sh(engine, "id", "--user", "web").out == "uid=33(web) gid=33(web) groups=33(web),50(log)\n"
    )
    assert sh(engine, "id -u; id -g", "--user", "1234:50").out == "1234\n50\n"
    assert sh(engine, "id -u; id -g", "--user", "root:log").out == "0\n50\n"
    groups = sh(engine, "id -G", "--group-add", "log", "--group-add", "777").out.split()
    assert {"0", "50", "777"} <= set(groups)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--user", "nobody2"), "unable to find user nobody2: no matching entries in passwd file"),
        (
            ("--user", "0:nogroup2"),
            "unable to find group nogroup2: no matching entries in group file",
        ),
        (("--user", "4294967296"), "uids and gids must be in range 0-2147483647"),
        (("--group-add", "nope"), "Unable to find group nope: no matching entries in group file"),
    ],
)
def test_users_that_are_not_there(engine, options, text):
    done = sh(engine, "true", *options, ok=False)
    assert done.code == 125
    assert text.lower() in done.err.lower()


# ---- the rest


def test_init_reaps_and_passes_signals(engine):
    script = "trap 'exit 9' TERM; echo ready; sleep 100 & wait"
    start(engine, "web", "--init", command=("sh", "-c", script))
    until(lambda: engine.docker("logs", "web").out)
    assert "docker-init" in engine.docker("exec", "web", "cat", "/proc/1/cmdline").out
    engine.docker("stop", "web")
    assert engine.inspect("web", "{{.State.ExitCode}}") == "9"


def test_what_this_engine_has_not_is_refused(engine):
    for options, text in (
        (("--runtime", "kata"), "unknown or invalid runtime name: kata"),
        (("--isolation", "hyperv"), "invalid isolation"),
        (("--storage-opt", "size=1G"), "--storage-opt is supported only for overlay over xfs"),
    ):
        done = sh(engine, "true", *options, ok=False)
        assert done.code == 125
        assert text in done.err
    sh(engine, "true", "--runtime", "runc")


def test_annotations_are_kept(engine):
    start(engine, "web", "--annotation", "a=b")
    assert engine.inspect("web", "{{.HostConfig.Annotations}}") == "map[a:b]"


def test_what_cannot_be_executed(engine):
    done = engine.docker("run", "--rm", "--entrypoint", "/etc", "busybox", ok=False)
    assert done.code == 126
    assert 'exec: "/etc": is a directory: unknown: permission denied' in done.err
    done = engine.docker("run", "--rm", "--entrypoint", "/etc/passwd", "busybox", ok=False)
    assert done.code == 126
    assert 'exec: "/etc/passwd": permission denied: unknown' in done.err
    done = engine.docker("run", "--rm", "-w", "/etc/passwd", "busybox", "true", ok=False)
    assert done.code in (125, 126, 127)
