"""A node whose pods cannot be connected for a while, on a fake API and a fake runtime."""

import asyncio
import ipaddress
import json
from pathlib import Path

import pytest
from fake_runtime import FakeRuntime
from node_under_test import NODE, NodeUnderTest, condition, make_pod

from wherry.engine.cri.types import POD_CIDR_IN_USE, CRIError
from wherry.kube.api.resources import NODES, PODS
from wherry.kube.kubelet.network import PodNetwork

FAULT = "NetworkReady=false reason:NetworkPluginNotReady message:docker: no"


def cut(node: NodeUnderTest) -> None:
    node.runtime.fail["update_runtime_config"] = CRIError(FAULT)
    node.runtime.network_news.set()


def mend(node: NodeUnderTest) -> None:
    del node.runtime.fail["update_runtime_config"]
    node.runtime.network_news.set()


async def test_a_network_that_fails_makes_the_node_unready_and_returns(tmp_path: Path) -> None:
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod("before"))
        await node.until_ready("before")
        cut(node)
        await node.until(lambda: condition(node.node(), "Ready") == "False")
        (ready,) = [c for c in node.node()["status"]["conditions"] if c["type"] == "Ready"]
        why = f"container runtime network not ready: {FAULT}"
        assert (ready["reason"], ready["message"]) == ("KubeletNotReady", why)

        await node.run(make_pod("waiting"))
        await node.run(make_pod("host", hostNetwork=True))
        await node.until_ready("host")  # which may be what makes the network
        told = ("NetworkNotReady", f"network is not ready: {why}")
        await node.until(lambda: told in node.events())
        assert ("run_pod_sandbox", "waiting") not in node.runtime.calls
        assert condition(node.pod("before"), "Ready") == "True"

        mend(node)
        await node.until_ready("waiting")
        await node.until(lambda: condition(node.node(), "Ready") == "True")


async def test_a_pod_that_waits_for_the_network_can_be_deleted(tmp_path: Path) -> None:
    async with NodeUnderTest(tmp_path) as node:
        cut(node)
        await node.until(lambda: condition(node.node(), "Ready") == "False")
        await node.run(make_pod())
        await node.until(lambda: any(reason == "NetworkNotReady" for reason, _ in node.events()))
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: node.pod() is None)
        assert ("run_pod_sandbox", "web") not in node.runtime.calls


# ---- which ranges


async def test_ranges_of_the_last_run_connect_pods_but_make_no_node_ready() -> None:
    runtime, told = FakeRuntime(), []
    runtime.cidr = "10.244.0.0/24"
    network = PodNetwork(runtime, told.append, lambda uid: None, lambda: None)
    try:
        await network.recall()
        assert await network.fault() == "" and told == []
        network.use("")  # a Node that was made anew, and has no range yet
        waiting = asyncio.create_task(network.fault())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        network.use("10.244.1.0/24")
        assert await waiting == "" and told == [""]
        assert runtime.cidr == "10.244.1.0/24"
    finally:
        network.close()


async def test_the_api_is_not_contradicted_by_what_is_remembered() -> None:
    runtime = FakeRuntime()
    runtime.cidr = "10.244.0.0/24"
    network = PodNetwork(runtime, lambda fault: None, lambda uid: None, lambda: None)
    try:
        network.use("10.244.1.0/24")
        await network.recall()
        assert await network.fault() == "" and runtime.cidr == "10.244.1.0/24"
    finally:
        network.close()


@pytest.mark.parametrize(
    ("ips", "stranded"),
    [
        (("10.244.1.7", "fd00:1::7"), False),
        (("10.244.0.7", "fd00:1::7"), True),
        (("10.244.1.7",), True),
        ((), False),  # it is on the node's own network
    ],
)
async def test_who_has_no_address_of_each_range_is_stranded(
    ips: tuple[str, ...], stranded: bool
) -> None:
    runtime, woken = FakeRuntime(), asyncio.Event()
    network = PodNetwork(runtime, lambda fault: None, lambda uid: None, woken.set)
    runtime.fail["update_runtime_config"] = CRIError("plugins", "")
    try:
        network.use("10.244.1.0/24,fd00:1::/64")
        assert await network.fault() and not network.strands(("192.0.2.1",))
        runtime.fail["update_runtime_config"] = CRIError("pods", POD_CIDR_IN_USE)
        runtime.network_news.set()
        async with asyncio.timeout(60):
            await woken.wait()
        assert network.strands(ips) is stranded
    finally:
        network.close()


async def test_pods_leave_a_range_that_is_no_longer_the_nodes(tmp_path: Path) -> None:
    directory = tmp_path / "kubelet" / "manifests"
    directory.mkdir(parents=True)
    static = {"apiVersion": "v1", "kind": "Pod", **make_pod("static")}
    (directory / "static.json").write_text(json.dumps(static))
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        for name in ("web", "static-one"):
            await node.until_ready(name)
        await node.stop()
        await node.client.delete(NODES, NODE)
        node.api.pod_cidr = "10.244.9.0/24"
        await node.start()
        there = ipaddress.ip_network("10.244.9.0/24")
        for name in ("web", "static-one"):
            await node.until(
                lambda name=name: ipaddress.ip_address(node.pod(name)["status"]["podIP"]) in there
            )
            pod = await node.until_ready(name)
            assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
        assert any(reason == "SandboxChanged" for reason, _ in node.events())
        assert node.runtime.cidr == "10.244.9.0/24"
        await node.until(lambda: condition(node.node(), "Ready") == "True")
