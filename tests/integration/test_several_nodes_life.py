"""What happens to a joined node: processes killed, nodes deleted and back, servers restarted, away
and made anew, images that only the first node has."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from machines import Machine, join
from node_pair import Pair, daemon_set, docker, kept, node_pair, pod

from ports import free_port


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """With a pod ``seen`` that is to outlive what happens."""
    with node_pair() as made:
        made.run("seen")
        yield made


# ---- images


def test_an_image_of_the_first_node_reaches_the_others_by_a_registry_or_an_archive(
    pair: Pair, tmp_path: Path
) -> None:
    docker(pair.server, "tag", "busybox:latest", "only-here:1")
    pair.apply(pod("lacking", image="only-here:1"))

    def reason() -> str:
        statuses = pair.server.get("pod", "lacking")["status"].get("containerStatuses") or [{}]
        return str(statuses[0].get("state", {}).get("waiting", {}).get("reason", ""))

    eventually(lambda: reason() == "ErrImageNeverPull")
    why = 'Container image "only-here:1" is not present with pull policy of Never'
    eventually(lambda: why in _events(pair, "lacking"))
    archive = tmp_path / "image.tar"
    docker(pair.server, "save", "-o", str(archive), "only-here:1")
    docker(pair.node, "load", "-i", str(archive))
    pair.kubectl("wait", "--for=condition=Ready", "pod/lacking", "--timeout=110s")

    place = f"198.18.0.1:{free_port()}"
    argv = [sys.executable, "-m", "wherry", "registry", "serve", "--listen", place]
    argv = [*pair.server.machine.prefix, *argv, "--root", str(tmp_path / "registry")]
    registry = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert registry.stdout is not None and registry.stdout.readline().startswith(b"http")
        both = (pair.server, pair.node)
        for each in both:
            (each.data_dir / "daemon.json").write_text(json.dumps({"insecure-registries": [place]}))
            os.kill(each.pid("node"), signal.SIGKILL)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda each: each.wherry("up"), both))
        image = f"{place}/team/web:1"
        docker(pair.server, "tag", "busybox:latest", image)
        docker(pair.server, "push", image)
        pair.run("pulled", image=image, imagePullPolicy="Always")
        eventually(lambda: f'Successfully pulled image "{image}"' in _events(pair, "pulled"))
    finally:
        registry.terminate()
        registry.wait(60)
        pair.remove("pod/lacking", "pod/pulled")


def _events(pair: Pair, name: str) -> str:
    """What is told of a pod; it comes behind what it tells of."""
    return pair.kubectl("get", "events", f"--field-selector=involvedObject.name={name}").out


# ---- killed


def test_a_joined_node_is_killed_while_pods_come_and_go(pair: Pair) -> None:
    pair.run("old")
    for round in range(3):
        names = [f"r{round}-{n}" for n in range(4)]
        pair.apply(*(pod(name) for name in names))
        if round:
            pair.kubectl("delete", "pod", f"r{round - 1}-0", "--wait=false")
        os.kill(pair.node.pid("node"), signal.SIGKILL)
        pair.node.wherry("up")
        wait = [f"pod/{name}" for name in names]
        pair.kubectl("wait", "--for=condition=Ready", *wait, "--timeout=110s")
    assert pair.restarts("old") == 0
    eventually(lambda: not {"r0-0", "r1-0"} & _names(pair))
    address = pair.server.get("pod", "old")["status"]["podIP"]
    done = pair.server.machine.run("curl", "-s", "-m", "60", f"http://{address}:8080/hostname")
    assert done.out.strip() == "old"
    pair.remove("pod", "old", *_names(pair) - {"old", "seen"})


def _names(pair: Pair) -> set[str]:
    return {p["metadata"]["name"] for p in pair.server.get("pods")["items"]}


def _write(pair: Pair, static: dict[str, Any]) -> Path:
    """Have node b run a static pod."""
    manifests = pair.node.data_dir / "manifests"
    manifests.mkdir(exist_ok=True)
    manifest = manifests / f"{static['metadata']['name']}.yaml"
    manifest.write_text(json.dumps(static))
    return manifest


def _hostname(machine: Machine, place: str) -> str:
    argv = ("curl", "-s", "-m", "30", f"http://{place}/hostname")
    return machine.run(*argv, ok=False).out.strip()


def _place(pair: Pair, name: str) -> str:
    """Where a pod of node b is found, as the node itself knows."""
    sandbox = docker(pair.node, "ps", "-q", "--filter", f"name=k8s_POD_{name}_").out.strip()
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return docker(pair.node, "inspect", "-f", form, sandbox).out.strip() if sandbox else ""


def test_a_node_starts_while_the_server_is_away_and_goes_on_when_it_is_back(pair: Pair) -> None:
    pair.run("served")
    pair.kubectl("expose", "pod", "served", "--port=80", "--target-port=8080")
    cluster_ip = pair.server.get("service", "served")["spec"]["clusterIP"]

    here = pair.node.machine
    eventually(lambda: _hostname(here, cluster_ip) == "served")
    port = free_port()
    static = pod("static", command=["httpd", "-f", "-p", str(port), "-h", "/etc"])
    static["spec"]["hostNetwork"] = True
    for instance, daemon in ((pair.server, "server"), (pair.node, "node")):
        os.kill(instance.pid(daemon), signal.SIGKILL)
    manifests = [_write(pair, each) for each in (static, pod("inner"))]

    why = "the API server cannot be reached (Connection refused)"
    assert f"node b is not Ready yet: {why}" in pair.node.wherry("up").out
    running = pair.node.pid("node")
    shown = pair.node.wherry("status").out
    assert f"running, pid {running}," in shown and why in shown
    assert "already running" in pair.node.wherry("up").out
    assert _hostname(here, cluster_ip) == "served"
    assert eventually(lambda: _hostname(here, f"127.0.0.1:{port}"))
    inner = eventually(lambda: _place(pair, "inner-b"))
    eventually(lambda: _hostname(here, f"{inner}:8080") == "inner-b")

    pair.server.wherry("up")
    pair.run("after")
    eventually(lambda: pair.kubectl("logs", "after").out == "said\n")
    assert pair.kubectl("exec", "served", "--", "hostname").out == "served\n"
    mirrors = {"static-b", "inner-b"}
    eventually(lambda: mirrors <= _names(pair))
    wait = [f"pod/{name}" for name in mirrors]
    pair.kubectl("wait", "--for=condition=Ready", *wait, "--timeout=110s")
    assert [pair.restarts(name) for name in ("served", *mirrors)] == [0, 0, 0]
    assert pair.server.get("pod", "inner-b")["status"]["podIP"] == inner
    assert eventually(lambda: _hostname(pair.server.machine, f"{inner}:8080")) == "inner-b"
    assert pair.node.pid("node") == running
    eventually(lambda: " Ready\n" in pair.node.wherry("status").out)
    for manifest in manifests:
        manifest.unlink()
    pair.remove("pod/served", "pod/after", "service/served")
    eventually(lambda: not mirrors & _names(pair))


# ---- seen by clients


def test_top_describe_and_copies_know_what_has_run_all_the_time(pair: Pair) -> None:
    eventually(
        lambda: (
            "b " in pair.kubectl("top", "node", ok=False).out
            and "seen" in pair.kubectl("top", "pod", "seen", ok=False).out
        )
    )
    told = pair.kubectl("describe", "node", "b").out
    for line in ("HolderIdentity:  b", "InternalIP:  198.18.0.2", "KubeletReady"):
        assert line in told
    assert "seen" in told.partition("Non-terminated Pods:")[2]
    source = pair.bench.home / "copied"
    source.write_text("by hand\n")
    pair.kubectl("cp", str(source), "seen:/tmp/copied")
    assert pair.kubectl("exec", "seen", "--", "cat", "/tmp/copied").out == "by hand\n"
    assert pair.restarts("seen") == 0
    pair.remove("pod/seen")


# ---- gone and back


def test_a_drained_node_is_empty_and_comes_back(pair: Pair) -> None:
    deployment = daemon_set("moving")
    deployment["kind"] = "Deployment"
    deployment["spec"]["replicas"] = 4
    pair.apply(deployment, daemon_set("everywhere"))
    pair.kubectl("rollout", "status", "deploy/moving", "--timeout=110s")
    pair.kubectl("rollout", "status", "ds/everywhere", "--timeout=110s")
    refused = pair.kubectl("drain", "b", ok=False)
    assert refused.code and "cannot delete DaemonSet-managed Pods" in refused.err
    pair.kubectl("uncordon", "b")
    drained = pair.kubectl("drain", "b", "--ignore-daemonsets", "--timeout=110s").out
    assert "node/b cordoned" in drained and "node/b drained" in drained
    assert "SchedulingDisabled" in pair.kubectl("get", "node", "b").out
    pair.kubectl("rollout", "status", "deploy/moving", "--timeout=110s")

    def alive(app: str) -> list[dict[str, Any]]:
        pods = pair.server.get("pods", "-l", f"app={app}")["items"]
        return [p for p in pods if "deletionTimestamp" not in p["metadata"]]

    def places(app: str) -> list[str]:
        return sorted(p["spec"].get("nodeName", "") for p in alive(app))

    def names(app: str) -> dict[str, str]:
        return {p["spec"]["nodeName"]: p["metadata"]["name"] for p in alive(app)}

    assert places("moving") == ["a"] * 4 and places("everywhere") == ["a", "b"]
    assert "node/b uncordoned" in pair.kubectl("uncordon", "b").out
    pair.kubectl("scale", "deploy/moving", "--replicas=8")
    pair.kubectl("rollout", "status", "deploy/moving", "--timeout=110s")
    assert "b" in places("moving")

    # Deleted while it runs, it is back when its daemon begins anew.
    pair.kubectl("delete", "node", "b")
    os.kill(pair.node.pid("node"), signal.SIGKILL)
    pair.node.wherry("up")
    eventually(pair.ready)
    pair.kubectl("rollout", "status", "ds/everywhere", "--timeout=110s")
    assert pair.restarts(names("everywhere")["b"]) == 0
    pair.kubectl("delete", "deploy/moving", "ds/everywhere")


def test_static_pods_follow_a_node_that_was_made_anew_to_its_new_range(pair: Pair) -> None:
    manifest = _write(pair, pod("moved"))

    def address() -> str:
        found = pair.kubectl("get", "pod", "moved-b", "-o", "jsonpath={.status.podIP}", ok=False)
        return found.out.strip()

    def given(node: str) -> str:
        return str(pair.server.get("node", node)["spec"].get("podCIDR", ""))

    old = ipaddress.ip_address(eventually(address))
    former = given("b")
    os.kill(pair.node.pid("node"), signal.SIGKILL)
    pair.kubectl("delete", "node", "b")
    pair.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "heir"}})
    eventually(lambda: given("heir") == former)  # the first that is free
    pair.node.wherry("up")
    range_ = ipaddress.ip_network(eventually(lambda: given("b")))
    assert old not in range_
    # (Its mirror belonged to the former Node, and is followed by another at some time.)
    eventually(lambda: (found := address()) and ipaddress.ip_address(found) in range_)
    eventually(lambda: _hostname(pair.server.machine, f"{address()}:8080") == "moved-b")
    eventually(pair.ready)
    manifest.unlink()
    eventually(lambda: "moved-b" not in _names(pair))
    pair.kubectl("delete", "node", "heir")


def test_a_server_that_was_purged_is_made_anew_and_its_node_joins_again(pair: Pair) -> None:
    pair.run("orphan")
    before = kept(pair.server)  # the next may get another number, with others of these
    same = ["--api-port", str(before.api_port)]
    same += ["--pod-network-cidr", ",".join(before.cluster_ranges)]
    same += ["--service-cidr", ",".join(before.service_ranges)]
    pair.server.wherry("down", "--purge", "--grace", "0")
    assert len(docker(pair.node, "ps", "-q").out.split()) >= 1
    pair.server.wherry("up", "--node-name", "a", *same)
    shown = pair.node.wherry("status").out
    assert "the API server there is not the one that it has joined" in shown
    pair.node.wherry("down", "--grace", "0")
    join(pair.node, pair.command())
    eventually(pair.ready)
    pair.run("fresh")
    eventually(lambda: "orphan" not in docker(pair.node, "ps", "-a").out)
    eventually(lambda: pair.kubectl("logs", "fresh").out == "said\n")

    # A node goes on, and goes away, where nobody is there to be told.
    place = kept(pair.node)
    pair.server.wherry("down", "--grace", "0")
    assert "k8s_c_fresh" in docker(pair.node, "ps").out
    pair.node.wherry("down", "--purge", "--grace", "0")
    assert not pair.node.data_dir.exists() and not place.run_dir.exists()
    assert "wherry" not in pair.node.machine.run("ip", "-o", "link").out
    assert "wherry" not in pair.node.machine.run("nft", "list", "tables").out
