"""What Services may say of who is led where, on the real kernel."""

from __future__ import annotations

import datetime
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Instance, eventually
from test_proxy import fetch, pod_of

from ports import free_port

WORLD = """
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: web}}
spec:
  containers: [{name: hello, image: "hello:1"}]
  terminationGracePeriodSeconds: 1
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: web}}
spec:
  containers: [{name: hello, image: "hello:1"}]
  terminationGracePeriodSeconds: 1
"""
FAR = "10.255.255.1"
# A program of this machine hears it from its own system call, or from the ICMP message.
REFUSED = (ConnectionRefusedError, PermissionError)


@pytest.fixture(scope="module")
def web(cluster: Instance) -> Iterator[str]:
    """Two pods that answer, in a namespace."""
    name = "policies"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("-n", name, "apply", "-f", "-", stdin=WORLD)
    cluster.kubectl("-n", name, "wait", "--for=condition=Ready", "pod", "--all")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", ok=False)


def serve(cluster: Instance, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    made = service_of(namespace, name, **spec)
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    return cluster.get("svc", name, "-n", namespace)


def service_of(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
            **spec,
        },
    }


def endpoints(
    cluster: Instance,
    namespace: str,
    service: str,
    *listed: dict[str, Any],
    port: int = 8080,
    protocol: str = "TCP",
) -> None:
    """A slice by hand for a Service without a selector."""
    made = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"port": port, "protocol": protocol}],
        "endpoints": list(listed),
    }  # fmt: skip
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))


def address(cluster: Instance, namespace: str, pod: str) -> str:
    found: str = cluster.get("pod", pod, "-n", namespace)["status"]["podIP"]
    return found


def node(cluster: Instance) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("nodes")["items"][0]
    return found


def status_of(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None


def answers(url: str) -> bool:
    return fetch(url)[0] == 0


def by_pods(url: str) -> set[str]:
    return {pod_of(fetch(url)[1]) for _ in range(6)}


def test_external_addresses_lead_to_the_service_from_here_and_from_pods(
    cluster: Instance, web: str
) -> None:
    # Of the range of services, so that nothing leaves this machine before it is served.
    prefix = ".".join(cluster.get("svc", "kubernetes")["spec"]["clusterIP"].split(".")[:2])
    outer = f"{prefix}.255.77"
    serve(cluster, web, "outer", externalIPs=[outer])
    eventually(lambda: answers(f"http://{outer}"))
    out = cluster.kubectl("-n", web, "exec", "one", "--", "wget", "-qO-", f"http://{outer}").out
    assert pod_of(out) in ("one", "two")
    # Ages are whole seconds; of two that are as old the first by name has it.
    serve(cluster, web, "rival", externalIPs=[outer])
    said = eventually(
        lambda: cluster.get("events", "-n", web, "--field-selector", "reason=AddressTaken")["items"]
    )
    assert said[0]["message"] == (
        f"{outer}:80 is not served for this Service: {web}/outer, which is older, has it"
    )
    cluster.kubectl("-n", web, "delete", "svc", "outer", "rival")


def test_a_balancers_address_answers_those_of_its_source_ranges_only(
    cluster: Instance, web: str
) -> None:
    port = free_port()  # a balancer's address is the machine's own, which others have as well
    ports = [{"port": port, "targetPort": 8080}]
    beyond = ["198.51.100.0/24"]
    made = serve(
        cluster, web, "lb", type="LoadBalancer", ports=ports, loadBalancerSourceRanges=beyond
    )
    found = eventually(
        lambda: cluster.get("svc", "lb", "-n", web)["status"]["loadBalancer"].get("ingress")
    )[0]["ip"]
    eventually(lambda: answers(f"http://{made['spec']['clusterIP']}:{port}"))
    eventually(lambda: fetch(f"http://{found}:{port}", "--max-time", "1")[0] == 28)
    ranges = [*beyond, f"{found}/32", "127.0.0.0/8", "10.0.0.0/8"]
    serve(cluster, web, "lb", type="LoadBalancer", ports=ports, loadBalancerSourceRanges=ranges)
    eventually(lambda: answers(f"http://{found}:{port}"))
    cluster.kubectl("-n", web, "delete", "svc", "lb")


def test_a_policy_of_this_node_alone_leaves_its_endpoints_and_tells_balancers(
    cluster: Instance, web: str
) -> None:
    here = node(cluster)["metadata"]["name"]
    port = free_port()  # a balancer's address is the machine's own, which others have as well
    made = serve(
        cluster, web, "local", type="LoadBalancer", externalTrafficPolicy="Local",
        internalTrafficPolicy="Local", selector=None, ports=[{"port": port, "targetPort": 8080}],
    )  # fmt: skip
    check = f"http://127.0.0.1:{made['spec']['healthCheckNodePort']}/"
    eventually(lambda: status_of(check)[0] == 503)
    one = {"addresses": [address(cluster, web, "one")], "nodeName": here}
    far = {"addresses": [FAR], "nodeName": "elsewhere"}
    endpoints(cluster, web, "local", one, far)
    told = {
        "service": {"namespace": web, "name": "local"},
        "localEndpoints": 1,
        "serviceProxyHealthy": True,
    }
    eventually(lambda: status_of(check) == (200, told))
    url = f"http://{made['spec']['clusterIP']}:{port}"
    eventually(lambda: by_pods(url) == {"one"})
    endpoints(cluster, web, "local", far)
    eventually(lambda: status_of(check)[0] == 503)
    # Nothing is said, as another node may answer.
    eventually(lambda: fetch(url, "--max-time", "1")[0] == 28)
    cluster.kubectl("-n", web, "delete", "svc", "local")
    eventually(lambda: status_of(check)[0] == 0)


def test_endpoints_meant_for_another_zone_are_left_to_it(cluster: Instance, web: str) -> None:
    name = node(cluster)["metadata"]["name"]
    cluster.kubectl("label", "node", name, "topology.kubernetes.io/zone=east", "--overwrite")
    made = serve(cluster, web, "zoned", selector=None)
    one, two = (
        {
            "addresses": [address(cluster, web, pod)],
            "nodeName": name,
            "hints": {"forZones": [{"name": zone}]},
        }
        for pod, zone in (("one", "east"), ("two", "west"))
    )
    endpoints(cluster, web, "zoned", one, two)
    url = f"http://{made['spec']['clusterIP']}"
    eventually(lambda: by_pods(url) == {"one"})
    cluster.kubectl("label", "node", name, "topology.kubernetes.io/zone=west", "--overwrite")
    eventually(lambda: by_pods(url) == {"two"})
    cluster.kubectl("label", "node", name, "topology.kubernetes.io/zone-")
    eventually(lambda: by_pods(url) == {"one", "two"})
    cluster.kubectl("-n", web, "delete", "svc", "zoned")


@pytest.fixture
def far_pod(cluster: Instance, web: str) -> Iterator[Callable[[], None]]:
    """A pod like the others on a node in another zone, of which there are only the words.

    What it gives says that the node is alive, which holds for forty seconds.
    """
    name = node(cluster)["metadata"]["name"]
    cluster.kubectl("label", "node", name, "topology.kubernetes.io/zone=east", "--overwrite")
    far = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "far", "labels": {"topology.kubernetes.io/zone": "west"}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "three", "namespace": web, "labels": {"app": "web"}},
        "spec": {
            "nodeName": "far",
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "hello", "image": "hello:1"}],
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(far))
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    status = {
        "phase": "Running",
        "podIP": FAR,
        "podIPs": [{"ip": FAR}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    patch = ("patch", "pod", "three", "-n", web, "--subresource=status", "--type=merge", "-p")
    cluster.kubectl(*patch, json.dumps({"status": status}))

    def beat() -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now[:19] + "Z"}
        told = json.dumps({"status": {"conditions": [ready]}})
        where = ("patch", "node", "far", "--subresource=status", "--type=merge", "-p", told)
        cluster.kubectl(*where)

    yield beat
    cluster.kubectl("-n", web, "delete", "pod", "three", "--force", "--grace-period=0", ok=False)
    cluster.kubectl("delete", "node", "far")
    cluster.kubectl("label", "node", name, "topology.kubernetes.io/zone-")


def test_traffic_distribution_prefers_what_is_near(
    cluster: Instance, web: str, far_pod: Callable[[], None]
) -> None:
    for wish, hint in (
        ("PreferClose", "forZones"),
        ("PreferSameZone", "forZones"),
        ("PreferSameNode", "forNodes"),
    ):
        far_pod()
        name = f"near-{wish.lower()}"
        made = serve(cluster, web, name, trafficDistribution=wish)

        def hints(name: str = name, hint: str = hint) -> bool:
            chosen = f"kubernetes.io/service-name={name}"
            found = cluster.get("endpointslices", "-n", web, "-l", chosen)["items"]
            listed = [e for s in found for e in s.get("endpoints") or ()]
            return len(listed) == 3 and all((e.get("hints") or {}).get(hint) for e in listed)

        eventually(hints)
        url = f"http://{made['spec']['clusterIP']}"
        # The one that is far would not answer.
        eventually(lambda url=url: by_pods(url) == {"one", "two"})
        assert by_pods(url) == {"one", "two"}
        cluster.kubectl("-n", web, "delete", "svc", name)


def test_an_endpoint_that_terminates_answers_while_there_is_no_other(
    cluster: Instance, web: str
) -> None:
    made = serve(cluster, web, "going", selector=None)
    url = f"http://{made['spec']['clusterIP']}"
    conditions = {"ready": False, "serving": True, "terminating": True}
    going = {"addresses": [address(cluster, web, "one")], "conditions": conditions}
    endpoints(cluster, web, "going", going)
    eventually(lambda: by_pods(url) == {"one"})
    endpoints(cluster, web, "going", going, {"addresses": [address(cluster, web, "two")]})
    eventually(lambda: by_pods(url) == {"two"})
    cluster.kubectl("-n", web, "delete", "svc", "going")


def test_datagrams_follow_when_an_endpoint_leaves_and_are_refused_without_any(
    cluster: Instance, web: str
) -> None:
    ports = [{"port": 53, "protocol": "UDP"}]
    made = serve(cluster, web, "udp", selector=None, ports=ports)
    where = (made["spec"]["clusterIP"], 53)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, \
            _echo(b"first") as first, _echo(b"second") as second:  # fmt: skip
        client.settimeout(1)
        client.connect(where)
        eventually(lambda: _ask(client) in REFUSED)
        for port, name in ((first, b"first"), (second, b"second")):
            listed = {"addresses": [_own_address(cluster)]}
            endpoints(cluster, web, "udp", listed, port=port, protocol="UDP")
            # The client goes on with the same socket: only a forgotten flow is led anew.
            eventually(lambda name=name: _ask(client) == name)
        cluster.kubectl("-n", web, "delete", "endpointslice", "udp")
        eventually(lambda: _ask(client) in REFUSED)
    cluster.kubectl("-n", web, "delete", "svc", "udp")


def _own_address(cluster: Instance) -> str:
    found: str = node(cluster)["status"]["addresses"][0]["address"]
    return found


def _ask(client: socket.socket) -> Any:
    try:
        client.send(b"?")
        return client.recv(100)
    except OSError as error:
        return type(error)


class _echo:  # noqa: N801
    """A server of UDP in a thread that says its name; its port."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def __enter__(self) -> int:
        script = (
            "import socket,sys\n"
            "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('0.0.0.0',0))\n"
            "print(s.getsockname()[1],flush=True)\n"
            "while True:\n d,a=s.recvfrom(100);s.sendto(sys.argv[1].encode(),a)\n"
        )
        argv = ["python3", "-c", script, self.name.decode()]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_the_proxy_tells_how_it_is(cluster: Instance) -> None:
    from wherry.launcher.instance import find

    instance = find(cluster.data_dir)
    assert instance is not None
    health = f"http://127.0.0.1:{instance.proxy_health_port}/healthz"
    _, told = eventually(lambda: (said := status_of(health))[0] == 200 and said)
    assert told["nodeEligible"] is True
    url = f"http://127.0.0.1:{instance.proxy_metrics_port}/proxyMode"
    assert fetch(url) == (0, "nftables")


def test_no_chain_is_a_services_own(cluster: Instance, web: str) -> None:
    from wherry.launcher.instance import find

    instance = find(cluster.data_dir)
    assert instance is not None

    def chains() -> int:
        argv = ["nft", "list", "chains", "ip"]
        out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        (own,) = [t for t in out.split("table ip ") if t.startswith(f"{instance.nft_table}-proxy ")]
        return own.count("chain ")

    many = [service_of(web, f"many{number}") for number in range(39)]
    listed = {"apiVersion": "v1", "kind": "List", "items": many}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(listed))
    last = serve(cluster, web, "many39")
    eventually(lambda: answers(f"http://{last['spec']['clusterIP']}"))
    # One for each of the 16 counters of Services with as many endpoints, at most.
    assert chains() < 80
    cluster.kubectl("-n", web, "delete", "svc", "--all", "--wait=false")
