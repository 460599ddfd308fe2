"""Static pods and their mirrors."""

from __future__ import annotations

import asyncio
import errno
import json
import ssl

import pytest
from node_under_test import NodeUnderTest, condition, container, make_pod

from wherry.engine.cri.types import CRIError
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS
from wherry.kube.kubelet.manifests import ManifestFault, mirror_of, mirrors, static_pod
from wherry.kube.kubelet.node import silence


def text(name="web", **spec):
    pod = {"apiVersion": "v1", "kind": "Pod", **make_pod(name, **spec)}
    pod["metadata"].pop("namespace")
    pod["spec"].pop("nodeName")
    return json.dumps(pod).encode()


def test_a_manifest_is_a_pod_of_the_node():
    pod = static_pod(text(), "/m/web.yaml", "one")
    assert (pod["metadata"]["name"], pod["metadata"]["namespace"]) == ("web-one", "default")
    assert pod["spec"]["nodeName"] == "one"
    assert pod["spec"]["tolerations"] == [{"operator": "Exists", "effect": "NoExecute"}]
    assert mirrors(mirror_of(pod, None)) == pod["metadata"]["uid"]
    assert static_pod(text(), "/m/web.yaml", "one")["metadata"]["uid"] == pod["metadata"]["uid"]
    other = static_pod(text(containers=[container(image="web:2")]), "/m/web.yaml", "one")
    assert other["metadata"]["uid"] != pod["metadata"]["uid"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"kind: Service",
        b"- 1",
        b"\xff\xfe",
        text(""),
        text(containers=[]),
        text(volumes=[{"name": "v", "configMap": {"name": "c"}}]),
        text(serviceAccountName="a"),
    ],
)
def test_what_describes_no_pod_is_told_as_such(body):
    with pytest.raises(ManifestFault):
        static_pod(body, "/m/x", "one")


async def test_files_come_change_and_go(tmp_path):
    directory = tmp_path / "kubelet" / "manifests"
    directory.mkdir(parents=True)
    (directory / "web.yaml").write_bytes(text())
    (directory / "broken.yaml").write_bytes(b"{")
    async with NodeUnderTest(tmp_path) as node:
        first = await node.until_ready("web-one")
        assert mirrors(first)
        (directory / "new").write_bytes(text(containers=[container(image="web:2")]))
        (directory / "new").rename(directory / "web.yaml")
        await node.until(lambda: mirrors(node.pod("web-one")) != mirrors(first))
        await node.until_ready("web-one")
        assert node.runtime.running("web").image == "web:2"
        # Whoever deletes the mirror gets another; what runs is not touched.
        before = node.runtime.running("web").id
        uid = node.pod("web-one")["metadata"]["uid"]
        await node.client.delete(PODS, "web-one", "default", grace=0)
        await node.until(lambda: node.pod("web-one")["metadata"]["uid"] != uid)
        await node.until_ready("web-one")
        await node.restart()
        await node.until_ready("web-one")
        assert node.runtime.running("web").id == before
        (directory / "web.yaml").unlink()
        await node.until(lambda: node.pod("web-one") is None)
        await node.until(lambda: not node.runtime.containers)


async def test_without_the_api_they_run_and_the_node_says_what_it_waits_for(tmp_path):
    directory = tmp_path / "kubelet" / "manifests"
    directory.mkdir(parents=True)
    (directory / "web.yaml").write_bytes(text(hostNetwork=True))
    (directory / "walled.yaml").write_bytes(text("walled", containers=[container("walled")]))
    node = NodeUnderTest(tmp_path)
    node.options = {"patience": 0.0}

    def refuse(*_):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no")

    node.api.before = refuse
    async with node:
        assert "the API server cannot be reached (Connection refused)" in node.why_not
        await node.until(lambda: node.runtime.running("web"))
        # (Which addresses the node's pods have is not known yet.)
        assert ("run_pod_sandbox", "walled-one") not in node.runtime.calls
        before = node.runtime.running("web").id
        node.api.before = None
        await node.until_ready("web-one")
        await node.until_ready("walled-one")
        assert node.runtime.running("web").id == before
        await node.until(lambda: condition(node.node(), "Ready") == "True")


async def test_those_of_the_pod_network_run_by_the_ranges_of_the_last_time(tmp_path):
    directory = tmp_path / "kubelet" / "manifests"
    directory.mkdir(parents=True)
    async with NodeUnderTest(tmp_path) as node:
        await node.stop()
        (directory / "web.yaml").write_bytes(text())

        def refuse(*_):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no")

        node.api.before, node.options = refuse, {"patience": 0.0}
        await node.start()
        assert "cannot be reached" in node.why_not
        await node.until(lambda: node.runtime.running("web"))
        (sandbox,) = node.runtime.sandboxes.values()
        node.api.before = None
        shown = await node.until_ready("web-one")
        assert shown["status"]["podIP"] == sandbox.ips[0]
        assert node.runtime.count("run_pod_sandbox") == 1
        await node.until(lambda: condition(node.node(), "Ready") == "True")


async def test_who_answers_is_not_waited_for_as_if_he_did_not():
    refused = ConnectionError("POST: refused")
    refused.__cause__ = ConnectionRefusedError(errno.ECONNREFUSED, "no")
    assert silence(refused) == "Connection refused"
    late = TimeoutError()
    late.__cause__ = asyncio.CancelledError()
    assert silence(late) == "timed out"
    assert silence(StatusError(503, "ServiceUnavailable", "starting")) == "starting"
    assert silence(StatusError(401, "Unauthorized", "who are you")) == ""
    stranger = ConnectionError("POST: no")
    stranger.__cause__ = ssl.SSLCertVerificationError("no")
    assert silence(stranger) == ""
    assert silence(CRIError("no")) == ""
