import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "container"))
from containers_helper import make

from wherry.engine.container.container import Endpoint
from wherry.engine.container.resolv_conf import SEARCH_ROOT
from wherry.engine.cri import naming, requests, status
from wherry.engine.cri.types import (
    ContainerConfig,
    ContainerMetadata,
    ContainerState,
    DNSConfig,
    LinuxResources,
    LinuxSecurity,
    Mount,
    NamespaceMode,
    PodSandboxConfig,
    PodSandboxMetadata,
    PodSandboxState,
    PortMapping,
)
from wherry.engine.events import Event

POD = PodSandboxMetadata("web-1", "default", "12ab", 2)


def sandbox(**fields):
    return PodSandboxConfig(
        POD, "web-1", Path("/logs/pod"), labels={"app": "web"}, annotations={"a/b": "c"}, **fields
    )


def container(**fields):
    fields.setdefault("metadata", ContainerMetadata("main", 3))
    return ContainerConfig(image="busybox", **fields)


def test_names_are_those_of_dockershim():
    assert naming.sandbox_name(POD) == "k8s_POD_web-1_default_12ab_2"
    assert naming.container_name(ContainerMetadata("main", 3), POD) == (
        "k8s_main_web-1_default_12ab_3"
    )


def test_a_sandbox_has_the_network_of_its_pod():
    config = sandbox(
        dns=DNSConfig(("10.96.0.10",), ("a.b",), ("ndots:5",)),
        port_mappings=(
            PortMapping(80, 8080),
            PortMapping(53, 53, "UDP", "127.0.0.1"),
            PortMapping(1, 0),
        ),
        cgroup_parent="kubepods/pod12ab",
    )
    host = requests.sandbox_request(config, "pause").host_config
    assert host["NetworkMode"] == "k8s_pods"
    assert host["IpcMode"] == "shareable"
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
    }
    assert (host["Dns"], host["DnsOptions"]) == (["10.96.0.10"], ["ndots:5"])
    assert host["CgroupParent"] == "kubepods/pod12ab"


def test_a_sandbox_searches_the_root_where_its_pod_says_so():
    for searches, wanted, noted in (
        (("a.b", "."), ["a.b", "."], {SEARCH_ROOT: "true"}),
        (("a.b",), ["a.b"], None),
        ((), ["."], None),  # none of the host's
    ):
        config = sandbox(dns=DNSConfig(("10.96.0.10",), searches))
        host = requests.sandbox_request(config, "pause").host_config
        assert (host["DnsSearch"], host.get("Annotations")) == (wanted, noted)


def test_a_pod_on_the_host_s_network_publishes_nothing():
    config = sandbox(network=NamespaceMode.NODE, port_mappings=(PortMapping(80, 8080),))
    host = requests.sandbox_request(config, "pause").host_config
    assert (host["NetworkMode"], host["PortBindings"]) == ("host", {})


def test_a_container_joins_its_sandbox():
    made = requests.container_request(
        container(command=("sh",), args=("-c", "x"), envs={"A": "1"}, log_path="main/3.log"),
        sandbox(),
        "f" * 64,
    )
    host = made.host_config
    assert host["NetworkMode"] == host["IpcMode"] == "container:" + "f" * 64
    assert host["PidMode"] == ""
    assert (made.config["Entrypoint"], made.config["Cmd"]) == (["sh"], ["-c", "x"])
    assert made.config["Env"] == ["A=1"]
    assert made.log_path == Path("/logs/pod/main/3.log")


def test_who_a_container_is_and_what_it_may_do():
    security = LinuxSecurity(
        run_as_user=1000,
        run_as_group=2000,
        supplemental_groups=(5,),
        no_new_privileges=True,
        seccomp_unconfined=True,
        drop_capabilities=("ALL",),
        pid=NamespaceMode.POD,
    )
    resources = LinuxResources(memory_limit=64 << 20, cpu_quota=50_000, oom_score_adj=900)
    made = requests.container_request(
        container(security=security, resources=resources), sandbox(), "f" * 64
    )
    host = made.host_config
    assert made.config["User"] == "1000:2000"
    assert host["GroupAdd"] == ["5"]
    assert host["SecurityOpt"] == ["no-new-privileges", "seccomp=unconfined"]
    assert host["CapDrop"] == ["ALL"]
    assert host["PidMode"] == "container:" + "f" * 64
    assert (host["Memory"], host["MemorySwap"], host["OomScoreAdj"]) == (64 << 20, 64 << 20, 900)


def test_mounts_may_have_any_name():
    mount = Mount("/data", Path("/var/lib/a:b"), readonly=True, propagation="rslave")
    made = requests.container_request(container(mounts=(mount,)), sandbox(), "f" * 64)
    assert made.host_config["Mounts"][0]["Source"] == "/var/lib/a:b"
    assert made.host_config["Mounts"][0]["BindOptions"]["Propagation"] == "rslave"


def pod_container(name="k8s_main_web-1_default_12ab_3"):
    request = requests.container_request(container(labels={"x": "y"}), sandbox(), "f" * 64)
    return make(name=name, config={"Labels": request.config["Labels"], "Cmd": ["x"]})


def test_what_the_kubelet_gave_comes_back():
    shown = status.container_status(pod_container())
    assert shown.metadata == ContainerMetadata("main", 3)
    assert shown.labels["x"] == "y"
    assert shown.pod_sandbox_id == "f" * 64
    labels = requests.sandbox_request(sandbox(), "pause").config["Labels"]
    pod = status.sandbox_status(
        make(name=naming.sandbox_name(POD), config={"Labels": labels, "Cmd": ["x"]})
    )
    assert pod.metadata == POD
    assert (pod.labels["app"], dict(pod.annotations)) == ("web", {"a/b": "c"})
    assert pod.state is PodSandboxState.NOTREADY


def test_the_primary_address_of_a_pod_comes_first():
    labels = requests.sandbox_request(sandbox(), "pause").config["Labels"]
    container = make(name=naming.sandbox_name(POD), config={"Labels": labels, "Cmd": ["x"]})
    container.endpoints = {"n": Endpoint("n", address="10.0.0.2", address6="fd00::2")}
    assert status.sandbox_status(container).ips == ("10.0.0.2", "fd00::2")
    assert status.sandbox_status(container, 6).ips == ("fd00::2", "10.0.0.2")


@pytest.mark.parametrize(
    ("fields", "state", "reason"),
    [
        ({}, ContainerState.CREATED, ""),
        ({"running": True, "started_at": 5}, ContainerState.RUNNING, ""),
        ({"started_at": 5, "finished_at": 6}, ContainerState.EXITED, "Completed"),
        ({"started_at": 5, "exit_code": 2}, ContainerState.EXITED, "Error"),
        (
            {"started_at": 5, "exit_code": 137, "oom_killed": True},
            ContainerState.EXITED,
            "OOMKilled",
        ),
        ({"error": "no such file", "exit_code": 127}, ContainerState.EXITED, "ContainerCannotRun"),
    ],
)
def test_states_and_reasons_are_the_kubelet_s(fields, state, reason):
    one = pod_container()
    for name, value in fields.items():
        setattr(one.state, name, value)
    shown = status.container_status(one)
    assert (shown.state, shown.reason) == (state, reason)
    assert shown.exit_code == (fields.get("exit_code", 0))


def test_events_of_pods_name_their_sandbox():
    one = pod_container()
    found = status.container_event(Event("container", "die", one.id, one.event_attributes()))
    assert found is not None
    assert (found.kind, found.pod_sandbox_id, found.pod_uid) == ("stopped", "f" * 64, "12ab")
    assert status.container_event(Event("container", "exec_die", one.id, one.labels)) is None
    assert status.container_event(Event("container", "die", "1", {"name": "web"})) is None


def test_huge_pages_are_told_by_an_annotation():
    pages = LinuxResources(hugepage_limits={"2MB": 4194304, "1GB": 0})
    made = requests.container_request(container(resources=pages), sandbox(), "ab" * 32)
    assert made.host_config["Annotations"] == {"io.wherry.huge-pages": "1GB=0,2MB=4194304"}
    assert requests.group_limits(pages).huge_pages == {"2MB": 4194304, "1GB": 0}
