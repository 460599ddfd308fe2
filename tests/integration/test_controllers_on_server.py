"""Controllers and scheduler on the real API server and store, in one process, without kubelets."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import datetime
import ipaddress
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ports import free_port
from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from wherry.kube.apiserver.authn import MASTERS, known
from wherry.kube.apiserver.server import APIServer, APIServerConfig
from wherry.kube.client.client import STRATEGIC_MERGE_PATCH, Client
from wherry.kube.client.https import HTTPSTransport
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object, Transport
from wherry.kube.controllers import CONTROLLERS, Options, run_controllers
from wherry.kube.scheduler import run_scheduler
from wherry.kube.store.sqlite import SQLiteStore


class World:
    """One server with controllers and scheduler; ``client`` is the administrator's."""

    def __init__(self, server: APIServer, options: Options) -> None:
        self.server = server
        self.options = options
        self.client = Client(server.transport(known("admin", (MASTERS,))), manager="tests")
        self.hold: Callable[[Object], bool] = lambda pod: False
        self._tasks: list[asyncio.Task[Any]] = []
        self._pods = Informer(self.client, PODS)
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def transport(self, user: str) -> Transport:
        return self.server.transport(user)

    def start(self) -> None:
        controllers = Client(self.transport("system:kube-controller-manager"))
        scheduler = Client(self.transport("system:kube-scheduler"))
        self._running = [
            asyncio.ensure_future(
                run_controllers(
                    controllers,
                    self.options,
                    identity=lambda name: self.transport(
                        f"system:serviceaccount:kube-system:{name}"
                    ),
                )
            ),
            asyncio.ensure_future(run_scheduler(scheduler)),
        ]

    async def stop(self) -> None:
        await _cancel(*self._running)

    async def __aenter__(self) -> World:
        def notice(pod: Object) -> None:
            self._queue.put_nowait((meta.namespace(pod), meta.name(pod)))

        self._pods.add_handlers(on_add=notice, on_update=lambda _, pod: notice(pod))
        self._pods.start()
        self._tasks.append(asyncio.ensure_future(self._kubelet()))
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        await _cancel(*self._tasks)
        await self._pods.stop()

    async def _kubelet(self) -> None:
        number = 0
        while True:
            namespace, name = await self._queue.get()
            pod = self._pods.get(namespace, name)
            if pod is None or not pod["spec"].get("nodeName"):
                continue
            with contextlib.suppress(StatusError):
                if meta.is_deleting(pod):
                    await self.client.delete(PODS, name, namespace, grace=0)
                elif not ready(pod) and not self.hold(pod):
                    number += 1
                    ip = f"10.244.{number // 250}.{number % 250 + 1}"
                    patch = {
                        "status": {
                            "phase": "Running",
                            "podIP": ip,
                            "podIPs": [{"ip": ip}],
                            "conditions": [
                                {
                                    "type": "Ready",
                                    "status": "True",
                                    "lastTransitionTime": meta.now(),
                                }
                            ],
                        }
                    }
                    await self.client.patch(
                        PODS,
                        name,
                        patch,
                        namespace,
                        content_type=STRATEGIC_MERGE_PATCH,
                        subresource="status",
                    )

    async def node(self, name: str) -> None:
        await self.client.create(NODES, {"metadata": {"name": name}})
        status = {
            "allocatable": {"cpu": "16", "memory": "32Gi", "pods": "110"},
            "capacity": {"cpu": "16", "memory": "32Gi", "pods": "110"},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "lastHeartbeatTime": meta.now(),
                    "lastTransitionTime": meta.now(),
                }
            ],
        }
        await self.client.patch(NODES, name, {"status": status}, subresource="status")

        async def schedulable() -> bool:  # a new node is tainted until a controller saw it ready
            return not (await self.client.get(NODES, name))["spec"].get("taints")

        await self.until(schedulable)

    async def get(self, resource: Resource, name: str, namespace: str | None = "default"):
        try:
            return await self.client.get(resource, name, namespace if resource.namespaced else None)
        except StatusError as error:
            if error.code != 404:
                raise
            return None

    async def items(self, resource: Resource, namespace: str = "default") -> list[Object]:
        return (await self.client.list(resource, namespace))["items"]

    async def until(self, check: Callable[[], Any], seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while not (value := await check()):
            if time.monotonic() > end:
                found = [
                    (p["metadata"]["name"], p["spec"].get("nodeName"), p.get("status"))
                    for p in await self.items(PODS)
                ]
                pytest.fail(f"it did not come to pass; pods: {found}")
            await asyncio.sleep(0.005)
        return value

    async def rolled_out(self, name: str) -> Object:
        async def check() -> Object | None:
            d = await self.get(DEPLOYMENTS, name)
            status, wanted = d.get("status") or {}, d["spec"]["replicas"]
            settled = status.get("observedGeneration") == d["metadata"]["generation"]
            counts = ("updatedReplicas", "replicas", "availableReplicas")
            return d if settled and all(status.get(c, 0) == wanted for c in counts) else None

        return await self.until(check)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def deployment(name: str = "web", replicas: int = 3, image: str = "hello:1", **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image),
            **spec,
        },
    }


def template(app: str = "web", image: str = "hello:1") -> Object:
    ports = [{"containerPort": 8080, "name": "http"}]
    containers = [{"name": "hello", "image": image, "ports": ports}]
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": containers}}


class RemoteWorld(World):
    """The same over HTTPS, each component with a token of its own."""

    def __init__(self, server: APIServer, options: Options, url: str, ca: Path) -> None:
        super().__init__(server, options)
        self.url, self.ca = url, ca
        self.transports: list[HTTPSTransport] = []

    def transport(self, user: str) -> Transport:
        self.transports.append(HTTPSTransport(self.url, ca=self.ca, token=user))
        return self.transports[-1]

    async def stop(self) -> None:
        await super().stop()
        await asyncio.gather(*(transport.close() for transport in self.transports))
        self.transports.clear()


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    moment = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(moment - datetime.timedelta(minutes=1))
        .not_valid_after(moment + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "tls.crt", directory / "tls.key"
    cert_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


async def test_components_apart_from_the_server_survive_its_restart(tmp_path: Path):
    cert, key = certificate(tmp_path)
    store = await SQLiteStore.open(tmp_path / "state.db")
    accounts = {controller.identity() for controller in CONTROLLERS}
    users = (
        "system:kube-controller-manager",
        "system:kube-scheduler",
        *(f"system:serviceaccount:kube-system:{account}" for account in accounts),
    )
    config = APIServerConfig(
        advertise_address="127.0.0.1",
        port=free_port(),  # none that the kernel gives to others while the server is down
        service_cidr="10.96.0.0/16",
        tls_cert=cert,
        tls_key=key,
        listen_host="127.0.0.1",
        tokens={user: known(user) for user in users},
    )
    server = APIServer(config, store)
    await server.open()
    port = await server.serve()
    world = RemoteWorld(server, Options(), f"https://127.0.0.1:{port}", cert)
    async with world:
        await world.node("n1")
        await world.client.create(DEPLOYMENTS, deployment(), "default")
        await world.rolled_out("web")
        await world._pods.stop()
        await server.close()

        again = APIServer(config, store)
        await again.open()
        world.server = again
        world.client.transport = again.transport(known("admin", (MASTERS,)))
        world._pods.start()
        assert await again.serve() == port
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}}, "default")
        await world.rolled_out("web")
    await again.close()
    await store.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = await SQLiteStore.open(tmp_path / "state.db")
    config = APIServerConfig(
        advertise_address="127.0.0.1",
        port=6443,
        service_cidr="10.96.0.0/16",
        tls_cert=tmp_path / "unused",
        tls_key=tmp_path / "unused",
    )
    server = APIServer(config, store)
    await server.open()
    options = Options(root_ca="PEM", cluster_cidr="10.244.0.0/16", node_grace=3600.0)
    async with World(server, options) as world:
        await world.node("n1")
        yield world
    await server.close()
    await store.close()


async def test_an_applied_deployment_runs_and_serves(world: World):
    body = deployment()
    before = copy.deepcopy(body)
    await world.client.create(DEPLOYMENTS, body, "default")
    assert body == before, "what a client sends stays its own"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    await world.client.create(SERVICES, service, "default")
    d = await world.rolled_out("web")
    assert d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    pods = await world.items(PODS)
    addresses = sorted(p["status"]["podIP"] for p in pods)

    async def served() -> bool:
        slices = [
            s
            for s in await world.items(ENDPOINT_SLICES)
            if meta.labels(s).get("kubernetes.io/service-name") == "web"
        ]
        shown = sorted(
            e["addresses"][0] for s in slices for e in s["endpoints"] if e["conditions"]["ready"]
        )
        return shown == addresses and all(s["ports"][0]["port"] == 8080 for s in slices)

    await world.until(served)

    async def in_endpoints() -> bool:
        found = await world.get(ENDPOINTS, "web")
        subsets = (found or {}).get("subsets") or []
        return sorted(a["ip"] for s in subsets for a in s.get("addresses", ())) == addresses

    await world.until(in_endpoints)
    (rs,) = await world.items(REPLICA_SETS)

    async def said() -> bool:
        messages = {e["message"] for e in await world.items(EVENTS)}
        wanted = {f"Scaled up replica set {meta.name(rs)} from 0 to 3"}
        wanted |= {f"Created pod: {meta.name(p)}" for p in pods}
        wanted |= {f"Successfully assigned default/{meta.name(p)} to n1" for p in pods}
        return wanted <= messages

    await world.until(said)


async def test_rollout_undo_scale_and_deletion(world: World):
    client = world.client
    await client.create(DEPLOYMENTS, deployment(replicas=4), "default")
    await world.rolled_out("web")
    for image in ("hello:2", "hello:1"):
        await client.patch(
            DEPLOYMENTS, "web", {"spec": {"template": template(image=image)}}, "default"
        )
        await world.rolled_out("web")
    d = await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 6}}, "default")
    d = await world.rolled_out("web")
    assert d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert len(await world.items(REPLICA_SETS)) == 2
    await client.delete(DEPLOYMENTS, "web", "default", propagation="Background")

    async def gone() -> bool:
        return not await world.items(PODS) and not await world.items(REPLICA_SETS)

    await world.until(gone)


async def test_foreground_and_orphan_deletion(world: World):
    client = world.client
    for name in ("first", "second"):
        await client.create(DEPLOYMENTS, deployment(name, 2), "default")
        await world.rolled_out(name)
    await client.delete(DEPLOYMENTS, "first", "default", propagation="Foreground")

    async def gone(name: str = "first") -> bool:
        return await world.get(DEPLOYMENTS, name) is None

    await world.until(gone)
    assert not [p for p in await world.items(PODS) if meta.labels(p)["app"] == "first"]
    await client.delete(DEPLOYMENTS, "second", "default", propagation="Orphan")
    await world.until(lambda: gone("second"))
    await asyncio.sleep(0.1)
    (rs,) = await world.items(REPLICA_SETS)
    assert not meta.owner_references(rs)
    assert len(await world.items(PODS)) == 2


async def test_a_replication_controller_replaces_what_is_deleted(world: World):
    body = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": "rc"},
        "spec": {"replicas": 2, "selector": {"app": "rc"}, "template": template("rc")},
    }
    await world.client.create(REPLICATION_CONTROLLERS, body, "default")

    async def complete() -> list[Object] | None:
        rc = await world.get(REPLICATION_CONTROLLERS, "rc")
        done = (rc.get("status") or {}).get("readyReplicas") == 2
        return await world.items(PODS) if done else None

    first = await world.until(complete)
    await world.client.delete(PODS, meta.name(first[0]), "default")

    async def replaced() -> bool:
        pods = [p for p in await world.items(PODS) if not meta.is_deleting(p)]
        return len(pods) == 2 and meta.name(first[0]) not in {meta.name(p) for p in pods}

    await world.until(replaced)


async def test_a_namespace_has_what_it_needs_and_goes_with_it(world: World):
    client = world.client
    await client.create(NAMESPACES, {"metadata": {"name": "demo"}})

    async def furnished() -> bool:
        account = await world.get(SERVICE_ACCOUNTS, "default", "demo")
        authority = await world.get(CONFIG_MAPS, "kube-root-ca.crt", "demo")
        return account is not None and authority is not None

    await world.until(furnished)
    await client.create(DEPLOYMENTS, deployment(), "demo")

    async def running() -> bool:
        return sum(map(ready, await world.items(PODS, "demo"))) == 3

    await world.until(running)
    await client.delete(NAMESPACES, "demo")

    async def gone() -> bool:
        return await world.get(NAMESPACES, "demo") is None

    await world.until(gone)
    assert await world.items(PODS, "demo") == []


async def test_a_node_gets_a_range_and_is_unknown_when_it_falls_silent(world: World):
    async def has_range() -> bool:
        return bool((await world.get(NODES, "n1"))["spec"].get("podCIDR"))

    await world.until(has_range)
    assert (await world.get(NODES, "n1"))["spec"]["podCIDRs"] == ["10.244.0.0/24"]

    async def untainted() -> bool:
        return not (await world.get(NODES, "n1"))["spec"].get("taints")

    await world.until(untainted)
    await world.stop()
    world.options = dataclasses.replace(world.options, node_grace=1.0)
    world.start()
    metadata = {"name": "n1", "namespace": "kube-node-lease"}
    spec = {"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": meta.now_micro()}
    await world.client.create(LEASES, {"metadata": metadata, "spec": spec})

    async def unreachable() -> bool:
        taints = (await world.get(NODES, "n1"))["spec"].get("taints") or ()
        return {(t["key"], t["effect"]) for t in taints} == {
            ("node.kubernetes.io/unreachable", "NoSchedule"),
            ("node.kubernetes.io/unreachable", "NoExecute"),
        }

    await world.until(unreachable)


async def test_a_quota_follows_what_there_is(world: World):
    async def furnished() -> bool:
        return await world.get(CONFIG_MAPS, "kube-root-ca.crt") is not None

    await world.until(furnished)  # nobody else makes one from here on
    spec = {"hard": {"count/configmaps": "3", "pods": "5"}}
    await world.client.create(RESOURCE_QUOTAS, {"metadata": {"name": "q"}, "spec": spec}, "default")

    async def used() -> dict[str, str]:
        found = await world.get(RESOURCE_QUOTAS, "q")
        return (found.get("status") or {}).get("used") or {}

    async def counted() -> bool:
        return "count/configmaps" in await used()

    await world.until(counted)
    before = int((await used())["count/configmaps"])
    made = {"metadata": {"name": "more", "namespace": "default"}}
    await world.client.create(CONFIG_MAPS, made)
    assert int((await used())["count/configmaps"]) == before + 1
    await world.client.delete(CONFIG_MAPS, "more", "default")

    async def given_back() -> bool:
        return int((await used())["count/configmaps"]) == before

    await world.until(given_back)


async def test_an_unschedulable_pod_says_why(world: World):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "picky"},
        "spec": {**template()["spec"], "nodeSelector": {"disk": "ssd"}},
    }
    await world.client.create(PODS, pod, "default")
    why = (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. "
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )

    async def told() -> Object | None:
        conditions = ((await world.get(PODS, "picky")).get("status") or {}).get("conditions") or ()
        # (At first the scheduler may still see the node as it was when it was new.)
        return next((c for c in conditions if c.get("message") == why), None)

    condition = await world.until(told)
    assert (condition["type"], condition["reason"]) == ("PodScheduled", "Unschedulable")
    await world.client.patch(NODES, "n1", {"metadata": {"labels": {"disk": "ssd"}}})

    async def placed() -> bool:
        return (await world.get(PODS, "picky"))["spec"].get("nodeName") == "n1"

    await world.until(placed)


async def test_nothing_is_written_when_nothing_changes(world: World):
    await world.client.create(DEPLOYMENTS, deployment(), "default")
    await world.rolled_out("web")

    async def quiet() -> bool:
        before = (await world.client.list(CONFIG_MAPS))["metadata"]["resourceVersion"]
        await asyncio.sleep(0.5)
        after = (await world.client.list(CONFIG_MAPS))["metadata"]["resourceVersion"]
        return bool(before == after)

    await world.until(quiet)  # who went on writing would never let it be


async def test_controllers_that_die_in_a_rollout_go_on_where_they_were(world: World):
    client = world.client
    await client.create(DEPLOYMENTS, deployment(replicas=8), "default")
    await world.rolled_out("web")
    most = 0
    watch = Informer(client, PODS)

    def count(*_: Object) -> None:
        nonlocal most
        most = max(most, sum(not meta.is_deleting(p) for p in watch.list("default")))

    watch.add_handlers(on_add=count, on_update=count)
    watch.start()
    patch = {"spec": {"template": template(image="hello:2")}}
    await client.patch(DEPLOYMENTS, "web", patch, "default")
    for _ in range(5):
        await asyncio.sleep(0.01)
        await world.stop()
        world.start()
    await world.rolled_out("web")
    await watch.stop()
    assert most <= 10  # 25 % of 8
    pods = [p for p in await world.items(PODS) if not meta.is_deleting(p)]
    assert {p["spec"]["containers"][0]["image"] for p in pods} == {"hello:2"}


async def test_custom_resources_go_with_their_owner_and_their_namespace(world: World):
    transport = world.client.transport
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await transport.request(
        "POST",
        definitions,
        body={
            "metadata": {"name": "gadgets.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "gadgets", "kind": "Gadget"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema},
                    }
                ],
            },
        },
    )
    collection = "/apis/example.com/v1/namespaces/default/gadgets"

    async def served() -> bool:
        try:
            await transport.request("GET", collection)
        except StatusError:
            return False
        return True

    async def names(path: str) -> list[str]:
        items = (await transport.request("GET", path))["items"]
        return [item["metadata"]["name"] for item in items]

    await world.until(served)
    owner = await transport.request("POST", collection, body={"metadata": {"name": "owner"}})
    reference = {
        "apiVersion": "example.com/v1",
        "kind": "Gadget",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
    }
    await transport.request(
        "POST", collection, body={"metadata": {"name": "owned", "ownerReferences": [reference]}}
    )
    await transport.request("DELETE", f"{collection}/owner")

    async def collected() -> bool:
        return await names(collection) == []

    await world.until(collected)
    await transport.request("POST", "/api/v1/namespaces", body={"metadata": {"name": "brief"}})
    elsewhere = "/apis/example.com/v1/namespaces/brief/gadgets"
    await transport.request("POST", elsewhere, body={"metadata": {"name": "g"}})
    await transport.request("DELETE", "/api/v1/namespaces/brief")

    async def emptied() -> bool:
        return await names("/apis/example.com/v1/gadgets") == []

    await world.until(emptied)
