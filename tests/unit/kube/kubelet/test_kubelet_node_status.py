"""The machine as a Node."""

from dataclasses import replace
from pathlib import Path

from wherry.engine.cri.types import Image
from wherry.kube.kubelet.backoff import Backoff, go_duration
from wherry.kube.kubelet.config import DEFAULTS, settings
from wherry.kube.kubelet.eviction.signals import observe
from wherry.kube.kubelet.images import default_policy
from wherry.kube.kubelet.machine import Machine, read_machine
from wherry.kube.kubelet.node_status import (
    addresses,
    allocatable,
    capacity,
    conditions,
    extended,
    is_news,
    node_object,
    node_status,
    status_patch,
)
from wherry.kube.kubelet.parts import KubeletConfig

NOW, LATER = "2026-03-01T12:00:00Z", "2026-03-01T12:01:00Z"
MACHINE = Machine(
    4, 8 << 30, 100 << 30, {"2Mi": 4 << 20}, 0, "amd64", "6.1", "Debian", "m", "b", "h"
)
FINE: tuple[str, ...] = ()
NOWHERE = Path("/nonexistent")
CONFIG = KubeletConfig(
    "one", "192.0.2.9", NOWHERE, NOWHERE, 10250, NOWHERE, NOWHERE, NOWHERE, "api"
)


def test_a_node_takes_no_more_pods_than_its_cores_may_carry():
    assert capacity(MACHINE, replace(DEFAULTS, pods_per_core=10))["pods"] == "40"
    assert capacity(MACHINE, replace(DEFAULTS, pods_per_core=100))["pods"] == "110"


def test_capacity_is_what_the_machine_has_and_allocatable_what_pods_may_get():
    assert capacity(MACHINE, DEFAULTS) == {
        "cpu": "4",
        "ephemeral-storage": "104857600Ki",
        "hugepages-2Mi": "4Mi",
        "memory": "8388608Ki",
        "pods": "110",
    }
    assert allocatable(MACHINE, DEFAULTS) == {
        "cpu": "4",
        "ephemeral-storage": str((100 << 30) * 9 // 10),
        "hugepages-2Mi": "4Mi",
        "memory": f"{8388608 - 4096 - 102400}Ki",
        "pods": "110",
    }


def test_what_is_reserved_is_not_for_pods():
    told = settings({"systemReserved": {"cpu": "500m", "memory": "1Gi"}, "evictionHard": {}})
    found = allocatable(MACHINE, told)
    assert found["cpu"] == "3500m"
    assert found["memory"] == f"{8388608 - 4096 - (1 << 20)}Ki"
    assert found["ephemeral-storage"] == str(100 << 30)


def told(**more: str):
    return node_status(
        CONFIG,
        MACHINE,
        runtime_version="r",
        kubelet_version="v",
        images=[],
        conditions=[],
        extended=more,
    )


def test_what_others_say_the_node_has_can_be_had():
    dongles = told(**{"example.com/dongle": "4"})
    assert extended(dongles) == {"example.com/dongle": "4"}
    assert dongles["allocatable"]["example.com/dongle"] == "4"
    assert is_news(told(), dongles) and is_news(dongles, told())
    assert not is_news(dongles, dongles)
    written = status_patch(told(), dongles)
    assert "example.com/dongle" not in written["capacity"], "it is not ours to say"
    assert written["allocatable"]["example.com/dongle"] == "4"
    assert status_patch(dongles, told())["allocatable"]["example.com/dongle"] is None


def test_a_node_may_have_two_addresses_of_one_type():
    both = replace(CONFIG, second_ip="2001:db8::9")
    listed = addresses(both)
    assert [entry["type"] for entry in listed] == ["InternalIP", "InternalIP", "Hostname"]
    assert listed[1]["address"] == "2001:db8::9"
    written = status_patch({}, {**told(), "addresses": listed})["addresses"]
    assert written == [{"$patch": "replace"}, *listed], "they are merged by type otherwise"


def test_the_node_is_known_by_the_usual_labels():
    labels = node_object(CONFIG, MACHINE)["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == "one"
    assert labels["kubernetes.io/arch"] == "amd64"
    assert labels["kubernetes.io/os"] == "linux"


def test_a_node_without_trouble_is_ready():
    found = {c["type"]: c for c in conditions(FINE, "", (), NOW)}
    assert found["Ready"]["reason"] == "KubeletReady"
    assert found["Ready"]["message"] == "kubelet is posting ready status"
    assert found["MemoryPressure"]["reason"] == "KubeletHasSufficientMemory"
    assert found["DiskPressure"]["reason"] == "KubeletHasNoDiskPressure"
    assert found["PIDPressure"]["message"] == "kubelet has sufficient PID available"


def test_trouble_is_told():
    short = ("MemoryPressure", "DiskPressure", "PIDPressure")
    found = {c["type"]: c for c in conditions(short, "no network", (), NOW)}
    assert found["Ready"]["status"] == "False" and found["Ready"]["message"] == "no network"
    assert found["MemoryPressure"]["status"] == "True"
    assert found["DiskPressure"]["reason"] == "KubeletHasDiskPressure"
    assert found["PIDPressure"]["reason"] == "KubeletHasInsufficientPID"


def test_heartbeats_alone_are_no_news():
    def status(now, not_ready="", images=()):
        return node_status(
            CONFIG,
            MACHINE,
            runtime_version="docker://1",
            kubelet_version="v1.37.0",
            images=images,
            conditions=conditions(FINE, not_ready, old["conditions"], now),
        )

    old = {"conditions": ()}
    old = status(NOW)
    assert not is_news({**old, "config": {}}, status(LATER))
    assert is_news(old, status(LATER, "no network"))
    image = Image("sha256:1", ["web:1"], [], 5)
    assert is_news(old, status(LATER, images=[image]))
    ready = next(c for c in status(LATER)["conditions"] if c["type"] == "Ready")
    assert (ready["lastTransitionTime"], ready["lastHeartbeatTime"]) == (NOW, LATER)


def test_this_machine_can_be_read(tmp_path):
    machine = read_machine(tmp_path)
    assert machine.cpus > 0 and machine.memory > 1 << 20 and machine.disk > 0
    assert machine.architecture and machine.kernel and machine.boot_id
    seen = observe(tmp_path)
    assert 0 < seen["pid.available"].available <= seen["pid.available"].capacity
    assert 0 < seen["memory.available"].available <= seen["memory.available"].capacity


def test_back_off_doubles_from_the_second_failure_on_and_forgets_after_a_while():
    backoff = Backoff(10, 300)
    assert backoff.remaining("x", 100, 100) == 0
    backoff.next("x", 100, 100)
    assert backoff.remaining("x", 101, 103) == 8
    assert backoff.remaining("x", 101, 111) == 0
    backoff.next("x", 101, 111)
    assert backoff.delay("x") == 20
    for _ in range(10):
        backoff.next("x", 200, 200)
    assert backoff.delay("x") == 300
    assert backoff.remaining("x", 200 + 601, 802) == 0
    backoff.next("x", 801, 802)
    assert backoff.delay("x") == 10


def test_durations_are_written_as_go_does():
    assert [go_duration(s) for s in (10, 160, 300, 3600)] == ["10s", "2m40s", "5m0s", "1h0m0s"]


def test_the_pull_policy_follows_from_the_tag():
    assert default_policy("web") == "Always"
    assert default_policy("web:latest") == "Always"
    assert default_policy("localhost:5000/web") == "Always"
    assert default_policy("localhost:5000/web:1") == "IfNotPresent"
    assert default_policy(f"web@sha256:{'0' * 64}") == "IfNotPresent"
