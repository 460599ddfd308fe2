"""The node as the API shows it, and what its kubelet answers to whom."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request

from conftest import Instance, eventually


def raw(cluster: Instance, path: str) -> str:
    (node,) = cluster.get("nodes")["items"]
    name = node["metadata"]["name"]
    return cluster.kubectl("get", "--raw", f"/api/v1/nodes/{name}/proxy{path}").out


def test_the_node_tells_of_itself_as_users_know_it(cluster: Instance) -> None:
    (node,) = cluster.get("nodes")["items"]
    status = node["status"]
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith("docker://")
    labels = node["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == node["metadata"]["name"]
    assert not [label for label in labels if label.startswith("beta.")]
    memory = {k: int(status[k]["memory"].removesuffix("Ki")) for k in ("capacity", "allocatable")}
    assert memory["capacity"] - memory["allocatable"] >= 100 * 1024
    assert {c["type"] for c in status["conditions"]} >= {"Ready", "MemoryPressure", "PIDPressure"}


def test_figures_and_settings_are_read_through_the_api_server(
    cluster: Instance, namespace: str
) -> None:
    cluster.kubectl("-n", namespace, "run", "seen", "--image=hello:1", "--", "sleep", "600")
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/seen")
    page = raw(cluster, "/metrics/cadvisor")
    assert f'namespace="{namespace}",pod="seen"' in page
    assert 'container_memory_working_set_bytes{container="seen",id="/wherry' in page
    assert "container_network_receive_bytes_total{" in page
    settings = json.loads(raw(cluster, "/configz"))["kubeletconfig"]
    assert settings["maxPods"] == 110 and settings["evictionHard"]["memory.available"] == "100Mi"
    assert raw(cluster, "/healthz") == "ok"


def test_the_kubelet_asks_the_api_server_who_may(cluster: Instance, namespace: str) -> None:
    (node,) = cluster.get("nodes")["items"]
    address = node["status"]["addresses"][0]["address"]
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    eventually(lambda: cluster.kubectl("-n", namespace, "get", "sa", "default", ok=False).code == 0)
    token = cluster.kubectl("-n", namespace, "create", "token", "default").out.strip()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def ask(path: str, *, bearer: str = "") -> tuple[int, str]:
        request = urllib.request.Request(f"https://{address}:{port}{path}")
        if bearer:
            request.add_header("Authorization", f"Bearer {bearer}")
        try:
            with urllib.request.urlopen(request, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    assert ask("/metrics/resource")[0] == 401
    code, text = ask("/stats/summary", bearer=token)
    account = f"system:serviceaccount:{namespace}:default"
    assert code == 403
    assert text.strip() == (
        f"Forbidden (user={account}, verb=get, resource=nodes, subresource(s)=[stats])"
    )
    name = f"metrics-{namespace}"
    cluster.kubectl("create", "clusterrole", name, "--verb=get", "--resource=nodes/metrics")
    try:
        cluster.kubectl(
            *("create", "clusterrolebinding", name, f"--clusterrole={name}"),
            f"--serviceaccount={namespace}:default",
        )
        code, text = ask("/metrics/resource", bearer=token)
        assert code == 200 and "node_cpu_usage_seconds_total" in text
    finally:
        cluster.kubectl("delete", "clusterrole,clusterrolebinding", name, ok=False)
