"""A node whose pods cannot be connected for a while, on a fake API and a fake runtime."""

from pathlib import Path

from node_under_test import NodeUnderTest, condition, make_pod

from wherry.engine.cri.types import CRIError
from wherry.kube.api.resources import PODS

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
