"""What controllers do, as a user of kubectl sees it on an instance."""

from __future__ import annotations

import json

import pytest
from conftest import Instance, eventually


def described(cluster: Instance, *what: str) -> str:
    return cluster.kubectl("describe", *what).out


def test_a_load_balancer_has_an_address_at_once_and_a_port_is_given_once(
    cluster: Instance, namespace: str
):
    where = ("-n", namespace)
    cluster.kubectl("create", "service", "loadbalancer", "first", "--tcp=18080:80", *where)
    address = cluster.get("nodes")["items"][0]["status"]["addresses"][0]["address"]

    def column(name: str) -> str:
        return cluster.kubectl("get", "service", name, *where, "--no-headers").out.split()[3]

    eventually(lambda: column("first") == address)
    text = eventually(
        lambda: "Ensured load balancer" in (t := described(cluster, "service/first", *where)) and t
    )
    assert "EnsuringLoadBalancer" in text and "EnsuredLoadBalancer" in text
    cluster.kubectl("create", "service", "loadbalancer", "second", "--tcp=18080:80", *where)
    eventually(lambda: "SyncLoadBalancerFailed" in described(cluster, "service/second", *where))
    assert column("second") == "<pending>"
    cluster.kubectl("delete", "service", "first", *where)
    eventually(lambda: column("second") == address)


def test_endpoints_written_by_hand_become_slices(cluster: Instance, namespace: str):
    body = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "db"},
                "spec": {"ports": [{"port": 5432}]},
            },
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": "db"},
                "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432}]}],
            },
        ],
    }
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))

    def shown() -> bool:
        found = cluster.get("endpointslices", "-n", namespace)["items"]
        return [s["endpoints"][0]["addresses"] for s in found] == [["192.0.2.7"]]

    eventually(shown)


def test_the_name_server_has_endpoints_as_tutorials_show(cluster: Instance):
    name_server = ("endpoints", "kube-dns", "-n", "kube-system")
    (subset,) = eventually(lambda: cluster.get(*name_server).get("subsets"))
    assert {p["port"] for p in subset["ports"]} == {53}
    slices = cluster.get("endpointslices", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    assert len(slices) == 1, "they are not mirrored beside the slice"


def test_a_budget_has_a_status(cluster: Instance, namespace: str):
    where = ("-n", namespace)
    cluster.kubectl("create", "deployment", "web", "--image=hello:1", "--replicas=2", *where)
    cluster.kubectl("create", "pdb", "web", "--selector=app=web", "--min-available=1", *where)
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=110s", *where)

    def filled() -> bool:
        status = cluster.get("pdb", "web", *where)["status"]
        wanted = {"currentHealthy": 2, "desiredHealthy": 1, "disruptionsAllowed": 1}
        return status.items() >= {**wanted, "expectedPods": 2}.items()

    eventually(filled)
    (condition,) = cluster.get("pdb", "web", *where)["status"]["conditions"]
    assert (condition["reason"], condition["status"]) == ("SufficientPods", "True")


_POD = {
    "metadata": {"labels": {"app": "roll"}},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "hello:1", "env": [{"name": "V", "value": "1"}]}],
    },
}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_rollouts_are_followed_told_and_undone(
    cluster: Instance, namespace: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    where, name = ("-n", namespace), f"{kind.lower()}/roll"
    spec: dict[str, object] = {"selector": {"matchLabels": {"app": "roll"}}, "template": _POD}
    if kind == "StatefulSet":
        spec["serviceName"] = "roll"
    if kind != "DaemonSet":
        spec["replicas"] = 2
    body = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "roll"}, "spec": spec}
    cluster.kubectl("apply", *where, "-f", "-", stdin=json.dumps(body))

    def settled() -> str:
        return cluster.kubectl("rollout", "status", name, "--timeout=110s", *where).out

    told = {
        "Deployment": 'deployment "roll" successfully rolled out',
        "StatefulSet": "partitioned roll out complete: 2 new pods have been updated...",
        "DaemonSet": 'daemon set "roll" successfully rolled out',
    }
    settled()
    cluster.kubectl("annotate", name, "kubernetes.io/change-cause=first", *where)
    cluster.kubectl("set", "env", name, "V=2", *where)
    assert told[kind] in settled()
    cluster.kubectl("annotate", name, "kubernetes.io/change-cause=second", *where)

    def history() -> bool:
        lines = cluster.kubectl("rollout", "history", name, *where).out.splitlines()
        numbers = [line.split()[0] for line in lines if line[:1].isdigit()]
        return numbers == ["1", "2"]

    eventually(history)
    one = cluster.kubectl("rollout", "history", name, "--revision=1", *where).out
    assert "V:\t1" in one
    cluster.kubectl("rollout", "undo", name, *where)
    settled()

    def values() -> set[str]:
        pods = cluster.get("pods", *where)["items"]
        return {
            p["spec"]["containers"][0]["env"][0]["value"]
            for p in pods
            if "deletionTimestamp" not in p["metadata"]
        }

    assert values() == {"1"}
    # Clients before 1.34 write templates in another form, and do not see that they are the same.
    monkeypatch.setattr(cluster, "kubectl_name", "kubectl-1.37")
    again = cluster.kubectl("rollout", "undo", name, "--to-revision=3", *where).out
    assert "skipped rollback (current template already matches revision 3)" in again
    before = {p["metadata"]["uid"] for p in cluster.get("pods", *where)["items"]}
    cluster.kubectl("rollout", "restart", name, *where)
    settled()
    after = cluster.get("pods", *where)["items"]
    living = {p["metadata"]["uid"] for p in after if "deletionTimestamp" not in p["metadata"]}
    assert not living & before
    if kind == "Deployment":
        cluster.kubectl("rollout", "pause", name, *where)
        cluster.kubectl("set", "env", name, "V=9", *where)
        refused = cluster.kubectl("rollout", "undo", name, *where, ok=False)
        assert "you cannot rollback a paused deployment" in refused.err
        cluster.kubectl("rollout", "resume", name, *where)
        settled()
        assert values() == {"9"}
