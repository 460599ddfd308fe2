"""A container's specification becomes the OCI configuration that Docker would write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wherry.runtime import bundle, capabilities
from wherry.runtime.features import Features
from wherry.runtime.types import ContainerSpec, Limits, MountSpec, ProcessSpec, User

HOST = bundle.Host(cgroup_v2=False, capabilities=frozenset(capabilities.ALL))
WEAK = bundle.Host(
    cgroup_v2=False,
    capabilities=frozenset(capabilities.ALL) - {"CAP_SYS_RESOURCE"},
    rlimits={"RLIMIT_NOFILE": 1000},
    oom_score_adj=0,
)
PROCESS = ProcessSpec(args=("true",), capabilities=capabilities.DEFAULT)
SPEC = ContainerSpec(id="a" * 64, rootfs=Path("/r"), process=PROCESS, hostname="box")


def config(host: bundle.Host = HOST, **changes: Any) -> dict[str, Any]:
    return bundle.config(replace(SPEC, **changes), host, "/wherry0/x")


def mounts(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in made["mounts"]}


def namespaces(made: dict[str, Any]) -> dict[str, str | None]:
    return {entry["type"]: entry.get("path") for entry in made["linux"]["namespaces"]}


def test_the_standard_mounts_are_there() -> None:
    made = mounts(config(shm_size=1 << 20))
    assert list(made) == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/mqueue",
        "/dev/shm",
    ]
    assert "ro" in made["/sys"]["options"]
    assert "ro" in made["/sys/fs/cgroup"]["options"]
    assert "size=1048576" in made["/dev/shm"]["options"]


def test_mounts_asked_for_come_outermost_first_and_replace_standard_ones() -> None:
    asked = (
        MountSpec("/data/inner", "/host/inner"),
        MountSpec("/dev/shm/", "/host/shm"),
        MountSpec("/data", "/host/data", options=("bind", "ro")),
        MountSpec("/tmp", "tmpfs", "tmpfs", ("size=1m",)),
    )
    made = config(mounts=asked)
    destinations = [mount["destination"] for mount in made["mounts"]]
    assert destinations.index("/data") < destinations.index("/data/inner")
    assert "/dev/shm" not in destinations
    by = mounts(made)
    assert by["/data/inner"]["options"] == ["rbind"]
    assert by["/data"]["options"] == ["bind", "ro"]
    assert by["/tmp"]["options"] == ["size=1m"]


def test_namespaces_are_new_joined_or_the_hosts() -> None:
    made = namespaces(config(cgroup_namespace="host"))
    assert made == {"mount": None, "network": None, "pid": None, "ipc": None, "uts": None}
    made = namespaces(
        config(network_namespace="/run/netns/x", pid_namespace="host", ipc_namespace="host")
    )
    del made["cgroup"]
    assert made == {"mount": None, "network": "/run/netns/x", "uts": None}


def test_the_cgroup_namespace_may_be_the_host_s() -> None:
    assert "cgroup" in namespaces(config())
    assert "cgroup" not in namespaces(config(cgroup_namespace="host"))


def test_a_joined_uts_namespace_keeps_its_name() -> None:
    assert config()["hostname"] == "box"
    assert "hostname" not in config(uts_namespace="host")


def test_the_hosts_ipc_comes_with_its_shared_memory() -> None:
    assert mounts(config(ipc_namespace="host"))["/dev/shm"]["source"] == "/dev/shm"


def test_a_network_of_its_own_lets_everyone_bind_and_ping() -> None:
    own = config(sysctls={"net.ipv4.ip_unprivileged_port_start": "1024", "a": "b"})
    assert own["linux"]["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "1024",
        "net.ipv4.ping_group_range": "0 2147483647",
        "a": "b",
    }
    assert "sysctl" not in config(network_namespace="host")["linux"]


def test_paths_are_masked_unless_told_otherwise_or_privileged() -> None:
    made = config()["linux"]
    assert "/proc/kcore" in made["maskedPaths"]
    assert "/proc/sys" in made["readonlyPaths"]
    assert config(masked_paths=())["linux"]["maskedPaths"] == []
    privileged = config(privileged=True)["linux"]
    assert "maskedPaths" not in privileged
    assert "readonlyPaths" not in privileged


def test_devices_are_denied_but_those_given() -> None:
    device = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "access": "rw"}
    made = config(devices=(device,))["linux"]
    assert made["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
    ]
    assert made["devices"] == [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]


def test_a_privileged_container_has_the_hosts_devices() -> None:
    made = config(privileged=True)
    assert made["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "/dev/null" in {device["path"] for device in made["linux"]["devices"]}
    assert "rw" in mounts(made)["/sys"]["options"]


def test_annotations_cannot_command_the_runtime() -> None:
    annotations = {"run.oci.hooks.stdout": "/etc/passwd", "team": "a"}
    assert config(annotations=annotations)["annotations"] == {"team": "a"}


@pytest.mark.parametrize(
    ("option", "propagation"), [("rshared", "shared"), ("slave", "rslave"), ("rprivate", None)]
)
def test_the_roots_propagation_follows_its_mounts(option: str, propagation: str | None) -> None:
    made = config(mounts=(MountSpec("/x", "/x", options=("rbind", option)),))
    assert made["linux"].get("rootfsPropagation") == propagation


def test_a_capability_we_lack_is_not_given() -> None:
    process = replace(PROCESS, capabilities=("CAP_SYS_RESOURCE", "CAP_CHOWN"))
    assert bundle.process(process, WEAK)["capabilities"]["bounding"] == ["CAP_CHOWN"]


def test_limits_above_ours_are_lowered_where_we_may_not_raise() -> None:
    process = replace(PROCESS, rlimits={"RLIMIT_NOFILE": (500, 5000), "RLIMIT_CORE": (0, -1)})
    assert bundle.process(process, WEAK)["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 500, "hard": 1000},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
    ]
    assert bundle.process(process, HOST)["rlimits"][0]["hard"] == 5000


def test_an_oom_score_below_ours_is_raised_where_we_may_not_lower() -> None:
    low = replace(PROCESS, oom_score_adj=-998)
    assert bundle.process(low, WEAK)["oomScoreAdj"] == 0
    assert bundle.process(low, HOST)["oomScoreAdj"] == -998
    assert "oomScoreAdj" not in bundle.process(PROCESS, HOST)


def test_the_user_is_given_in_numbers() -> None:
    made = bundle.process(replace(PROCESS, user=User(1, 2, (3,)), cwd=""), HOST)
    assert made["user"] == {"uid": 1, "gid": 2, "additionalGids": [3]}
    assert made["cwd"] == "/"


def test_only_limits_that_are_set_are_written() -> None:
    assert bundle.resources(Limits(), HOST) == {}
    limits = Limits(memory=100, cpu_shares=512, cpuset_cpus="0", pids=5, memory_swap=-1)
    assert bundle.resources(limits, HOST) == {
        "memory": {"limit": 100, "swap": -1},
        "cpu": {"shares": 512, "cpus": "0"},
        "pids": {"limit": 5},
    }


def test_huge_pages_are_limited_by_size() -> None:
    limits = Limits(huge_pages={"2MB": 4 << 20, "1GB": 0})
    assert bundle.resources(limits, HOST)["hugepageLimits"] == [
        {"pageSize": "1GB", "limit": 0},
        {"pageSize": "2MB", "limit": 4 << 20},
    ]
    without = replace(HOST, features=Features(huge_pages=False))
    assert bundle.resources(limits, without) == {}


def test_what_the_kernel_cannot_limit_is_left_out() -> None:
    host = replace(HOST, features=Features(swap=False, block_weight=False))
    assert bundle.resources(Limits(memory_swap=5, blkio_weight=500), host) == {}
