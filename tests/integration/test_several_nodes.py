"""A cluster of three machines: two on one link, the third behind a router."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import eventually
from machines import Machines, NodeInstance, join, machines

from wherry.launcher.instance import find

NODES = ("a", "b", "c")
SERVER = """
mkdir -p /www/cgi-bin
printf '#!/bin/sh\\necho\\necho $REMOTE_ADDR %s\\n' "$NODE" > /www/cgi-bin/who
chmod +x /www/cgi-bin/who
head -c 3000000 /dev/zero > /www/large
exec httpd -f -p 0.0.0.0:8080 -h /www
"""


class Cluster:
    def __init__(self, bench: Machines, server: NodeInstance, nodes: dict[str, NodeInstance]):
        self.bench, self.server, self.nodes = bench, server, nodes

    def kubectl(self, *arguments: str, stdin: str | None = None, ok: bool = True) -> str:
        done = self.server.kubectl(*arguments, stdin=stdin, ok=ok)
        return done.out if ok else done.out + done.err

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl(
            "apply",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def get(self, *arguments: str) -> Any:
        return self.server.get(*arguments)

    def in_pod(self, name: str, *command: str) -> str:
        return self.kubectl("exec", name, "--", *command).strip()

    def ready(self, node: str) -> str:
        conditions = self.get("node", node)["status"]["conditions"]
        return str(next(c["status"] for c in conditions if c["type"] == "Ready"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with machines() as bench:
        bench.narrow("c", 1400)
        server = bench.instance("a")
        settings = bench.home / "kubelet.yaml"
        settings.write_text(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
            "nodeLeaseDurationSeconds: 4\n"
        )
        kubelet = ("--kubelet-config", str(settings))
        grace = ("--controller-arg", "node-monitor-grace-period=6s")
        server.wherry("up", "--node-name", "a", *kubelet, *grace)
        command = server.wherry("token create", "--print-join-command").out.strip()
        nodes = {"a": server}
        for name in NODES[1:]:
            nodes[name] = bench.instance(name)
            join(nodes[name], command, "--node-name", name, *kubelet)
        for node in nodes.values():
            node.wherry("images bootstrap", "busybox")
        made = Cluster(bench, server, nodes)
        made.apply(daemon_set("web"), service("web"))
        made.kubectl("rollout", "status", "ds/web", "--timeout=60s")
        yield made


def daemon_set(name: str) -> dict[str, Any]:
    environment = [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    container = {
        "name": "web",
        "image": "busybox:latest",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SERVER],
        "env": environment,
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        },
    }


def service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "NodePort",
            "selector": {"app": name},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }


def web_pods(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The server's pod of each node."""
    pods = cluster.get("pods", "-l", "app=web")["items"]
    return {pod["spec"]["nodeName"]: pod for pod in pods}


def test_each_node_is_ready_and_has_a_range_of_its_own(cluster: Cluster) -> None:
    nodes = cluster.get("nodes")["items"]
    assert {n["metadata"]["name"] for n in nodes} == set(NODES)
    assert {cluster.ready(name) for name in NODES} == {"True"}
    assert len({n["spec"]["podCIDR"] for n in nodes}) == 3
    rows = [line.split() for line in cluster.kubectl("get", "nodes").splitlines()]
    assert rows[0] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert [row[:2] for row in rows[1:]] == [[name, "Ready"] for name in NODES]
    shown = cluster.nodes["b"].wherry("status").out
    assert "node of" in shown and "server" not in shown


def test_nodes_have_asked_for_their_certificates(cluster: Cluster) -> None:
    rows = [line.split() for line in cluster.kubectl("get", "csr", "--no-headers").splitlines()]
    assert {row[-1] for row in rows} == {"Approved,Issued"}
    for name in ("b", "c"):
        asked = {
            row[2].removeprefix("kubernetes.io/") for row in rows if f"system:node:{name}" in row
        }
        assert asked == {"kubelet-serving", "kube-apiserver-client"}
    first = [row for row in rows if row[3].startswith("system:bootstrap:")]
    assert [row[2] for row in first] == ["kubernetes.io/kube-apiserver-client-kubelet"] * 2


def test_a_daemon_set_has_a_pod_on_every_node(cluster: Cluster) -> None:
    assert set(web_pods(cluster)) == set(NODES)


def test_pods_on_different_nodes_reach_each_other_by_their_own_addresses(
    cluster: Cluster,
) -> None:
    pods = web_pods(cluster)
    for here, pod in pods.items():
        for there, other in pods.items():
            address = other["status"]["podIP"]
            name = pod["metadata"]["name"]
            said = cluster.in_pod(name, "wget", "-qO-", f"http://{address}:8080/cgi-bin/who")
            assert said == f"{pod['status']['podIP']} {there}", (here, there)


def test_what_is_large_arrives_whole_on_every_way(cluster: Cluster) -> None:
    pods = web_pods(cluster)
    for here, there in (("a", "b"), ("a", "c"), ("c", "b")):
        name, address = pods[here]["metadata"]["name"], pods[there]["status"]["podIP"]
        command = f"wget -qO- http://{address}:8080/large | wc -c"
        assert cluster.in_pod(name, "sh", "-c", command) == "3000000"


def test_machines_reach_pods_of_other_nodes(cluster: Cluster) -> None:
    pods = web_pods(cluster)
    for here, node in cluster.nodes.items():
        for there, pod in pods.items():
            address = pod["status"]["podIP"]
            url = f"http://{address}:8080/cgi-bin/who"
            done = node.machine.run("curl", "-s", "-m", "5", url)
            assert done.out.split()[-1] == there, (here, there)


def test_routes_lead_to_neighbours_and_tunnels_behind_routers(cluster: Cluster) -> None:
    ranges = {n["metadata"]["name"]: n["spec"]["podCIDR"] for n in cluster.get("nodes")["items"]}
    routes = cluster.nodes["a"].machine.run("ip", "route").out
    assert f"{ranges['b']} via 198.18.0.2 dev eth0" in routes
    tunnel = next(line for line in routes.splitlines() if line.startswith(ranges["c"]))
    assert "onlink" in tunnel and "dev eth0" not in tunnel


def test_packets_of_pods_fit_into_the_tunnels_of_their_machines(cluster: Cluster) -> None:
    for name, mtu in (("a", "1450"), ("b", "1450"), ("c", "1350")):
        pod = web_pods(cluster)[name]["metadata"]["name"]
        assert cluster.in_pod(pod, "cat", "/sys/class/net/eth0/mtu") == mtu


def test_a_service_balances_over_all_nodes_from_each(cluster: Cluster) -> None:
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    for name, pod in web_pods(cluster).items():
        command = f"for i in 1 2 3 4 5 6; do wget -qO- http://{address}/cgi-bin/who; done"
        said = cluster.in_pod(pod["metadata"]["name"], "sh", "-c", command)
        assert {line.split()[1] for line in said.splitlines()} == set(NODES), name


def test_a_node_port_answers_on_every_node(cluster: Cluster) -> None:
    port = cluster.get("service", "web")["spec"]["ports"][0]["nodePort"]
    for name, node in cluster.nodes.items():
        url = f"http://{node.machine.address}:{port}/cgi-bin/who"
        for caller in cluster.nodes.values():
            said = {caller.machine.run("curl", "-s", "-m", "5", url).out.split()[-1] for _ in NODES}
            assert said == set(NODES), name


def test_names_are_answered_on_every_node(cluster: Cluster) -> None:
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    for pod in web_pods(cluster).values():
        name = "web.default.svc.cluster.local"
        assert address in cluster.in_pod(pod["metadata"]["name"], "nslookup", name)


def test_pods_of_every_node_reach_the_api(cluster: Cluster) -> None:
    for pod in web_pods(cluster).values():
        command = "nc -w 5 kubernetes.default 443 < /dev/null && echo open"
        assert cluster.in_pod(pod["metadata"]["name"], "sh", "-c", command) == "open"


def test_logs_exec_and_port_forward_reach_pods_of_other_nodes(cluster: Cluster) -> None:
    cluster.kubectl(
        "run",
        "talker",
        "--image=busybox:latest",
        "--image-pull-policy=Never",
        "--restart=Never",
        "--overrides",
        json.dumps({"spec": {"nodeName": "c"}}),
        "--",
        "sh",
        "-c",
        "echo said here; exec sleep 1000",
    )
    cluster.kubectl("wait", "--for=condition=Ready", "pod/talker", "--timeout=30s")
    assert eventually(lambda: cluster.kubectl("logs", "talker")) == "said here\n"
    assert cluster.in_pod("talker", "hostname") == "talker"
    pod = web_pods(cluster)["b"]["metadata"]["name"]
    forward = cluster.server.start("kubectl", "port-forward", f"pod/{pod}", "18080:8080")
    try:
        assert forward.stdout is not None
        assert "Forwarding" in forward.stdout.readline()
        url = "http://127.0.0.1:18080/cgi-bin/who"
        assert cluster.server.machine.run("curl", "-s", url).out.split() == ["127.0.0.1", "b"]
    finally:
        forward.terminate()
        forward.wait()
    cluster.kubectl("delete", "pod", "talker", "--grace-period=0", "--force")


def test_pods_are_spread_over_the_nodes(cluster: Cluster) -> None:
    deployment = daemon_set("spread")
    deployment["kind"] = "Deployment"
    deployment["spec"]["replicas"] = 6
    deployment["spec"]["template"]["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "spread"}},
        }
    ]
    cluster.apply(deployment)
    cluster.kubectl("rollout", "status", "deploy/spread", "--timeout=60s")
    pods = cluster.get("pods", "-l", "app=spread")["items"]
    counts = [sum(p["spec"]["nodeName"] == name for p in pods) for name in NODES]
    assert counts == [2, 2, 2]
    cluster.kubectl("delete", "deploy", "spread")


# ---- tokens


def test_tokens_are_made_shown_and_deleted(cluster: Cluster) -> None:
    token = "own001.0123456789abcdef"
    server = cluster.server
    made = ("--ttl", "0", "--description", "for tests", "--groups", "system:bootstrappers:mine")
    assert server.wherry("token create", token, *made).out == f"{token}\n"
    heading, *rows = server.wherry("token list").out.splitlines()
    assert heading.split("  ")[0] == "TOKEN"
    row = next(row for row in rows if row.startswith(token))
    for cell in ("<forever>", "<never>", "authentication,signing", "for tests", made[-1]):
        assert cell in row
    again = server.wherry("token create", token, ok=False)
    assert again.code == 1 and 'a token with id "own001" already exists' in again.err
    assert server.wherry("token delete", "own001").out == 'bootstrap token "own001" deleted\n'
    assert token not in server.wherry("token list").out
    for wrong in (["short"], ["--ttl", "soon"], ["--usages", "all"], ["--groups", "admins"]):
        done = server.wherry("token create", *wrong, ok=False)
        assert done.code == 1 and done.err.startswith("wherry: "), wrong


# ---- who is not let in


def _command(cluster: Cluster, *arguments: str) -> list[str]:
    out = cluster.server.wherry("token create", "--print-join-command", *arguments).out
    return out.split()


@pytest.fixture(scope="module")
def joining(cluster: Cluster) -> tuple[str, ...]:
    """The words of a command that would be let in."""
    return tuple(_command(cluster))


@pytest.fixture
def stranger(cluster: Cluster) -> NodeInstance:
    return cluster.bench.instance("b", "stranger")


def _refused(cluster: Cluster, stranger: NodeInstance, words: list[str], name: str = "x") -> str:
    done = join(stranger, " ".join(words), "--node-name", name, ok=False)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert not stranger.data_dir.exists() or not any(stranger.data_dir.iterdir())
    return done.err


def test_a_wrong_token_is_refused(
    cluster: Cluster, stranger: NodeInstance, joining: tuple[str, ...]
) -> None:
    words = [*joining]
    good = words[4]
    words[4] = "abcdef.0123456789abcdef"
    assert 'JWS signature in the cluster-info ConfigMap for token ID "abcdef"' in _refused(
        cluster, stranger, words
    )
    words[4] = f"{good[:7]}0123456789abcdef"
    assert "failed to verify JWS signature" in _refused(cluster, stranger, words)
    words[4] = "nonsense"
    assert 'the bootstrap token "nonsense" was not of the form' in _refused(
        cluster, stranger, words
    )


def test_an_expired_token_is_removed_and_refused(cluster: Cluster, stranger: NodeInstance) -> None:
    words = _command(cluster, "--ttl", "1s")
    token = words[4]
    eventually(lambda: token not in cluster.server.wherry("token list").out)
    assert "could not find a JWS signature" in _refused(cluster, stranger, words)


def test_a_deleted_token_is_refused(cluster: Cluster, stranger: NodeInstance) -> None:
    words = _command(cluster)
    identity = words[4][:6]
    said = cluster.server.wherry("token delete", words[4]).out
    assert said == f'bootstrap token "{identity}" deleted\n'
    info = ("configmap", "cluster-info", "-n", "kube-public")
    eventually(lambda: f"jws-kubeconfig-{identity}" not in cluster.get(*info)["data"])
    assert "could not find a JWS signature" in _refused(cluster, stranger, words)


def test_another_authority_than_the_pinned_one_is_refused(
    cluster: Cluster, stranger: NodeInstance, joining: tuple[str, ...]
) -> None:
    words = [*joining]
    right = words[6]
    words[6] = "sha256:" + "0" * 64
    said = _refused(cluster, stranger, words)
    assert f'none of the public keys "{right}" are pinned' in said
    said = _refused(cluster, stranger, words[:5])
    assert "--discovery-token-ca-cert-hash is missing" in said


def test_the_name_of_a_node_that_is_ready_is_refused(
    cluster: Cluster, stranger: NodeInstance, joining: tuple[str, ...]
) -> None:
    words = [*joining]
    said = _refused(cluster, stranger, words, name="c")
    assert 'a Node with name "c" and status "Ready" already exists' in said


def test_a_token_that_is_not_for_authentication_lets_nobody_in(
    cluster: Cluster, stranger: NodeInstance
) -> None:
    words = _command(cluster, "--usages", "signing")
    assert "the API server does not accept the token" in _refused(cluster, stranger, words)


def test_somebody_else_at_that_address_is_told_apart(
    cluster: Cluster, stranger: NodeInstance, joining: tuple[str, ...]
) -> None:
    words = [*joining]
    words[2] = "198.18.0.254:6443"
    assert "the API server cannot be reached" in _refused(cluster, stranger, words)


# ---- nodes that go and come


def test_a_node_that_is_cut_off_loses_its_pods_and_recovers(cluster: Cluster) -> None:
    deployment = daemon_set("mover")
    deployment["kind"] = "Deployment"
    spec = deployment["spec"]["template"]["spec"]
    spec["tolerations"] = [
        {
            "key": f"node.kubernetes.io/{key}",
            "effect": "NoExecute",
            "operator": "Exists",
            "tolerationSeconds": 1,
        }
        for key in ("unreachable", "not-ready")
    ]
    spec["affinity"] = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 100,
                    "preference": {
                        "matchExpressions": [
                            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}
                        ]
                    },
                }
            ]
        }
    }
    cluster.apply(deployment, service("mover"))
    cluster.kubectl("rollout", "status", "deploy/mover", "--timeout=60s")

    def places() -> list[str | None]:
        pods = cluster.get("pods", "-l", "app=mover")["items"]
        return [p["spec"].get("nodeName") for p in pods if "deletionTimestamp" not in p["metadata"]]

    assert places() == ["b"]
    cluster.bench.cut("b")
    try:
        eventually(lambda: cluster.ready("b") == "Unknown", seconds=30)
        assert "b NotReady" in " ".join(cluster.kubectl("get", "node", "b").split())
        taints = eventually(lambda: cluster.get("node", "b")["spec"].get("taints"))
        assert "node.kubernetes.io/unreachable" in {t["key"] for t in taints}
        eventually(lambda: places() and not {None, "b"} & set(places()), seconds=30)
        cluster.kubectl("rollout", "status", "deploy/mover", "--timeout=60s")
        url = f"http://{cluster.get('service', 'mover')['spec']['clusterIP']}/cgi-bin/who"
        for _ in range(6):
            done = cluster.server.machine.run("curl", "-s", "-m", "5", url)
            assert done.out.split()[1] in "ac"
    finally:
        cluster.bench.mend("b")
    eventually(lambda: cluster.ready("b") == "True", seconds=60)
    eventually(lambda: not cluster.get("node", "b")["spec"].get("taints"))
    # What ran on it and was replaced has ended, and it takes part again.
    eventually(
        lambda: (
            "b"
            not in [p["spec"]["nodeName"] for p in cluster.get("pods", "-l", "app=mover")["items"]]
        ),
        seconds=60,
    )
    cluster.kubectl("rollout", "status", "ds/web", "--timeout=60s")
    test_pods_on_different_nodes_reach_each_other_by_their_own_addresses(cluster)
    cluster.kubectl("delete", "deploy,service", "mover")


def test_a_node_is_drained_deleted_and_joins_again(cluster: Cluster) -> None:
    node = cluster.nodes["c"]
    cluster.kubectl("drain", "c", "--ignore-daemonsets", "--force", "--timeout=60s")
    assert cluster.get("node", "c")["spec"]["unschedulable"] is True
    cluster.kubectl("uncordon", "c")
    node.wherry("down", "--grace", "0")
    cluster.kubectl("delete", "node", "c")
    routes = cluster.nodes["a"].machine
    eventually(lambda: "onlink" not in routes.run("ip", "route").out)
    command = cluster.server.wherry("token create", "--print-join-command").out
    join(node, command)
    assert cluster.ready("c") == "True"
    cluster.kubectl("rollout", "status", "ds/web", "--timeout=60s")
    test_pods_on_different_nodes_reach_each_other_by_their_own_addresses(cluster)


def test_a_node_is_started_again_without_a_token(cluster: Cluster) -> None:
    node = cluster.nodes["b"]
    node.wherry("down", "--grace", "0")
    eventually(lambda: cluster.ready("b") == "Unknown", seconds=30)
    node.wherry("up")
    eventually(lambda: cluster.ready("b") == "True")
    cluster.kubectl("rollout", "status", "ds/web", "--timeout=60s")


def test_a_purged_node_leaves_nothing(cluster: Cluster) -> None:
    node = cluster.nodes["c"]
    place = find(node.data_dir)
    assert place is not None
    node.wherry("down", "--purge", "--grace", "1")
    assert not node.data_dir.exists()
    links = node.machine.run("ip", "-o", "link").out
    assert "wherry" not in links
    assert "10." not in node.machine.run("ip", "route").out
    assert "wherry" not in node.machine.run("nft", "list", "tables").out
    assert not place.run_dir.exists()
