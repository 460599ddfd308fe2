"""Further ranges of cluster IPs, from the object to the node."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Instance, eventually

from wherry.launcher.instance import find


def fetch(address: str) -> int:
    """curl's exit code; 7 is a refused connection."""
    argv = ["curl", "-s", "-o", "/dev/null", "--max-time", "4", f"http://{address}"]
    return subprocess.run(argv, check=False).returncode


def routes(cidr: str) -> list[str]:
    said = subprocess.run(["ip", "route", "show", cidr], capture_output=True, text=True, check=True)
    return [line.split(cidr)[0].strip() or "way" for line in said.stdout.splitlines()]


@contextmanager
def written(cluster: Instance, name: str, cidr: str) -> Iterator[None]:
    """A ServiceCIDR, for a while."""
    body: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": [cidr]},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    try:
        yield
    finally:
        if cluster.kubectl("get", "servicecidr", name, ok=False).code == 0:
            cluster.kubectl("delete", "servicecidr", name, "--wait=false", ok=False)
            patch = '{"metadata":{"finalizers":null}}'
            cluster.kubectl("patch", "servicecidr", name, "--type=merge", "-p", patch, ok=False)


@pytest.fixture
def cidr(cluster: Instance) -> Iterator[str]:
    """A range of 14 addresses that nobody has (RFC 2544: no network here uses it)."""
    found = f"198.19.{random.randrange(256)}.{random.randrange(16) * 16}/28"
    with written(cluster, "more", found):
        yield found


def ready(cluster: Instance, name: str) -> dict[str, str]:
    """What a ServiceCIDR says of itself."""
    status = cluster.get("servicecidr", name).get("status") or {}
    (said,) = status.get("conditions") or ({"status": ""},)
    return said  # type: ignore[no-any-return]


def expose(cluster: Instance, namespace: str, name: str, address: str, app: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterIP": address,
            "selector": {"app": app},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))


def test_services_of_a_further_range_are_served_and_hold_it(
    cluster: Instance, namespace: str, cidr: str
) -> None:
    prefix, last = cidr.removesuffix("/28").rsplit(".", 1)
    served, alone, nobody = (f"{prefix}.{int(last) + number}" for number in (3, 4, 5))
    cluster.kubectl("-n", namespace, "create", "deployment", "web", "--image=hello:1")
    expose(cluster, namespace, "web", served, "web")
    expose(cluster, namespace, "alone", alone, "nothing")
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=110s")
    eventually(lambda: fetch(served) == 0)
    eventually(lambda: sorted(routes(cidr)) == ["unreachable", "way"])
    eventually(lambda: fetch(alone) == fetch(nobody) == 7)
    pod = cluster.get("pods", "-n", namespace)["items"][0]["metadata"]["name"]
    inside = ("exec", "-n", namespace, pod, "--", "wget", "-qO-")
    cluster.kubectl(*inside, f"http://{served}")
    refused = cluster.kubectl(*inside, f"http://{nobody}", ok=False)
    assert "refused" in refused.out + refused.err
    shown = cluster.kubectl("get", "servicecidr,ipaddress").out.splitlines()
    columns = [line.split()[:2] for line in shown if line]
    assert ["NAME", "CIDRS"] in columns and ["NAME", "PARENTREF"] in columns
    assert ["servicecidr.networking.k8s.io/more", cidr] in columns
    assert [f"ipaddress.networking.k8s.io/{served}", f"services/{namespace}/web"] in columns

    eventually(lambda: ready(cluster, "more")["status"] == "True")
    cluster.kubectl("delete", "servicecidr", "more", "--wait=false")
    eventually(lambda: ready(cluster, "more").get("reason") == "Terminating")
    assert ready(cluster, "more")["status"] == "False"
    assert fetch(served) == 0
    body = cluster.kubectl(
        "-n", namespace, "create", "service", "clusterip", "late", f"--clusterip={nobody}",
        "--tcp=80", ok=False,
    )  # fmt: skip
    assert "is not in the valid range" in body.err
    cluster.kubectl("-n", namespace, "delete", "service", "web", "alone")
    cluster.kubectl("wait", "--for=delete", "servicecidr/more", "--timeout=110s")
    eventually(lambda: routes(cidr) == [])
    eventually(lambda: not (cluster.data_dir / "further-service-ranges").exists())


def test_a_range_in_which_there_is_something_is_left_alone_and_says_so(
    cluster: Instance, namespace: str
) -> None:
    one = find(cluster.data_dir)
    assert one is not None
    pods, containers = one.cluster_range.rpartition(".0.0/")[0], one.bridge_range
    within = containers.replace(".0.0/16", ".240.0/28")
    at = within.replace(".0/28", ".3")

    # What the cluster's nodes have gives no addresses,
    with written(cluster, "pods", f"{pods}.240.0/28"):
        eventually(lambda: ready(cluster, "pods").get("reason") == "RangeOverlaps")
        said = ready(cluster, "pods")
        assert said["status"] == "False"
        assert said["message"].startswith(f"{pods}.240.0/28 overlaps {one.cluster_range}, the pods")

    # and where a node reaches something else nobody is led to Services.
    with written(cluster, "near", within):
        expose(cluster, namespace, "near", at, "nothing")
        what = f"overlaps {containers}, which this node reaches otherwise"

        def told(kind: str) -> str:
            return cluster.kubectl("get", "events", "-A", f"--field-selector=reason={kind}").out

        eventually(lambda: f"it {what}" in told("RangeOverlaps"))
        eventually(
            lambda: f"{at} is not served on this node: {within} {what}" in told("AddressTaken")
        )
        assert routes(within) == []
        # Asked is whoever is behind the bridge.
        asked = subprocess.run(["ip", "route", "get", at], capture_output=True, text=True).stdout
        assert f"dev {one.bridge}" in asked
        cluster.kubectl("-n", namespace, "delete", "service", "near")
