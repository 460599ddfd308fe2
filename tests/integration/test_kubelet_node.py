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


def test_the_instances_own_node_is_the_control_plane_and_takes_pods(cluster: Instance) -> None:
    def roles() -> str:
        return cluster.kubectl("get", "nodes", "--no-headers").out.split()[2]

    eventually(lambda: roles() == "control-plane")
    (node,) = cluster.get("nodes")["items"]
    assert not node["spec"].get("taints")
    label = "node.kubernetes.io/exclude-from-external-load-balancers"
    assert label not in node["metadata"]["labels"]


def test_the_kubelet_counts_pods_calls_probes_and_volumes(
    cluster: Instance, namespace: str
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    main = {
        "name": "main",
        "image": "hello:1",
        "command": ["sh", "-c", "head -c 100000 /dev/zero > /data/x; exec sleep 600"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": probe,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "counted", "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [main],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ],
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(claim))
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/counted")
    (node,) = cluster.get("nodes")["items"]
    used = (
        f'kubelet_volume_stats_used_bytes{{namespace="{namespace}",persistentvolumeclaim="data"}}'
    )

    def metrics() -> list[str]:
        """All of them, once what the pod writes can be seen."""
        page = raw(cluster, "/metrics").splitlines()
        found = next((line for line in page if line.startswith(used)), "0")
        return page if int(found.rsplit(" ", 1)[-1]) >= 100_000 else []

    page = eventually(metrics)
    assert f'kubelet_node_name{{node="{node["metadata"]["name"]}"}} 1' in page
    numbers = dict(line.rsplit(" ", 1) for line in page if not line.startswith("#"))
    assert int(numbers["kubelet_running_pods"]) >= 1
    assert int(numbers['kubelet_running_containers{container_state="running"}']) >= 1
    assert int(numbers["kubelet_pod_start_duration_seconds_count"]) >= 1
    assert int(numbers['kubelet_pod_worker_duration_seconds_count{operation_type="sync"}']) >= 1
    started = 'kubelet_runtime_operations_total{operation_type="start_container"}'
    assert int(numbers[started]) >= 1
    assert any(line.startswith('rest_client_requests_total{code="200",host="') for line in page)
    probed = 'prober_probe_total{container="main",namespace="' + namespace
    assert probed in raw(cluster, "/metrics/probes")

    told = json.loads(raw(cluster, "/stats/summary"))
    assert told["node"]["fs"]["capacityBytes"] > told["node"]["fs"]["availableBytes"] > 0
    assert {c["name"] for c in told["node"]["systemContainers"]} == {"kubelet", "pods"}
    (own,) = [p for p in told["pods"] if p["podRef"]["namespace"] == namespace]
    volumes = {v["name"]: v for v in own["volume"]}
    assert volumes["data"]["pvcRef"] == {"name": "data", "namespace": namespace}
    assert volumes["tmp"]["capacityBytes"] == 1 << 20
    assert own["ephemeral-storage"]["usedBytes"] >= 0
    assert own["network"]["interfaces"][0]["name"] == "eth0"
    assert own["containers"][0]["rootfs"]["capacityBytes"] > 0
    eventually(
        lambda: (
            "usageNanoCores"
            in next(
                p["cpu"]
                for p in json.loads(raw(cluster, "/stats/summary"))["pods"]
                if p["podRef"]["name"] == "counted"
            )
        )
    )
    uids = [p["metadata"]["name"] for p in json.loads(raw(cluster, "/runningpods/"))["items"]]
    assert "counted" in uids


def test_files_of_logs_are_read_through_the_node(cluster: Instance, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "run", "talker", "--image=hello:1", "--", "echo", "said")
    found = eventually(
        lambda: [
            line.split('"')[1]
            for line in raw(cluster, "/logs/pods/").splitlines()
            if f"{namespace}_talker_" in line
        ]
    )
    path = f"/logs/pods/{found[0]}talker/0.log"
    (node,) = cluster.get("nodes")["items"]
    proxied = f"/api/v1/nodes/{node['metadata']['name']}/proxy"
    # (The directory is there before the log.)
    words = ("get", "--raw", proxied + path)
    eventually(lambda: "said" in cluster.kubectl(*words, ok=False).out)
    done = cluster.kubectl("get", "--raw", f"{proxied}/logs/nothing.log", ok=False)
    assert done.code == 1 and "not find" in done.err


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
        # (The authorizer hears of the binding; a refusal is kept for a while.)
        text = eventually(
            lambda: (told := ask("/metrics/resource", bearer=token))[0] == 200 and told[1]
        )
        assert "node_cpu_usage_seconds_total" in text
    finally:
        cluster.kubectl("delete", "clusterrole,clusterrolebinding", name, ok=False)
