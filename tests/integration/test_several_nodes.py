"""A cluster of three machines: two on one link, the third behind a router."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
        nodes |= {name: bench.instance(name) for name in NODES[1:]}

        def begin(name: str) -> None:
            if nodes[name] is not server:
                join(nodes[name], command, "--node-name", name, *kubelet)
            nodes[name].wherry("images bootstrap", "busybox")

        with ThreadPoolExecutor() as pool:
            list(pool.map(begin, nodes))
        made = Cluster(bench, server, nodes)
        made.apply(daemon_set("web"), service("web"))
        made.kubectl("rollout", "status", "ds/web", "--timeout=110s")
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
    eventually(lambda: {cluster.ready(name) for name in NODES} == {"True"})
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
            url = f"http://{address}:8080/cgi-bin/who"
            ask = ("exec", name, "--", "timeout", "20", "wget", "-qO-", url)
            # (Nodes follow what others tell of their ranges.)
            said = eventually(lambda ask=ask: cluster.server.kubectl(*ask, ok=False).out.strip())
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
            done = node.machine.run("curl", "-s", "-m", "60", url)
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
        once = f"timeout 20 wget -qO- http://{address}/cgi-bin/who"
        command = f"for i in 1 2 3 4 5 6; do {once}; done; true"
        ask = (pod["metadata"]["name"], "sh", "-c", command)

        def answered(ask: tuple[str, ...] = ask) -> set[str]:
            return {line.split()[-1] for line in cluster.in_pod(*ask).splitlines() if line}

        eventually(lambda: answered() == set(NODES), told=lambda: name)  # noqa: B023


def test_a_node_port_answers_on_every_node(cluster: Cluster) -> None:
    port = cluster.get("service", "web")["spec"]["ports"][0]["nodePort"]
    for name, node in cluster.nodes.items():
        url = f"http://{node.machine.address}:{port}/cgi-bin/who"
        for caller in cluster.nodes.values():
            ask = ("curl", "-s", "-m", "60", url)

            def answered(caller: NodeInstance = caller, ask: tuple[str, ...] = ask) -> set[str]:
                return {
                    caller.machine.run(*ask, ok=False).out.split(" ")[-1].strip() for _ in NODES
                }

            eventually(lambda: answered() == set(NODES), told=lambda: name)  # noqa: B023


def test_names_are_answered_on_every_node(cluster: Cluster) -> None:
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    for pod in web_pods(cluster).values():
        name = "web.default.svc.cluster.local"
        assert address in cluster.in_pod(pod["metadata"]["name"], "nslookup", name)


def test_pods_of_every_node_reach_the_api(cluster: Cluster) -> None:
    for pod in web_pods(cluster).values():
        command = "nc -w 5 kubernetes.default 443 < /dev/null && echo open"
        assert cluster.in_pod(pod["metadata"]["name"], "sh", "-c", command) == "open"


def test_policies_hold_between_nodes_and_follow_labels(cluster: Cluster) -> None:
    pods = web_pods(cluster)
    addresses = " ".join(pod["status"]["podIP"] for pod in pods.values())
    ask = f"for ip in {addresses}; do timeout 3 wget -qO- http://$ip:8080/cgi-bin/who & done; wait"
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"friend": "yes"}}}]}],
    }
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    cluster.apply({**kind, "metadata": {"name": "friends"}, "spec": spec})

    def reached() -> dict[str, set[str]]:
        names = {node: pod["metadata"]["name"] for node, pod in pods.items()}
        with ThreadPoolExecutor() as pool:  # (who is refused hears nothing, and waits for it)
            said = pool.map(lambda name: cluster.in_pod(name, "sh", "-c", ask), names.values())
        found = ({line.split()[1] for line in text.splitlines()} for text in said)
        return dict(zip(names, found, strict=True))

    for friend in ("a", "c"):
        name = pods[friend]["metadata"]["name"]
        cluster.kubectl("label", "pod", name, "friend=yes")
        wanted = {node: {*NODES} if node == friend else {node} for node in NODES}
        eventually(lambda wanted=wanted: reached() == wanted)
        cluster.kubectl("label", "pod", name, "friend-")
    cluster.kubectl("delete", "networkpolicy", "friends")
    eventually(lambda: reached() == {node: {*NODES} for node in NODES})


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
    cluster.kubectl("wait", "--for=condition=Ready", "pod/talker", "--timeout=110s")
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
    cluster.kubectl("rollout", "status", "deploy/spread", "--timeout=110s")
    pods = cluster.get("pods", "-l", "app=spread")["items"]
    counts = [sum(p["spec"]["nodeName"] == name for p in pods) for name in NODES]
    assert counts == [2, 2, 2]
    cluster.kubectl("delete", "deploy", "spread")


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
    cluster.kubectl("rollout", "status", "deploy/mover", "--timeout=110s")

    def places() -> list[str | None]:
        pods = cluster.get("pods", "-l", "app=mover")["items"]
        return [p["spec"].get("nodeName") for p in pods if "deletionTimestamp" not in p["metadata"]]

    assert places() == ["b"]
    cluster.bench.cut("b")
    try:
        eventually(lambda: cluster.ready("b") == "Unknown")
        assert "b NotReady" in " ".join(cluster.kubectl("get", "node", "b").split())
        taints = eventually(lambda: cluster.get("node", "b")["spec"].get("taints"))
        assert "node.kubernetes.io/unreachable" in {t["key"] for t in taints}
        eventually(lambda: (found := places()) and not {None, "b"} & set(found))
        cluster.kubectl("rollout", "status", "deploy/mover", "--timeout=110s")
        url = f"http://{cluster.get('service', 'mover')['spec']['clusterIP']}/cgi-bin/who"
        ask = ("curl", "-s", "-m", "60", url)
        eventually(lambda: cluster.server.machine.run(*ask, ok=False).out)
        for _ in range(6):
            done = cluster.server.machine.run(*ask)
            assert done.out.split()[1] in "ac"
    finally:
        cluster.bench.mend("b")
    eventually(lambda: cluster.ready("b") == "True")
    eventually(lambda: not cluster.get("node", "b")["spec"].get("taints"))
    # What ran on it and was replaced has ended, and it takes part again.
    movers = ("pods", "-l", "app=mover")
    eventually(
        lambda: "b" not in [p["spec"].get("nodeName") for p in cluster.get(*movers)["items"]]
    )
    cluster.kubectl("rollout", "status", "ds/web", "--timeout=110s")
    test_pods_on_different_nodes_reach_each_other_by_their_own_addresses(cluster)
    cluster.kubectl("delete", "deploy,service", "mover")


def test_a_node_is_drained_deleted_and_joins_again(cluster: Cluster) -> None:
    node = cluster.nodes["c"]
    cluster.kubectl("drain", "c", "--ignore-daemonsets", "--force", "--timeout=110s")
    assert cluster.get("node", "c")["spec"]["unschedulable"] is True
    cluster.kubectl("uncordon", "c")
    node.wherry("down", "--grace", "0")
    cluster.kubectl("delete", "node", "c")
    routes = cluster.nodes["a"].machine
    eventually(lambda: "onlink" not in routes.run("ip", "route").out)
    command = cluster.server.wherry("token create", "--print-join-command").out
    join(node, command, "--proxy-mode", "userspace")
    eventually(lambda: cluster.ready("c") == "True")
    assert proxy_mode(node) == "userspace"
    cluster.kubectl("rollout", "status", "ds/web", "--timeout=110s")
    test_pods_on_different_nodes_reach_each_other_by_their_own_addresses(cluster)
    test_a_service_balances_over_all_nodes_from_each(cluster)


def proxy_mode(node: NodeInstance) -> str:
    """As its proxy tells it."""
    place = find(node.data_dir)
    assert place is not None
    url = f"http://127.0.0.1:{place.proxy_metrics_port}/proxyMode"
    return eventually(lambda: node.machine.run("curl", "-s", "-m", "5", url, ok=False).out)


def test_a_node_is_started_again_without_a_token(cluster: Cluster) -> None:
    node = cluster.nodes["b"]
    node.wherry("down", "--grace", "0")
    eventually(lambda: cluster.ready("b") == "Unknown")
    node.wherry("up")
    eventually(lambda: cluster.ready("b") == "True")
    cluster.kubectl("rollout", "status", "ds/web", "--timeout=110s")


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


def test_a_new_node_leads_to_services_as_the_cluster_does(cluster: Cluster) -> None:
    cluster.server.wherry("down", "--grace", "0")
    cluster.server.wherry("up", "--proxy-mode", "iptables")
    command = cluster.server.wherry("token create", "--print-join-command").out
    node = cluster.bench.instance("c", "another")
    join(node, command, "--node-name", "another")
    assert proxy_mode(node) == "iptables"
    eventually(lambda: "KUBE" in node.machine.run("iptables-nft-save").out)
    node.wherry("down", "--purge", "--grace", "1")
    assert "KUBE" not in node.machine.run("iptables-nft-save").out
