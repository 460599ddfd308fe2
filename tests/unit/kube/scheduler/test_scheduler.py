from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, ClassVar

import pytest
from fake_api import FakeAPI

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import EVENTS, NODES, POD_DISRUPTION_BUDGETS, PODS
from wherry.kube.client.client import Client
from wherry.kube.client.transport import Object
from wherry.kube.scheduler import Configuration, run_scheduler
from wherry.kube.scheduler.config import DEFAULT_PLUGINS, ConfigurationError, Profile, Use
from wherry.kube.scheduler.framework import Filter, Permit, Reserve, reject


class Bench:
    """A scheduler on a fake API."""

    def __init__(self, configuration: Configuration | None = None) -> None:
        self.api = FakeAPI()
        self.client = Client(self.api)
        self.configuration = configuration or Configuration(initial_backoff=0.01)

    async def __aenter__(self) -> Bench:
        self.task = asyncio.ensure_future(run_scheduler(self.client, self.configuration))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self.api.assert_untouched()

    async def node(self, name: str, cpu: str = "4", memory: str = "8Gi", **spec: Any) -> Object:
        labels = spec.pop("labels", {})
        pods = spec.pop("pods", "110")
        more = spec.pop("allocatable", {})
        allocatable = {"cpu": cpu, "memory": memory, "pods": pods, **more}
        return await self.client.create(
            NODES,
            {
                "metadata": {"name": name, "labels": labels},
                "spec": spec,
                "status": {"allocatable": allocatable},
            },
        )

    async def pod(self, name: str, **spec: Any) -> Object:
        return await self.client.create(PODS, pod(name, **spec))

    def place(self, name: str) -> str | None:
        found = self.api.get(PODS, name, "default")
        return found["spec"].get("nodeName") if found else None

    async def placed(self, *names: str) -> None:
        await self.until(lambda: all(map(self.place, names)))

    async def until(self, condition, seconds: float = 60.0):
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, "it did not come to pass"
            await asyncio.sleep(0.001)
        return value

    async def settle(self) -> None:
        """Let a moment pass, in which everybody has many turns.

        (A process that stood still has let time pass and nobody act.)
        """
        for _ in range(50):
            await asyncio.sleep(0.001)

    def condition(self, name: str) -> Object | None:
        status = self.api.get(PODS, name, "default").get("status") or {}
        found = [c for c in status.get("conditions") or () if c["type"] == "PodScheduled"]
        return found[0] if found else None

    async def refusal(self, name: str) -> str:
        found = await self.until(
            lambda: (c := self.condition(name)) and c["status"] == "False" and c
        )
        assert found["reason"] == "Unschedulable"
        return found["message"]


def pod(name: str, cpu: str = "", memory: str = "", **spec: Any) -> Object:
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    container = {"name": "c", "resources": {"requests": requests}, **spec.pop("container", {})}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"schedulerName": "default-scheduler", "containers": [container], **spec},
    }


async def test_a_pod_gets_a_node_and_the_user_is_told():
    async with Bench() as bench:
        await bench.node("n1")
        await bench.pod("web")
        await bench.placed("web")
        event = await bench.until(lambda: bench.api.find(EVENTS))
        assert event[0]["message"] == "Successfully assigned default/web to n1"
        assert event[0]["reason"] == "Scheduled"
        assert event[0]["source"]["component"] == "default-scheduler"


async def test_without_nodes_a_pod_waits_for_the_first():
    async with Bench() as bench:
        await bench.pod("web")
        assert await bench.refusal("web") == "no nodes available to schedule pods"
        await bench.node("n1")
        await bench.placed("web")


async def test_what_is_missing_is_said_in_upstreams_words():
    async with Bench() as bench:
        await bench.node("n1", cpu="1", pods="1")
        await bench.node("n2", memory="1Gi", taints=[{"key": "k", "effect": "NoSchedule"}])
        await bench.node("n3", unschedulable=True)
        await bench.node("n4", labels={"disk": "hdd"})
        await bench.pod("web", cpu="2", memory="2Gi", nodeSelector={"disk": "ssd"})
        assert await bench.refusal("web") == (
            "0/4 nodes are available: 1 node(s) had untolerated taint {k: }, "
            "1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector. "
            "preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        )
        await bench.pod("big", cpu="3", memory="100Gi")
        message = await bench.refusal("big")
        assert "0/4 nodes are available: 1 Insufficient cpu, 1 node(s) had" in message
        assert "2 Insufficient memory. preemption: " in message
        events = await bench.until(
            lambda: [e for e in bench.api.find(EVENTS) if e["message"] == message]
        )
        assert (events[0]["type"], events[0]["reason"]) == ("Warning", "FailedScheduling")


async def test_a_full_node_takes_the_next_pod_when_one_goes():
    async with Bench() as bench:
        await bench.node("n1", cpu="1")
        await bench.pod("first", cpu="600m")
        await bench.placed("first")
        await bench.pod("second", cpu="600m")
        assert await bench.refusal("second") == (
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
            "1 No preemption victims found for incoming pod."
        )
        await bench.client.delete(PODS, "first", "default", grace=0)
        await bench.placed("second")


async def test_a_pod_that_is_resized_leaves_room_for_the_next():
    async with Bench() as bench:
        await bench.node("n1", cpu="1")
        await bench.pod("first", cpu="800m")
        await bench.placed("first")
        await bench.pod("second", cpu="600m")
        await bench.refusal("second")
        smaller = {"containers": [{"name": "c", "resources": {"requests": {"cpu": "400m"}}}]}
        await bench.client.patch(PODS, "first", {"spec": smaller}, "default")
        await bench.placed("second")


async def test_a_finished_pod_needs_no_room():
    async with Bench() as bench:
        await bench.node("n1", pods="1")
        first = await bench.pod("first")
        await bench.placed("first")
        await bench.pod("second")
        assert "1 Too many pods" in await bench.refusal("second")
        first = bench.api.get(PODS, "first", "default")
        await bench.client.update_status(PODS, {**first, "status": {"phase": "Succeeded"}})
        await bench.placed("second")


@pytest.mark.parametrize(
    ("node", "spec", "change"),
    [
        ({"unschedulable": True}, {}, {"spec": {"unschedulable": None}}),
        (
            {"taints": [{"key": "k", "effect": "NoSchedule"}]},
            {},
            {"spec": {"taints": None}},
        ),
        ({}, {"nodeSelector": {"disk": "ssd"}}, {"metadata": {"labels": {"disk": "ssd"}}}),
        (
            {"cpu": "1"},
            {"cpu": "2"},
            {"status": {"allocatable": {"cpu": "4"}}},
        ),
    ],
)
async def test_a_change_of_the_node_wakes_the_pods_it_helps(node, spec, change):
    async with Bench() as bench:
        await bench.node("n1", **node)
        await bench.pod("web", **spec)
        await bench.refusal("web")
        subresource = "status" if "status" in change else ""
        await bench.client.patch(NODES, "n1", change, subresource=subresource)
        await bench.placed("web")


async def test_a_heartbeat_wakes_nobody():
    async with Bench() as bench:
        await bench.node("n1", cpu="1")
        await bench.pod("web", cpu="2")
        await bench.refusal("web")
        await bench.settle()
        before = len(bench.api.requests)
        node = bench.api.get(NODES, "n1")
        beat = {**node["status"], "conditions": [{"type": "Ready", "lastHeartbeatTime": "x"}]}
        await bench.client.update_status(NODES, {**node, "status": beat})
        await bench.settle()
        assert len(bench.api.requests) == before + 1


async def test_a_pod_that_learns_to_tolerate_is_tried_again():
    async with Bench() as bench:
        await bench.node("n1", taints=[{"key": "k", "effect": "NoSchedule"}])
        await bench.pod("web")
        await bench.refusal("web")
        tolerations = {"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}}
        await bench.client.patch(PODS, "web", tolerations, "default")
        await bench.placed("web")


async def test_a_gated_pod_waits_until_its_gates_are_open():
    async with Bench() as bench:
        await bench.node("n1")
        await bench.pod("web", schedulingGates=[{"name": "example.com/go"}])
        await bench.settle()
        assert bench.place("web") is None
        assert bench.api.find(EVENTS) == []
        await bench.client.patch(PODS, "web", {"spec": {"schedulingGates": []}}, "default")
        await bench.placed("web")


async def test_pods_of_other_schedulers_and_pods_that_go_are_left_alone():
    async with Bench() as bench:
        await bench.node("n1")
        await bench.pod("foreign", schedulerName="mine")
        held = pod("held")
        held["metadata"]["finalizers"] = ["example.com/hold"]
        held["metadata"]["deletionTimestamp"] = meta.now()
        await bench.client.create(PODS, held)
        await bench.pod("ours")
        await bench.placed("ours")
        assert bench.place("foreign") is None
        assert bench.place("held") is None


async def test_pods_are_spread_over_equal_nodes_and_never_beyond_what_fits():
    async with Bench() as bench:
        for number in range(4):
            await bench.node(f"n{number}", cpu="1")
        for number in range(41):
            await bench.pod(f"p{number}", cpu="100m")
        await bench.until(
            lambda: sum(bool(bench.place(f"p{number}")) for number in range(41)) == 40
        )
        counts = {
            name: sum(bench.place(f"p{number}") == name for number in range(41))
            for name in ("n0", "n1", "n2", "n3")
        }
        assert counts == {"n0": 10, "n1": 10, "n2": 10, "n3": 10}


async def test_an_important_pod_comes_first():
    async with Bench() as bench:
        await bench.pod("low", cpu="1", priority=1)
        await bench.pod("high", cpu="1", priority=10)
        await bench.refusal("low")
        await bench.refusal("high")
        await bench.settle()
        await bench.node("n1", cpu="1", pods="1")
        await bench.placed("high")
        assert bench.place("low") is None


async def test_less_important_pods_make_room():
    async with Bench() as bench:
        await bench.node("n1", cpu="2")
        for name in ("a", "b"):
            await bench.pod(name, cpu="1", priority=1, terminationGracePeriodSeconds=0)
        await bench.placed("a", "b")
        await bench.pod("high", cpu="1", priority=10)
        await bench.placed("high")
        left = [name for name in ("a", "b") if bench.api.get(PODS, name, "default")]
        assert len(left) == 1
        events = await bench.until(
            lambda: [e for e in bench.api.find(EVENTS) if e["reason"] == "Preempted"]
        )
        assert len(events) == 1


async def test_a_pod_that_never_preempts_waits():
    async with Bench() as bench:
        await bench.node("n1", cpu="1")
        await bench.pod("low", cpu="1", priority=1)
        await bench.placed("low")
        await bench.pod("high", cpu="1", priority=10, preemptionPolicy="Never")
        message = await bench.refusal("high")
        assert message.endswith("preemption: not eligible due to preemptionPolicy=Never.")
        assert bench.api.get(PODS, "low", "default") is not None


async def test_a_binding_that_fails_is_taken_back_and_tried_again():
    async with Bench() as bench:
        refused = 0

        def refuse(method: str, path: str, body: object) -> None:
            nonlocal refused
            if path.endswith("/binding") and refused < 3:
                refused += 1
                raise StatusError(500, "InternalError", "not now")

        bench.api.before = refuse
        await bench.node("n1", cpu="1")
        await bench.pod("web", cpu="1")
        await bench.placed("web")
        assert refused == 3


async def test_a_binding_whose_answer_is_lost_counts_once():
    async with Bench() as bench:
        lost = False

        def lose(method: str, path: str, body: object) -> None:
            nonlocal lost
            if path.endswith("/binding") and not lost:
                lost = True
                raise ConnectionError("broken pipe")

        bench.api.after = lose
        await bench.node("n1", cpu="1")
        await bench.pod("a", cpu="500m")
        await bench.placed("a")
        await bench.pod("b", cpu="500m")
        await bench.placed("b")
        await bench.pod("c", cpu="500m")
        assert "Insufficient cpu" in await bench.refusal("c")


async def test_a_pod_that_somebody_else_binds_is_counted():
    async with Bench() as bench:
        await bench.node("n1", cpu="1")
        await bench.pod("foreign", schedulerName="mine", cpu="1")
        binding = {"metadata": {"name": "foreign", "namespace": "default"}}
        binding["target"] = {"name": "n1"}
        await bench.client.create(PODS, binding, name="foreign", subresource="binding")
        await bench.pod("web", cpu="1")
        assert "Insufficient cpu" in await bench.refusal("web")


class OnlyBlue(Filter):
    """A plugin of the user's own."""

    name = "OnlyBlue"

    def filter(self, cycle, pod, node):
        return None if node.labels.get("color") == self.arguments["color"] else reject("not blue")


class Broken(Filter):
    name = "Broken"

    def filter(self, cycle, pod, node):
        if pod.key == "default/cursed":
            raise RuntimeError("a fault")


class Ledger(Reserve, Permit):
    name = "Ledger"
    log: ClassVar[list[str]] = []

    def reserve(self, cycle, pod, node):
        self.log.append(f"reserve {node}")

    def unreserve(self, cycle, pod, node):
        self.log.append(f"unreserve {node}")

    async def permit(self, cycle, pod, node):
        return reject("no permit") if len(self.log) < 3 else None


def configured(*more: Use) -> Configuration:
    return Configuration(
        profiles=(Profile(plugins=(*DEFAULT_PLUGINS, *more)),), initial_backoff=0.01
    )


async def test_a_plugin_of_the_users_own_is_a_class_named_in_the_configuration():
    use = Use(f"{__name__}:OnlyBlue", arguments={"color": "blue"})
    async with Bench(configured(use)) as bench:
        await bench.node("n1", labels={"color": "red"})
        await bench.pod("web")
        assert "0/1 nodes are available: 1 not blue." in await bench.refusal("web")
        await bench.node("n2", labels={"color": "blue"})
        await bench.placed("web")
        assert bench.place("web") == "n2"


async def test_a_plugin_that_fails_on_one_pod_does_not_stop_the_others():
    async with Bench(configured(Use(f"{__name__}:Broken"))) as bench:
        await bench.node("n1")
        await bench.pod("cursed")
        await bench.pod("web")
        await bench.placed("web")
        assert bench.place("cursed") is None


async def test_what_was_reserved_is_given_back_when_a_later_plugin_objects():
    Ledger.log.clear()
    async with Bench(configured(Use(f"{__name__}:Ledger"))) as bench:
        await bench.node("n1")
        await bench.pod("web")
        await bench.until(lambda: "unreserve n1" in Ledger.log)
        await bench.node("n2")  # any change helps a plugin that names none
        await bench.placed("web")
        assert Ledger.log[:3] == ["reserve n1", "unreserve n1", Ledger.log[2]]


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        ("Nothing", 'plugin "Nothing" does not exist'),
        ("no.such.module:X", "cannot be loaded"),
        ("json:JSONDecoder", "is not a class derived from Plugin"),
        ("NodeName", "is used twice"),
    ],
)
async def test_a_wrong_configuration_is_refused(use, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        await run_scheduler(Client(FakeAPI()), configured(Use(use)))


async def test_profiles_decide_for_their_own_pods():
    blue = Profile(
        "blue", (*DEFAULT_PLUGINS, Use(f"{__name__}:OnlyBlue", arguments={"color": "blue"}))
    )
    async with Bench(Configuration(profiles=(Profile(), blue))) as bench:
        await bench.node("n1")
        await bench.pod("plain")
        await bench.pod("picky", schedulerName="blue")
        await bench.placed("plain")
        assert "not blue" in await bench.refusal("picky")


async def test_a_gated_pod_says_so():
    async with Bench() as bench:
        await bench.node("n1")
        await bench.pod("web", schedulingGates=[{"name": "example.com/go"}])
        found = await bench.until(lambda: bench.condition("web"))
        assert (found["status"], found["reason"]) == ("False", "SchedulingGated")


async def test_victims_leave_in_their_own_time_and_the_node_is_kept_for_the_important():
    async with Bench() as bench:
        await bench.node("n1", cpu="1")
        await bench.pod("low", cpu="1", priority=1)
        await bench.placed("low")
        await bench.pod("high", cpu="1", priority=10)
        status = await bench.until(
            lambda: (
                (s := bench.api.get(PODS, "high", "default").get("status") or {}).get(
                    "nominatedNodeName"
                )
                and s
            )
        )
        assert status["nominatedNodeName"] == "n1"
        low = await bench.until(
            lambda: (p := bench.api.get(PODS, "low", "default")) and meta.is_deleting(p) and p
        )
        assert low["metadata"]["deletionGracePeriodSeconds"] == 30
        reasons = {c["type"]: c.get("reason") for c in low["status"]["conditions"]}
        assert reasons["DisruptionTarget"] == "PreemptionByScheduler"
        await bench.pod("middle", cpu="1", priority=5)
        await bench.refusal("middle")
        await bench.client.delete(PODS, "low", "default", grace=0)
        await bench.placed("high")
        assert bench.place("middle") is None


async def test_budgets_are_respected_where_another_node_will_do():
    async with Bench() as bench:
        for name, app in (("n1", "kept"), ("n2", "free")):
            await bench.node(name, cpu="1", labels={"kubernetes.io/hostname": name})
            body = pod(app, cpu="1", priority=1, nodeSelector={"kubernetes.io/hostname": name})
            body["metadata"]["labels"] = {"app": app}
            await bench.client.create(PODS, body)
        await bench.placed("kept", "free")
        await bench.client.create(
            POD_DISRUPTION_BUDGETS,
            {
                "metadata": {"name": "kept", "namespace": "default"},
                "spec": {"selector": {"matchLabels": {"app": "kept"}}},
                "status": {"disruptionsAllowed": 0},
            },
        )
        await bench.settle()
        await bench.pod("high", cpu="1", priority=10)
        await bench.until(lambda: meta.is_deleting(bench.api.get(PODS, "free", "default")))
        assert not meta.is_deleting(bench.api.get(PODS, "kept", "default"))


async def test_a_pod_that_comes_wakes_whom_it_draws():
    near = {"topologyKey": "host", "labelSelector": {"matchLabels": {"app": "friend"}}}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [near]}
    async with Bench() as bench:
        await bench.node("n0", labels={"host": "n0"})
        await bench.pod("lonely", affinity={"podAffinity": required})
        assert "didn't match pod affinity rules" in await bench.refusal("lonely")
        friend = pod("friend")
        friend["metadata"]["labels"] = {"app": "friend"}
        await bench.client.create(PODS, friend)
        await bench.placed("friend", "lonely")
