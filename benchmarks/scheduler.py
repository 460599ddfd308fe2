"""The scheduler in the process of its API server, as ``wherry server`` runs it: pods that wait get
nodes of which nothing but the objects exists."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import schedulers
from benchmarks.harness import Figure

Spec = Callable[[int], dict[str, Any]]

SPREAD_KEYS = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")


def node(number: int) -> dict[str, Any]:
    """A node in one of three zones."""
    name = f"node-{number:05}"
    labels = {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": f"zone-{number % 3}",
    }
    allocatable = {"cpu": "32", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    return {
        "metadata": {"name": name, "labels": labels},
        "status": {"capacity": allocatable, "allocatable": allocatable, "conditions": [ready]},
    }


def pod(number: int, kind: str, group: int = 0) -> dict[str, Any]:
    """A pod; ``kind`` says what it demands of the others of its group."""
    labels = {"app": f"app-{group}"}
    selector = {"matchLabels": labels}
    requests = {"cpu": "100m", "memory": "200Mi"}
    spec: dict[str, Any] = {
        "containers": [{"name": "c", "image": "app:1", "resources": {"requests": requests}}]
    }
    if kind == "spread":
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": selector,
            }
            for key in SPREAD_KEYS
        ]
    elif kind == "apart":
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        spec["affinity"] = {"podAntiAffinity": required}
    return {"metadata": {"name": f"pod-{number:06}", "labels": labels}, "spec": spec}


def waiting(count: int, kind: str) -> list[dict[str, Any]]:
    """Pods in groups."""
    group = 750 if kind == "apart" else 1000
    return [pod(number, kind, number // group) for number in range(count)]


def _run(mode: str, nodes: int, pods: int, kind: str = "plain") -> dict[str, float]:
    argv = [sys.executable, "-m", "benchmarks.scheduler", mode, str(nodes), str(pods), kind]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def pending() -> list[Figure]:
    """3,000 pods that wait for 1,000 nodes, until the last is bound; beside upstream's scheduler on
    our API server, where it can be had."""
    binary = schedulers.peer_binary()
    figures = []
    for kind, name, target in (
        ("plain", "3,000 pods on 1,000 nodes, all bound", 4.0),
        ("spread", "the same, spread over zones and nodes", None),
        ("apart", "the same, no two of 750 on one node", None),
    ):
        values = [_run("pending", 1000, 3000, kind)["seconds"] for _ in range(3)]
        nodes = [node(number) for number in range(1000)]
        pods = waiting(3000, kind)
        theirs = [schedulers.until_bound(binary, nodes, pods)] if binary else []
        figures.append(Figure(name, values, target=target, peer=theirs))
        if binary:
            own = [schedulers.until_bound(None, nodes, pods)]
            figures.append(Figure("  the scheduler a process of its own", own, peer=theirs))
    return figures


def linear() -> list[Figure]:
    """What 1,000 pods cost where 3,000, 6,000 and 12,000 come: it must not grow. Seconds of the
    processor say it more truly on a machine that does other things, too; those of deciding alone
    leave out the API server, which keeps only so many objects decoded."""
    figures = []
    for kind in ("plain", "spread", "apart"):
        for count in (3_000, 6_000, 12_000):
            found = _run("pending", 1000, count, kind)
            found |= _run("decide", 1000, count, kind)
            for name, key in (
                ("", "seconds"),
                (", processor", "processor"),
                (", deciding", "decide"),
            ):
                value = found[key] / count * 1000
                figures.append(Figure(f"1,000 pods of {count:,}, {kind}{name}", [value]))
    return figures


def one_more() -> list[Figure]:
    """One more pod where 50,000 are on 10,000 nodes, from its creation until it is bound."""
    figures = []
    for kind in ("plain", "spread", "apart"):
        found = _run("more", 10_000, 50_000, kind)
        figures.append(
            Figure(f"one more pod of 50,000 on 10,000 nodes, {kind}", [found["more"]], target=0.02)
        )
        name = f"the first of its kind there, {kind}"
        figures.append(Figure(name, [found["first"]], target=0.02))
    return figures


# -- in the process that is measured


async def _measure(mode: str, nodes: int, pods: int, kind: str) -> dict[str, float]:
    from wherry.kube.apiserver.server import SELF, APIServer, APIServerConfig
    from wherry.kube.client.client import Client
    from wherry.kube.scheduler import run_scheduler
    from wherry.kube.store.sqlite import SQLiteStore

    with tempfile.TemporaryDirectory(prefix="wherry-bench-scheduler-") as place:
        store = await SQLiteStore.open(Path(place) / "state.db")
        none = Path(place) / "none"
        config = APIServerConfig(
            advertise_address="192.0.2.1",
            port=6443,
            service_cidr="10.96.0.0/24",
            tls_cert=none,
            tls_key=none,
        )
        server = APIServer(config, store)
        await server.open()
        administrator = server.transport(SELF)
        account = "/api/v1/namespaces/default/serviceaccounts"
        await administrator.request("POST", account, body={"metadata": {"name": "default"}})

        async def make(path: str, objects: list[dict[str, Any]]) -> None:
            left = iter(objects)

            async def work() -> None:
                for each in left:
                    await administrator.request("POST", path, body=each)

            await asyncio.gather(*(work() for _ in range(64)))

        await make("/api/v1/nodes", [node(number) for number in range(nodes)])
        for found in (await administrator.request("GET", "/api/v1/nodes"))["items"]:
            # Admission has tainted them until a controller finds that they are ready.
            body = {**found, "spec": {}}
            await administrator.request(
                "PUT", f"/api/v1/nodes/{found['metadata']['name']}", body=body
            )
        path = "/api/v1/namespaces/default/pods"
        made = waiting(pods, kind)
        if mode == "more":
            for number, each in enumerate(made):
                each["spec"]["nodeName"] = f"node-{number % nodes:05}"
        await make(path, made)
        watch = administrator.watch(path, (("fieldSelector", "spec.nodeName!="),))
        begun, worked = time.perf_counter(), time.process_time()
        client = Client(server.transport("system:kube-scheduler"), manager="kube-scheduler")
        task = asyncio.ensure_future(run_scheduler(client))
        figures: dict[str, float] = {}
        bound = 0
        try:
            if mode == "more":
                figures = await _one_by_one(administrator, watch, path, pods, kind)
            else:
                async for what, _ in watch:
                    bound += what in ("ADDED", "MODIFIED")
                    if bound >= pods:
                        break
                figures["seconds"] = time.perf_counter() - begun
                figures["processor"] = time.process_time() - worked
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await server.close()
            await store.close()
        return figures


async def _decide(nodes: int, pods: int, kind: str) -> dict[str, float]:
    """Seconds of the processor to find nodes for pods, one after the other, and nothing else."""
    from wherry.kube.client.client import Client
    from wherry.kube.client.finishing import FinishingTransport
    from wherry.kube.client.informer import SharedInformers
    from wherry.kube.scheduler.algorithm import Algorithm
    from wherry.kube.scheduler.config import Configuration
    from wherry.kube.scheduler.snapshot import PodInfo, Snapshot

    configuration, snapshot = Configuration(), Snapshot()
    silent: Any = None  # nobody is asked
    client = Client(FinishingTransport(silent))
    profile = configuration.complete(configuration.profiles[0])
    algorithm = Algorithm(profile, client, snapshot, SharedInformers(client))
    for number in range(nodes):
        snapshot.set_node(node(number))
    found = 0.0
    for number, each in enumerate(waiting(pods, kind)):
        each["metadata"] |= {"uid": f"uid-{number}", "namespace": "default"}
        begun = time.process_time()
        info = PodInfo(each)
        chosen, _ = algorithm.choose(info)
        snapshot.put(info, chosen.name)
        found += time.process_time() - begun
    return {"decide": found}


async def _one_by_one(
    administrator: Any, watch: Any, path: str, pods: int, kind: str
) -> dict[str, float]:
    seen: dict[str, asyncio.Event] = {}

    async def look() -> None:
        async for _, each in watch:
            event = seen.get(each["metadata"]["name"])
            if event is not None:
                event.set()

    looking = asyncio.ensure_future(look())

    async def place(number: int, group: int) -> float:
        body = pod(number, kind, group)
        event = seen[body["metadata"]["name"]] = asyncio.Event()
        begun = time.perf_counter()
        await administrator.request("POST", path, body=body)
        await event.wait()
        return time.perf_counter() - begun

    await place(pods, 9000)  # the scheduler is there
    first = await place(pods + 1, 9001)
    times = [await place(pods + 2 + number, 9001) for number in range(20)]
    looking.cancel()
    return {"first": first, "more": sorted(times)[10]}


def main() -> None:
    import gc

    import uvloop

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    mode, nodes, pods, kind = sys.argv[1:5]
    work = (
        _decide(int(nodes), int(pods), kind)
        if mode == "decide"
        else _measure(mode, int(nodes), int(pods), kind)
    )
    if len(sys.argv) > 5:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
        found = uvloop.run(work)
        profile.disable()
        profile.dump_stats(sys.argv[5])
    else:
        found = uvloop.run(work)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
