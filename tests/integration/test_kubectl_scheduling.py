"""Where pods go, as kubectl sees it: each plugin of the default profile has its say, on nodes that
exist as objects only, beside the instance's own, which is cordoned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Instance, eventually

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
IMAGE = "registry.example/large:1"
PROFILES = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}
  plugins:
    score: {disabled: [{name: NodeResourcesBalancedAllocation}]}
- schedulerName: balanced
  plugins:
    score: {disabled: [{name: "*"}], enabled: [{name: NodeResourcesBalancedAllocation}]}
- schedulerName: half-full
  pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy:
        type: RequestedToCapacityRatio
        resources: [{name: cpu, weight: 1}]
        requestedToCapacityRatio:
          shape: [{utilization: 0, score: 0}, {utilization: 50, score: 10},
                  {utilization: 100, score: 0}]
  plugins:
    score: {disabled: [{name: NodeResourcesBalancedAllocation}]}
"""


def node(name: str, zone: str, cpu: str = "4", **more: Any) -> dict[str, Any]:
    room = {"cpu": cpu, "memory": "8Gi", "pods": "110", **more.pop("room", {})}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    labels = {ZONE: zone, HOST: name, "shown": "yes", **more.pop("labels", {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": more.pop("spec", {}),
        "status": {**status, **more},
    }


NODES = (
    node("a", "z1", labels={"disk": "ssd", "rank": "3"}, room={"example.com/gpu": "2"}),
    node("b", "z1", labels={"rank": "7"}, images=[{"names": [IMAGE], "sizeBytes": 900_000_000}]),
    node("c", "z2"),
    node("d", "z2", spec={"taints": [{"key": "for", "value": "db", "effect": "NoSchedule"}]}),
)


class Space:
    """A namespace in which pods are placed."""

    def __init__(self, instance: Instance, name: str) -> None:
        self.instance, self.name = instance, name

    def kubectl(self, *arguments: str, **how: Any) -> str:
        return self.instance.kubectl("-n", self.name, *arguments, **how).out

    def make(self, kind: str, name: str, version: str = "v1", **body: Any) -> None:
        metadata = {"name": name, **body.pop("metadata", {})}
        whole = {"apiVersion": version, "kind": kind, "metadata": metadata, **body}
        self.kubectl("create", "-f", "-", stdin=json.dumps(whole))

    def pod(self, name: str, /, labels: Any = None, container: Any = None, **spec: Any) -> None:
        body = {"name": "c", "image": "app:1", **(container or {})}
        metadata = {"labels": labels or {"app": name}}
        self.make("Pod", name, metadata=metadata, spec={"containers": [body], **spec})

    def get(self, name: str) -> Any:
        return self.instance.get("-n", self.name, "pod", name)

    def place(self, name: str) -> str:
        """The node that the pod gets."""
        self.kubectl("wait", "--for=condition=PodScheduled", f"pod/{name}")
        return str(self.get(name)["spec"]["nodeName"])

    def refusal(self, name: str) -> str:
        """Why the pod gets none."""

        def told() -> str:
            conditions = self.get(name)["status"].get("conditions") or ()
            found = [c for c in conditions if c["type"] == "PodScheduled"]
            return found[0]["message"] if found and found[0]["status"] == "False" else ""

        return str(eventually(told))

    def drop(self, *names: str) -> None:
        self.kubectl("delete", "pod", *(names or ("--all",)), "--force", "--grace-period=0")


@pytest.fixture(scope="module")
def several(new_instance: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance with four nodes of which nothing but the objects exists."""
    path = tmp_path_factory.mktemp("profiles") / "scheduler.yaml"
    path.write_text(PROFILES)
    instance = new_instance()
    silent = "node-monitor-grace-period=1h"
    instance.wherry("up", "--controller-arg", silent, "--scheduler-config", str(path))
    instance.kubectl("cordon", instance.get("nodes")["items"][0]["metadata"]["name"])
    listed = {"apiVersion": "v1", "kind": "List", "items": NODES}
    instance.kubectl("create", "-f", "-", stdin=json.dumps(listed))
    eventually(lambda: "not-ready" not in instance.kubectl("get", "nodes", "-o", "json").out)
    yield instance
    instance.wherry("down", "--purge")


@pytest.fixture
def space(several: Instance, request: pytest.FixtureRequest) -> Iterator[Space]:
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    several.kubectl("create", "namespace", name)
    made = Space(several, name)
    yield made
    made.drop()
    several.kubectl("delete", "namespace", name, "--wait=false")


def on(name: str) -> dict[str, Any]:
    return {"nodeSelector": {HOST: name}}


def asks(**amounts: str) -> dict[str, Any]:
    named = {k.replace("_", "/"): v for k, v in amounts.items()}
    return {"resources": {"requests": named, "limits": named}}


def test_a_port_of_the_host_is_had_once_for_each_address_and_protocol(space: Space) -> None:
    def port(ip: str = "", protocol: str = "TCP") -> dict[str, Any]:
        given = {"containerPort": 80, "hostPort": 8080, "protocol": protocol}
        return {"ports": [{**given, **({"hostIP": ip} if ip else {})}]}

    space.pod("one", container=port("127.0.0.1"), **on("a"))
    space.pod("udp", container=port("127.0.0.1", "UDP"), **on("a"))
    space.pod("two", container=port("127.0.0.2"), **on("a"))
    assert {space.place(n) for n in ("one", "udp", "two")} == {"a"}
    space.pod("every", container=port(), **on("a"))
    assert "1 node(s) didn't have free ports for the requested pod ports" in space.refusal("every")
    space.drop("one", "two")
    assert space.place("every") == "a"


def test_requests_extended_ones_too_fit_or_are_refused(space: Space) -> None:
    gpu = {"resources": {"limits": {"example.com/gpu": "1"}}}
    for name in ("g1", "g2", "g3"):
        space.pod(name, container=gpu)
    assert {space.place("g1"), space.place("g2")} == {"a"}
    told = space.refusal("g3")
    assert "Insufficient example.com/gpu" in told
    assert told.startswith("0/5 nodes are available: ")
    space.pod("large", container=asks(cpu="5"))
    assert "3 Insufficient cpu" in space.refusal("large")
    space.drop("g1")
    assert space.place("g3") == "a"


def test_init_containers_count_by_the_largest_and_sidecars_with_the_rest(space: Space) -> None:
    def init(name: str, **how: Any) -> dict[str, Any]:
        return {"name": name, "image": "app:1", **how}

    largest = [init("i1", **asks(cpu="3")), init("i2", **asks(cpu="3"))]
    space.pod("inits", container=asks(cpu="1"), initContainers=largest, **on("a"))
    assert space.place("inits") == "a"
    space.pod("rest", container=asks(cpu="2"), **on("a"))
    assert "1 Insufficient cpu" in space.refusal("rest")
    sidecar = init("s", restartPolicy="Always", **asks(cpu="3"))
    space.pod("sidecar", container=asks(cpu="2"), initContainers=[sidecar], **on("b"))
    assert "1 Insufficient cpu" in space.refusal("sidecar")
    space.drop("inits")
    assert space.place("rest") == "a"


def test_the_overhead_of_a_runtime_class_counts(space: Space) -> None:
    overhead = {"podFixed": {"cpu": "2500m"}}
    space.make("RuntimeClass", "heavy", "node.k8s.io/v1", handler="crun", overhead=overhead)
    space.pod("h1", container=asks(cpu="1"), runtimeClassName="heavy", **on("a"))
    assert space.place("h1") == "a"
    space.pod("h2", container=asks(cpu="1"), runtimeClassName="heavy", **on("a"))
    assert "1 Insufficient cpu" in space.refusal("h2")
    space.kubectl("delete", "runtimeclass", "heavy")


def test_affinity_to_nodes_by_all_operators(space: Space) -> None:
    def affine(*expressions: tuple[str, str, list[str]], **more: Any) -> dict[str, Any]:
        wanted = [{"key": k, "operator": o, "values": v} for k, o, v in expressions]
        required = {"nodeSelectorTerms": [{"matchExpressions": wanted}]}
        rule = {"requiredDuringSchedulingIgnoredDuringExecution": required, **more}
        return {"affinity": {"nodeAffinity": rule}}

    space.pod("greater", **affine(("rank", "Gt", ["5"])))
    space.pod("in", **affine(("disk", "In", ["ssd", "hdd"])))
    space.pod("not-in", **affine((ZONE, "In", ["z1"]), ("disk", "NotIn", ["ssd"])))
    space.pod("none", **affine(("disk", "In", ["tape"])))
    preference = {"matchExpressions": [{"key": "rank", "operator": "Lt", "values": ["5"]}]}
    prefers = {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": preference}
        ]
    }
    space.pod("prefers", **affine((ZONE, "Exists", []), **prefers))
    assert [space.place(n) for n in ("greater", "in", "not-in", "prefers")] == ["b", "a", "b", "a"]
    assert "node(s) didn't match Pod's node affinity/selector" in space.refusal("none")
    space.kubectl("label", "node", "c", "disk=tape")
    assert space.place("none") == "c"
    space.kubectl("label", "node", "c", "disk-")


def test_pods_seek_and_avoid_each_other(space: Space) -> None:
    def terms(key: str, app: str) -> dict[str, Any]:
        term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
        return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}

    space.pod("with", affinity={"podAffinity": terms(ZONE, "db")})
    told = space.refusal("with")
    assert "3 node(s) didn't match pod affinity rules" in told
    space.pod("db", **on("c"))
    assert (space.place("db"), space.place("with")) == ("c", "c")
    apart = {"podAntiAffinity": terms(HOST, "web")}
    for number in range(4):
        space.pod(f"web-{number}", {"app": "web"}, affinity=apart)
    eventually(
        lambda: (
            sorted(space.get(f"web-{n}")["spec"].get("nodeName", "") for n in range(4))
            == ["", "a", "b", "c"]
        )
    )
    waiting = next(n for n in range(4) if "nodeName" not in space.get(f"web-{n}")["spec"])
    told = space.refusal(f"web-{waiting}")
    assert "3 node(s) didn't match pod anti-affinity rules" in told
    space.drop(f"web-{(waiting + 1) % 4}")
    space.place(f"web-{waiting}")


def test_pods_are_spread_over_zones(space: Space) -> None:
    rule = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    zones = {"a": "z1", "b": "z1", "c": "z2"}
    for number in range(6):
        space.pod(f"web-{number}", {"app": "web"}, topologySpreadConstraints=[rule])
    places = [zones[space.place(f"web-{n}")] for n in range(6)]
    assert (places.count("z1"), places.count("z2")) == (3, 3)
    tight = {**rule, "labelSelector": {"matchLabels": {"app": "tight"}}}
    space.pod("t1", {"app": "tight"}, topologySpreadConstraints=[tight], **on("a"))
    assert space.place("t1") == "a"
    both = {**tight, "nodeAffinityPolicy": "Ignore"}
    space.pod("t2", {"app": "tight"}, topologySpreadConstraints=[both], **on("a"))
    told = space.refusal("t2")
    assert "1 node(s) didn't match pod topology spread constraints" in told


def test_taints_keep_out_whom_they_are_not_for(space: Space) -> None:
    toleration = {"key": "for", "operator": "Equal", "value": "db", "effect": "NoSchedule"}
    space.pod("guest", tolerations=[toleration], **on("d"))
    space.pod("stranger", **on("d"))
    assert space.place("guest") == "d"
    assert "1 node(s) had untolerated taint" in space.refusal("stranger")
    space.kubectl("taint", "node", "d", "for-")
    assert space.place("stranger") == "d"
    space.kubectl("taint", "node", "d", "for=db:NoSchedule")


def test_a_pod_goes_where_its_volume_can_be(space: Space) -> None:
    waits = {"provisioner": "kubernetes.io/no-provisioner"}
    mode = "WaitForFirstConsumer"
    space.make("StorageClass", "local", "storage.k8s.io/v1", volumeBindingMode=mode, **waits)

    def volume(name: str, labels: Any = None, **spec: Any) -> None:
        given = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
        spec = {**given, "hostPath": {"path": "/srv/none"}, **spec}
        space.make("PersistentVolume", name, metadata={"labels": labels or {}}, spec=spec)

    def claim(name: str, **spec: Any) -> None:
        storage = {"requests": {"storage": "1Gi"}}
        spec = {"accessModes": ["ReadWriteOnce"], "resources": storage, **spec}
        space.make("PersistentVolumeClaim", name, spec=spec)

    def using(name: str) -> dict[str, Any]:
        return {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}

    term = {"matchExpressions": [{"key": HOST, "operator": "In", "values": ["b"]}]}
    only_b = {"required": {"nodeSelectorTerms": [term]}}
    volume("pv-b", storageClassName="local", nodeAffinity=only_b)
    volume("pv-z2", {ZONE: "z2"}, storageClassName="")
    claim("here", storageClassName="local")
    claim("zoned", storageClassName="", volumeName="pv-z2")
    space.pod("on-b", **using("here"))
    space.pod("in-z2", **using("zoned"))
    assert (space.place("on-b"), space.place("in-z2")) == ("b", "c")
    claim("more", storageClassName="local")
    space.pod("late", **using("more"))
    told = space.refusal("late")
    assert "3 node(s) didn't find available persistent volumes to bind" in told
    space.pod("elsewhere", **using("zoned"), **on("a"))
    assert "1 node(s) had no available volume zone" in space.refusal("elsewhere")
    space.drop()
    space.kubectl("delete", "pvc", "--all", "--wait=false")
    space.kubectl("delete", "pv", "pv-b", "pv-z2", "--wait=false")
    space.kubectl("delete", "storageclass", "local")


def test_a_large_image_draws_its_pods_to_where_it_is(space: Space) -> None:
    for number in range(3):
        space.pod(f"p{number}", container={"image": IMAGE}, nodeSelector={ZONE: "z1"})
    assert [space.place(f"p{n}") for n in range(3)] == ["b"] * 3


def test_gates_hold_a_pod_back_until_the_last_is_gone(space: Space) -> None:
    gates = [{"name": "example.com/one"}, {"name": "example.com/two"}]
    space.pod("gated", schedulingGates=gates)
    told = space.refusal("gated")
    assert told == "Scheduling is blocked due to non-empty scheduling gates"
    assert "SchedulingGated" in space.kubectl("get", "pod", "gated")
    for left in (gates[1:], []):
        assert "nodeName" not in space.get("gated")["spec"]
        patch = [{"op": "replace", "path": "/spec/schedulingGates", "value": left}]
        space.kubectl("patch", "pod", "gated", "--type=json", "-p", json.dumps(patch))
    assert space.place("gated") in ("a", "b", "c")


def test_who_matters_more_takes_the_place_of_whom_no_budget_protects(space: Space) -> None:
    classes = {"high": {"value": 1000}, "polite": {"value": 999, "preemptionPolicy": "Never"}}
    for name, body in classes.items():
        space.make("PriorityClass", name, "scheduling.k8s.io/v1", **body)
    selector = {"matchLabels": {"app": "kept"}}
    budget = {"minAvailable": 1, "selector": selector}
    space.make("PodDisruptionBudget", "kept", "policy/v1", spec=budget)
    space.pod("kept", container=asks(cpu="2"), **on("c"))
    space.pod("spare", container=asks(cpu="2"), **on("c"))
    assert {space.place("kept"), space.place("spare")} == {"c"}
    space.pod("polite", container=asks(cpu="2"), priorityClassName="polite", **on("c"))
    assert "1 Insufficient cpu" in space.refusal("polite")
    space.pod("high", container=asks(cpu="2"), priorityClassName="high", **on("c"))
    eventually(lambda: space.get("high")["status"].get("nominatedNodeName") == "c")
    eventually(lambda: "deletionTimestamp" in space.get("spare")["metadata"])
    for spared in ("kept", "polite"):
        assert "deletionTimestamp" not in space.get(spared)["metadata"]
    conditions = {c["type"]: c for c in space.get("spare")["status"]["conditions"]}
    assert conditions["DisruptionTarget"]["reason"] == "PreemptionByScheduler"
    eventually(lambda: "Preempted" in space.kubectl("describe", "pod", "spare"))
    space.drop("spare")
    assert space.place("high") == "c"
    assert "nodeName" not in space.get("polite")["spec"], "the nominated pod had the room"
    space.kubectl("delete", "priorityclass", *classes)


def test_profiles_score_as_they_are_told(space: Space) -> None:
    space.pod("first", container=asks(cpu="1"), **on("a"))
    assert space.place("first") == "a"
    space.pod("packed", container=asks(cpu="1"), schedulerName="packer", nodeSelector={ZONE: "z1"})
    assert space.place("packed") == "a"
    space.pod("spread", container=asks(cpu="1"), nodeSelector={ZONE: "z1"})
    assert space.place("spread") == "b"
    half = {"schedulerName": "half-full", "nodeSelector": {ZONE: "z1"}}
    space.pod("half", container=asks(cpu="1"), **half)
    assert space.place("half") == "b", "two of four CPUs are better than three"


def test_cpu_goes_where_memory_is_taken_so_that_both_are_used_alike(space: Space) -> None:
    space.pod("memory", container=asks(memory="6Gi"), **on("b"))
    assert space.place("memory") == "b"
    space.pod("cpu", container=asks(cpu="3"), schedulerName="balanced", nodeSelector={ZONE: "z1"})
    assert space.place("cpu") == "b"


def test_who_names_another_scheduler_waits_for_it(space: Space) -> None:
    space.pod("other", schedulerName="of-my-own")
    space.pod("after")
    space.place("after")
    assert "conditions" not in space.get("other")["status"]
    target = {"apiVersion": "v1", "kind": "Node", "name": "b"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "other"}}
    path = f"/api/v1/namespaces/{space.name}/pods/other/binding"
    body = json.dumps({**binding, "target": target})
    space.instance.kubectl("create", "--raw", path, "-f", "-", stdin=body)
    assert space.place("other") == "b"


def test_a_cordoned_node_takes_whom_it_could_not_when_it_is_uncordoned(space: Space) -> None:
    space.kubectl("cordon", "b")
    space.pod("waiting", **on("b"))
    told = space.refusal("waiting")
    assert "2 node(s) were unschedulable" in told, "it, and the instance's own"
    space.kubectl("uncordon", "b")
    assert space.place("waiting") == "b"
    space.pod("told", nodeName="d")
    assert space.get("told")["spec"]["nodeName"] == "d", "who names a node has it"


def test_only_what_can_help_has_a_waiting_pod_tried_again(space: Space) -> None:
    """What wakes nobody is told from what wakes all by how often the pod was tried."""

    def tries(name: str) -> int:
        chosen = f"involvedObject.name={name},reason=FailedScheduling"
        found = space.instance.get("-n", space.name, "events", "--field-selector", chosen)
        return sum(event.get("count") or 1 for event in found["items"])

    def pass_by(number: int) -> None:
        """Whatever came before has reached the scheduler when this pod has its node."""
        space.pod(f"passing-{number}", {"app": "other"}, **on("c"))
        assert space.place(f"passing-{number}") == "c"

    gpu = {"resources": {"limits": {"example.com/gpu": "1"}}}
    for name in ("g1", "g2"):
        space.pod(name, container=gpu)
        assert space.place(name) == "a"
    space.pod("gpu", container=gpu)
    near = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "friend"}}}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [near]}
    space.pod("lonely", affinity={"podAffinity": required})
    for name in ("gpu", "lonely"):
        space.refusal(name)
        eventually(lambda name=name: tries(name) == 1)
    space.kubectl("label", "node", "c", "unheard=of")
    space.kubectl("annotate", "node", "c", "never=minded")
    pass_by(1)
    space.drop("passing-1")
    pass_by(2)
    space.kubectl("label", "pod", "passing-2", "app=stranger", "--overwrite")
    pass_by(3)
    assert tries("gpu") == 1, "no device was given back"
    space.pod("friend", **on("b"))
    assert space.place("lonely") == "b"
    space.drop("g1")
    assert space.place("gpu") == "a"
    space.kubectl("label", "node", "c", "unheard-")


def test_a_claim_for_a_single_pod_is_used_by_one_after_the_other(space: Space) -> None:
    given = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"]}
    source = {"hostPath": {"path": "/srv/none"}, "storageClassName": ""}
    volume = f"{space.name}-pv"
    space.make("PersistentVolume", volume, spec={**given, **source})
    asked = {"storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}
    asked |= {"accessModes": ["ReadWriteOncePod"], "volumeName": volume}
    space.make("PersistentVolumeClaim", "single", spec=asked)
    using = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "single"}}]}
    space.pod("one", **using)
    space.place("one")
    space.pod("two", **using)
    told = space.refusal("two")
    assert (
        "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod" in told
    )
    space.drop("one")
    space.place("two")
    space.drop()
    space.kubectl("delete", "pvc", "single", "--wait=false")
    space.kubectl("delete", "pv", volume, "--wait=false")
