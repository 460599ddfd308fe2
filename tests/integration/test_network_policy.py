"""NetworkPolicies, judged by connections between pods on the real kernel.

The pods do nothing: the test itself opens sockets inside their networks, so that a whole table of
connections is tried at once and in a moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Instance, eventually
from dnslib import DNSRecord

from wherry.net import namespaces

RED, BLUE = "policy-red", "policy-blue"
IDLE = "trap 'exit 0' TERM; sleep 100000 & wait"
PATIENCE = 0.5  # seconds after which nothing is expected to answer any more
TCP, UDP = (80, 81, 85), (53, 54)


class Answers(threading.Thread):
    """Echoes on one port of a network until closed."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(daemon=True)
        self.socket = sock
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            if self.socket.type == socket.SOCK_DGRAM:
                while True:
                    data, peer = self.socket.recvfrom(1024)
                    if peer is None:
                        return  # shut down
                    self.socket.sendto(data, peer)
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1024):
                connection.sendall(data)


class World:
    """Pods of two namespaces by names such as ``red/server``, and what they can reach."""

    def __init__(self, cluster: Instance) -> None:
        self.cluster = cluster
        self.pool = ThreadPoolExecutor(32)
        self.networks: dict[str, Path] = {}
        self.held: list[int] = []  # descriptors of the networks, whichever processes end
        self.ips: dict[str, str] = {}
        self.answers: list[Answers] = []

    def note(self, namespace: str, *names: str) -> None:
        """Know the addresses and networks of pods that run."""
        for name in names:
            pod = self.cluster.get("pod", name, "-n", namespace)
            inside = self.cluster.kubectl(
                "-n", namespace, "exec", name, "--", "readlink", "/proc/self/ns/net"
            ).out.strip()
            key = f"{namespace.removeprefix('policy-')}/{name}"
            self.ips[key] = pod["status"]["podIP"]
            self.held.append(_network(inside))
            self.networks[key] = Path(f"/proc/self/fd/{self.held[-1]}")

    def socket(self, pod: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket in the network of a pod; ``node``: in the node's."""
        if pod == "node":
            return socket.socket(socket.AF_INET, kind)
        with namespaces.enter(self.networks[pod]):
            return socket.socket(socket.AF_INET, kind)

    def serve(self, pod: str) -> None:
        for kind, ports in ((socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)):
            for port in ports:
                sock = self.pool.submit(self.socket, pod, kind).result()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("", port))
                if kind == socket.SOCK_STREAM:
                    sock.listen(64)
                self.answers.append(Answers(sock))

    def open(self, client: str, server: str, port: int) -> socket.socket:
        sock = self.pool.submit(self.socket, client).result()
        sock.settimeout(10)
        sock.connect((self.ips.get(server, server), port))
        return sock

    def passes(self, client: str, server: str, port: int) -> bool:
        """Whether a question from ``client`` to a pod or address is answered."""
        kind = socket.SOCK_DGRAM if port in UDP else socket.SOCK_STREAM
        with self.socket(client, kind) as sock, contextlib.suppress(OSError):
            sock.settimeout(PATIENCE)
            sock.connect((self.ips.get(server, server), port))
            sock.sendall(b"question")
            return sock.recv(64) == b"question"
        return False

    def expect(self, *let: tuple[str, str, int], refused: tuple[tuple[str, str, int], ...]) -> None:
        """Wait until exactly the connections of ``let`` come to be."""
        wanted = {**dict.fromkeys(let, True), **dict.fromkeys(refused, False)}

        def seen() -> dict[Any, bool]:
            tried = {c: self.pool.submit(self.passes, *c) for c in wanted}
            return {c: future.result() for c, future in tried.items()}

        eventually(lambda: seen() == wanted)

    def policy(self, name: str, namespace: str = RED, **spec: Any) -> None:
        made = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace, "labels": {"made-by": RED}},
            "spec": {"podSelector": {}, **spec},
        }
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))

    def clear(self) -> None:
        self.cluster.kubectl("delete", "networkpolicies", "-A", "-l", f"made-by={RED}")

    def close(self) -> None:
        for answer in self.answers:
            with contextlib.suppress(OSError):
                answer.socket.shutdown(socket.SHUT_RDWR)
            answer.socket.close()
        self.pool.shutdown()
        for descriptor in self.held:
            os.close(descriptor)


def _network(name: str) -> int:
    """A descriptor of the network namespace that ``/proc/…/ns/net`` calls so."""
    inode = int(name.removeprefix("net:[").removesuffix("]"))
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):  # that process has just ended
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(descriptor).st_ino == inode:
                return descriptor
            os.close(descriptor)
    raise AssertionError(f"no process is in {name}")


def pod(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    main = {
        "name": "main",
        "image": "wherry.io/busybox:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", IDLE],
        "ports": [{"name": "web", "containerPort": 81}] if name == "server" else [],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [main], **spec},
    }


def listed(*objects: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


@pytest.fixture(scope="module")
def everyone(cluster: Instance) -> Iterator[World]:
    """red: server, client, other, and hosted on the node's network; blue: client, other."""
    spaces = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"team": name}},
        }
        for name in (RED, BLUE)
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server", "namespace": RED},
        "spec": {
            "selector": {"app": "server"},
            "ports": [
                {"name": "a", "port": 8080, "targetPort": 80},
                {"name": "b", "port": 80, "targetPort": 81},
            ],
        },
    }
    pods = [pod(name, RED) for name in ("server", "client", "other")]
    pods += [pod("hosted", RED, hostNetwork=True)]
    pods += [pod(name, BLUE) for name in ("client", "other")]
    cluster.kubectl("apply", "-f", "-", stdin=listed(*spaces, service, *pods))
    for namespace in (RED, BLUE):
        cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pods", "--all")
    world = World(cluster)
    world.note(RED, "server", "client", "other", "hosted")
    world.note(BLUE, "client", "other")
    world.ips["service"] = cluster.get("svc", "server", "-n", RED)["spec"]["clusterIP"]
    for name in ("red/server", "blue/other"):
        world.serve(name)
    world.expect(
        *(
            (client, "red/server", port)
            for client in ("red/client", "blue/client", "red/hosted")
            for port in (*TCP, *UDP)
        ),
        ("red/client", "service", 8080),
        ("red/client", "blue/other", 80),
        refused=(),
    )
    yield world
    world.close()
    cluster.kubectl("delete", "namespace", RED, BLUE, "--wait=false", ok=False)


@pytest.fixture
def world(everyone: World) -> Iterator[World]:
    yield everyone
    everyone.clear()


class To(NamedTuple):
    """Shorthand for connections to one server."""

    server: str
    port: int = 80

    def __call__(self, *clients: str) -> tuple[tuple[str, str, int], ...]:
        return tuple((client, self.server, self.port) for client in clients)


SERVER = To("red/server")


def test_default_deny_of_ingress_leaves_only_the_node(world: World) -> None:
    world.policy("deny", policyTypes=["Ingress"])
    world.expect(
        *SERVER("node", "red/hosted", "red/server"),
        ("red/client", "blue/other", 80),
        refused=(
            *SERVER("red/client", "blue/client"),
            ("red/client", "red/server", 53),
            ("red/client", "service", 8080),
        ),
    )
    world.clear()
    world.expect(*SERVER("red/client"), ("red/client", "service", 8080), refused=())


def test_default_deny_of_egress_ends_what_pods_ask(world: World) -> None:
    world.policy("deny", policyTypes=["Egress"])
    world.expect(
        *SERVER("blue/client", "node", "red/hosted", "red/server"),
        refused=(
            *SERVER("red/client"),
            ("red/client", "blue/other", 80),
            ("red/client", "blue/other", 53),
            ("red/client", "service", 8080),
        ),
    )


@pytest.mark.parametrize(
    ("peer", "let"),
    [
        ({"podSelector": {"matchLabels": {"app": "client"}}}, {"red/client"}),
        (
            {"namespaceSelector": {"matchLabels": {"team": BLUE}}},
            {"blue/client", "blue/other"},
        ),
        (
            {
                "namespaceSelector": {},
                "podSelector": {
                    "matchExpressions": [{"key": "app", "operator": "In", "values": ["client"]}]
                },
            },
            {"red/client", "blue/client"},
        ),
        (
            {
                "namespaceSelector": {"matchLabels": {"team": BLUE}},
                "podSelector": {"matchLabels": {"app": "client"}},
            },
            {"blue/client"},
        ),
    ],
    ids=["pods", "namespaces", "pods-everywhere", "both"],
)
def test_peers_are_who_the_selectors_mean(world: World, peer: Any, let: set[str]) -> None:
    world.policy("let", podSelector={"matchLabels": {"app": "server"}}, ingress=[{"from": [peer]}])
    clients = {"red/client", "red/other", "blue/client", "blue/other"}
    world.expect(*SERVER(*let), refused=SERVER(*(clients - let)))


def test_policies_add_up(world: World) -> None:
    world.policy("deny", policyTypes=["Ingress"])
    for name, namespace in (("red", RED), ("blue", BLUE)):
        space = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        peer = {"namespaceSelector": space, "podSelector": {"matchLabels": {"app": "client"}}}
        world.policy(name, ingress=[{"from": [peer]}])
    world.expect(*SERVER("red/client", "blue/client"), refused=SERVER("red/other", "blue/other"))


def test_labels_that_change_are_followed(world: World) -> None:
    world.policy("let", ingress=[{"from": [{"podSelector": {"matchLabels": {"way": "in"}}}]}])
    world.expect(refused=SERVER("red/client", "red/other"))
    world.cluster.kubectl("-n", RED, "label", "pod", "other", "way=in")
    world.expect(*SERVER("red/other"), refused=SERVER("red/client"))
    world.cluster.kubectl("-n", RED, "label", "pod", "other", "way-")
    world.policy("let", ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"way": "in"}}}]}])
    world.cluster.kubectl("label", "namespace", BLUE, "way=in")
    world.expect(*SERVER("blue/client"), refused=SERVER("red/client", "red/other"))
    world.cluster.kubectl("label", "namespace", BLUE, "way-")
    world.expect(refused=SERVER("blue/client", "red/client"))


def test_blocks_lack_their_exceptions(world: World) -> None:
    ips = world.ips
    block = {"cidr": "0.0.0.0/0", "except": [f"{ips['red/other']}/32"]}
    world.policy("in", ingress=[{"from": [{"ipBlock": block}]}])
    world.expect(*SERVER("red/client", "blue/client"), refused=SERVER("red/other"))
    world.clear()
    only = {"cidr": f"{ips['red/server']}/32"}
    world.policy(
        "out",
        podSelector={"matchLabels": {"app": "client"}},
        policyTypes=["Egress"],
        egress=[{"to": [{"ipBlock": only}]}],
    )
    world.expect(*SERVER("red/client"), refused=(("red/client", "blue/other", 80),))


def ports(client: str, *numbers: int) -> tuple[tuple[str, str, int], ...]:
    return tuple((client, "red/server", number) for number in numbers)


@pytest.mark.parametrize(
    ("port", "let"),
    [
        ({"port": 80}, (80,)),
        ({"port": "web"}, (81,)),
        ({"port": 81, "endPort": 85}, (81, 85)),
        ({"protocol": "TCP"}, (80, 81, 85)),
        ({"protocol": "UDP", "port": 53}, (53,)),
        ({"protocol": "UDP"}, (53, 54)),
    ],
    ids=["number", "name", "range", "tcp", "udp-number", "udp"],
)
def test_ports_are_those_that_answer(world: World, port: Any, let: tuple[int, ...]) -> None:
    """A name is the one that the answering pod gives its port, whichever side is judged."""
    server, client = ({"matchLabels": {"app": app}} for app in ("server", "client"))
    world.policy("in", podSelector=server, ingress=[{"ports": [port]}])
    world.policy("out", podSelector=client, policyTypes=["Egress"], egress=[{"ports": [port]}])
    rest = {*TCP, *UDP} - {*let}
    others = tuple(("red/client", "blue/other", n) for n in rest)
    world.expect(
        *ports("blue/client", *let),
        *ports("red/client", *let),
        refused=(*ports("blue/client", *rest), *ports("red/client", *rest), *others),
    )


def test_services_are_judged_by_where_they_lead(world: World) -> None:
    world.policy(
        "out",
        podSelector={"matchLabels": {"app": "client"}},
        policyTypes=["Egress"],
        egress=[
            {"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": [{"port": 80}]}
        ],
    )
    # The service's port 80 leads to 81, which is not let through; its 8080 to 80, which is.
    world.expect(
        ("red/client", "service", 8080),
        *SERVER("red/client"),
        refused=(("red/client", "service", 80), ("red/client", "red/server", 81)),
    )


def test_a_connection_that_runs_stops_and_goes_on_with_the_policies(world: World) -> None:
    with world.open("red/client", "red/server", 80) as running:
        running.sendall(b"before")
        assert running.recv(64) == b"before"
        world.policy("deny", policyTypes=["Ingress"])
        world.expect(refused=SERVER("red/client"))
        running.settimeout(PATIENCE)
        running.sendall(b"meanwhile")
        with pytest.raises(TimeoutError):
            running.recv(64)
        world.clear()
        running.settimeout(60)
        assert running.recv(64) == b"meanwhile"


def test_answers_to_an_isolated_pod_pass(world: World) -> None:
    """Isolated against what comes in, it may still ask; isolated against asking, still answer."""
    world.policy("in", podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Ingress"])
    world.policy("out", podSelector={"matchLabels": {"app": "server"}}, policyTypes=["Egress"])
    world.expect(*SERVER("red/client"), refused=(("red/server", "blue/other", 80),))


def test_the_nodes_probes_reach_isolated_pods(world: World) -> None:
    world.policy("deny", policyTypes=["Ingress", "Egress"])
    world.expect(refused=SERVER("red/client"))
    probed = pod("probed", RED)
    main = probed["spec"]["containers"][0]
    main["command"] = ["sh", "-c", "exec busybox httpd -f -p 8080 -h /etc"]
    main["readinessProbe"] = {
        "httpGet": {"path": "/hostname", "port": 8080},
        "periodSeconds": 1,
        "timeoutSeconds": 5,
    }
    world.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(probed))
    world.cluster.kubectl("-n", RED, "wait", "--for=condition=Ready", "pod/probed")
    world.cluster.kubectl("-n", RED, "delete", "pod", "probed", "--now", "--wait=false")


def _asks_for_names(world: World, pod: str, kind: int) -> bool:
    """Whether the name server answers a pod."""
    server = world.cluster.get("svc", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    question = bytes(DNSRecord.question("kubernetes.default.svc.cluster.local").pack())
    if kind == socket.SOCK_STREAM:
        question = len(question).to_bytes(2, "big") + question
    with world.socket(pod, kind) as sock, contextlib.suppress(OSError):
        sock.settimeout(PATIENCE)
        sock.connect((server, 53))
        sock.sendall(question)
        return bool(sock.recv(512))
    return False


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        ({"ports": [{"protocol": "UDP", "port": 53}]}, {socket.SOCK_DGRAM}),
        (
            {
                "to": [
                    {
                        "namespaceSelector": {
                            "matchLabels": {"kubernetes.io/metadata.name": "kube-system"}
                        },
                        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                    }
                ],
            },
            {socket.SOCK_DGRAM, socket.SOCK_STREAM},
        ),
    ],
    ids=["port", "labels"],
)
def test_the_name_server_is_asked_where_a_rule_lets_it(
    world: World, rule: Any, kinds: set[int]
) -> None:
    """It is judged as the pod that it is elsewhere; whom nothing isolates may ask in any case."""

    def asked(pod: str) -> set[int]:
        both = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        return {kind for kind in both if _asks_for_names(world, pod, kind)}

    client = {"matchLabels": {"app": "client"}}
    world.policy("out", podSelector=client, policyTypes=["Egress"])
    eventually(lambda: not asked("red/client"))
    eventually(lambda: len(asked("red/other")) == len(asked("red/hosted")) == 2)
    world.policy("names", podSelector=client, policyTypes=["Egress"], egress=[rule])
    eventually(lambda: asked("red/client") == kinds)


def test_a_pods_first_packet_is_judged(world: World) -> None:
    """Made together with the policy that isolates it, a pod never gets a packet out."""
    target = world.ips["blue/other"]
    eager = pod("eager", RED, restartPolicy="Never")
    script = f"for i in 1 2 3; do echo x | timeout 1 nc -w 1 {target} 80 && exit 3; done; exit 0"
    eager["spec"]["containers"][0]["command"] = ["sh", "-c", script]
    deny = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "eager", "namespace": RED, "labels": {"made-by": RED}},
        "spec": {
            "podSelector": {"matchLabels": {"app": "eager"}},
            "policyTypes": ["Egress"],
        },
    }
    world.cluster.kubectl("apply", "-f", "-", stdin=listed(deny, eager))

    def ended() -> Any:
        found = world.cluster.get("pod", "eager", "-n", RED)["status"]
        return (found.get("containerStatuses") or [{}])[0].get("state", {}).get("terminated")

    assert eventually(ended)["exitCode"] == 0
    world.cluster.kubectl("-n", RED, "delete", "pod", "eager", "--now", "--wait=false")


@pytest.fixture
def node_back(cluster: Instance) -> Iterator[Callable[[], None]]:
    def back() -> None:
        cluster.wherry("up")

    yield back
    back()


def test_policies_outlive_the_node_process_and_are_current_when_it_is_back(
    world: World, node_back: Callable[[], None]
) -> None:
    world.policy("deny", policyTypes=["Ingress"])
    world.expect(refused=SERVER("red/client", "blue/client"))
    os.kill(world.cluster.pid("node"), signal.SIGKILL)
    world.expect(refused=SERVER("red/client", "blue/client"))
    world.policy("deny", ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}])
    node_back()
    world.expect(*SERVER("red/client", "node"), refused=SERVER("red/other", "blue/client"))
    os.kill(world.cluster.pid("node"), signal.SIGKILL)
    world.clear()
    node_back()
    world.expect(*SERVER("red/client", "red/other", "blue/client"), refused=())
