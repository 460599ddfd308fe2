"""The promises of a rollout, over random histories: no clock, no cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cluster import deployment, template
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.controllers.deployment import revisions, rolling, status
from wherry.kube.controllers.deployment.plan import plan

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

amounts = st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda n: f"{n}%"))


class Model:
    """A Deployment, its ReplicaSets and their pods; every step is one actor's."""

    def __init__(self, replicas: int, surge: Any, unavailable: Any, kind: str) -> None:
        strategy: Object = {"type": kind}
        if kind == "RollingUpdate":
            strategy["rollingUpdate"] = {"maxSurge": surge, "maxUnavailable": unavailable}
        self.deployment = deployment(replicas=replicas, strategy=strategy)
        self.deployment["metadata"].update(uid="d", generation=1)
        self.sets: dict[str, Object] = {}
        self.pods: dict[str, list[bool]] = {}
        """By ReplicaSet, whether each pod is available."""
        self.broken: set[str] = set()

    # -- actors

    def change(self, **spec: Any) -> None:
        generation = self.deployment["metadata"]["generation"] + 1
        metadata = {**self.deployment["metadata"], "generation": generation}
        spec = {**self.deployment["spec"], **spec}
        self.deployment = {**self.deployment, "metadata": metadata, "spec": spec}

    def roll(self, image: str) -> None:
        self.change(template=template(image=image))

    def step(self) -> bool:
        """The deployment controller; whether it did something."""
        wanted = plan(self.deployment, list(self.sets.values()), self._pods_of, NOW)
        if wanted.create is not None:
            name = meta.name(wanted.create)
            assert name not in self.sets
            moment = meta.format_time(NOW + timedelta(seconds=len(self.sets)))
            made = {"uid": name, "creationTimestamp": moment, "generation": 1}
            metadata = {**wanted.create["metadata"], **made}
            self.sets[name] = {**wanted.create, "metadata": metadata}
            self.pods[name] = []
        for old, new in wanted.update:
            name = meta.name(old)
            bump = old["spec"] != new["spec"]
            generation = old["metadata"]["generation"] + bump
            metadata = {**new["metadata"], "generation": generation}
            self.sets[name] = {**new, "metadata": metadata}
        for old in wanted.delete:
            assert not self.pods[meta.name(old)], "history with pods was removed"
            del self.sets[meta.name(old)], self.pods[meta.name(old)]
        if wanted.deployment is not None:
            self.deployment = wanted.deployment
        return bool(wanted.create or wanted.update or wanted.delete or wanted.deployment)

    def replicate(self, name: str) -> bool:
        """The replica set controller: pods that are not available go first."""
        pods, size = self.pods[name], rolling.size(self.sets[name])
        pods.sort()
        surplus = len(pods) - size
        del pods[: max(0, surplus)]
        pods.extend([False] * -min(0, surplus))
        return surplus != 0

    def start(self, name: str) -> bool:
        """A kubelet: one pod becomes available."""
        pods = self.pods[name]
        if name in self.broken or all(pods):
            return False
        pods[pods.index(False)] = True
        return True

    def report(self, name: str) -> bool:
        """The replica set controller tells what there is."""
        rs, pods = self.sets[name], self.pods[name]
        new: Object = {
            "replicas": len(pods),
            "readyReplicas": sum(pods),
            "availableReplicas": sum(pods),
            "observedGeneration": rs["metadata"]["generation"],
        }
        changed = new != rs.get("status")
        self.sets[name] = {**rs, "status": new}
        return changed

    def settle(self) -> None:
        """Everybody acts in turn until nobody has anything to do."""
        for _ in range(500):
            busy = self.step()
            for name in list(self.sets):
                for act in (self.replicate, self.start, self.report):
                    busy = act(name) or busy
            if not busy:
                return
        pytest.fail("it never settles")

    def _pods_of(self, rs: Object) -> list[Object]:
        return [{"metadata": {}, "status": {}} for _ in self.pods[meta.name(rs)]]

    # -- what is so

    @property
    def total(self) -> int:
        return sum(map(rolling.size, self.sets.values()))

    @property
    def available(self) -> int:
        return sum(map(sum, self.pods.values()))

    @property
    def sizes(self) -> dict[str, int]:
        return {
            rs["spec"]["template"]["spec"]["containers"][0]["image"]: rolling.size(rs)
            for rs in self.sets.values()
        }


def settled(replicas: int, surge: Any, unavailable: Any, kind: str = "RollingUpdate") -> Model:
    model = Model(replicas, surge, unavailable, kind)
    model.settle()
    assert model.available == replicas
    return model


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 12), amounts, amounts, st.data())
def test_a_rolling_update_keeps_both_promises_whoever_acts_next(
    replicas: int, surge: Any, unavailable: Any, data: st.DataObject
):
    model = settled(replicas, surge, unavailable)
    for image in data.draw(
        st.lists(st.sampled_from(["hello:2", "hello:3", "hello:1"]), min_size=1, max_size=3)
    ):
        model.roll(image)
        most, least = rolling.most(model.deployment), replicas - rolling.limits(model.deployment)[1]
        for _ in range(data.draw(st.integers(0, 25))):
            actor = data.draw(st.sampled_from(["step", "replicate", "start", "report"]))
            if actor == "step":
                model.step()
            else:
                getattr(model, actor)(data.draw(st.sampled_from(sorted(model.sets))))
            assert model.total <= most
            assert model.available >= least
    model.settle()
    assert sum(model.sizes.values()) == model.sizes[image] == model.available == replicas


def test_a_status_older_than_the_size_is_not_built_upon():
    """Rolled back before the first replica set has told that its pod is gone."""
    model = settled(1, 1, 0)
    (old,) = model.sets
    model.roll("hello:2")
    model.step()
    (new,) = set(model.sets) - {old}
    for act in (model.replicate, model.start, model.report):
        act(new)
    model.step()
    model.replicate(old)
    assert model.pods == {old: [], new: [True]}
    model.roll("hello:1")
    for _ in range(3):
        model.step()
        model.replicate(new)
    assert model.available == 1
    model.settle()
    assert model.pods == {old: [True], new: []}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), amounts, amounts)
def test_a_broken_revision_never_takes_more_than_it_may(
    replicas: int, surge: Any, unavailable: Any
):
    model = settled(replicas, surge, unavailable)
    model.roll("broken")
    model.step()
    model.broken = {meta.name(rs) for rs in model.sets.values() if model.pods[meta.name(rs)] == []}
    model.settle()
    assert model.available >= replicas - rolling.limits(model.deployment)[1]
    assert model.total <= rolling.most(model.deployment)
    model.roll("hello:1")
    model.settle()
    assert model.sizes == {"hello:1": replicas, "broken": 0}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10), st.integers(0, 20), st.integers(0, 12), st.data())
def test_scaling_in_the_middle_of_a_rollout_shares_and_converges(
    before: int, after: int, steps: int, data: st.DataObject
):
    model = settled(before, "25%", "25%")
    model.roll("hello:2")
    for _ in range(steps):
        model.step()
        name = data.draw(st.sampled_from(sorted(model.sets)))
        model.replicate(name), model.start(name), model.report(name)
    model.change(replicas=after)
    model.step()
    assert model.total <= max(rolling.most(model.deployment), 0 if after else model.total)
    model.settle()
    assert model.sizes["hello:2"] == after
    assert model.available == after


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 8), st.data())
def test_recreate_never_mixes_revisions(replicas: int, data: st.DataObject):
    model = settled(replicas, 0, 0, "Recreate")
    model.roll("hello:2")
    for _ in range(30):
        actor = data.draw(st.sampled_from(["step", "replicate", "start", "report"]))
        if actor == "step":
            model.step()
        else:
            getattr(model, actor)(data.draw(st.sampled_from(sorted(model.sets))))
        assert sum(bool(pods) for pods in model.pods.values()) <= 1
    model.settle()
    assert model.sizes["hello:2"] == replicas == model.available


def test_a_scaled_rollout_keeps_its_proportions():
    """The example of upstream's documentation: 10 replicas, 8 old and 5 new, then 15."""
    model = settled(10, 3, 2)
    model.roll("broken")
    model.step()
    (new,) = [n for n, rs in model.sets.items() if rolling.size(rs) and not model.pods[n]]
    model.broken = {new}
    model.settle()
    assert model.sizes == {"hello:1": 8, "broken": 5}
    model.change(replicas=15)
    model.step()
    assert model.sizes == {"hello:1": 11, "broken": 7}


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (3, 0, 0, (0, 1)),
        (3, "0%", "10%", (0, 1)),
        (2, 5, 5, (5, 2)),
        (0, "25%", "25%", (0, 0)),
        (10, "100%", "0%", (10, 0)),
    ],
)
def test_percentages_round_up_for_the_surge_and_down_for_the_unavailable(
    replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]
):
    parameters = {"maxSurge": surge, "maxUnavailable": unavailable}
    strategy = {"type": "RollingUpdate", "rollingUpdate": parameters}
    assert rolling.limits(deployment(replicas=replicas, strategy=strategy)) == expected


def test_the_hash_is_stable_and_spells_no_words():
    hash = revisions.template_hash(template(), 0)
    assert hash == revisions.template_hash(dict(reversed(template().items())), 0)
    assert set(hash) <= set("bcdfghjklmnpqrstvwxz2456789")
    others = {
        revisions.template_hash(template(image=f"i:{n}"), c) for n in range(20) for c in (0, 1)
    }
    assert len(others) == 40


def test_templates_are_equal_but_for_the_hash_label():
    labelled = template()
    labelled["metadata"] = {
        "creationTimestamp": None,
        "labels": {"app": "web", "pod-template-hash": "x"},
    }
    assert revisions.same_template(template(), labelled)
    assert not revisions.same_template(template(), template(image="other"))


def test_annotations_follow_the_deployment_but_for_those_of_kubectl():
    d = deployment()
    d["metadata"]["annotations"] = {
        "kubernetes.io/change-cause": "because",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "deployment.kubernetes.io/revision": "7",
    }
    assert revisions.annotations_for(d, None, 8) == {
        "kubernetes.io/change-cause": "because",
        "deployment.kubernetes.io/revision": "8",
    }


def test_a_long_history_of_revisions_is_cut():
    rs: Object = {"metadata": {"annotations": {revisions.REVISION: "1"}}}
    for number in range(2, 2000):
        annotations = revisions.annotations_for(deployment(), rs, number)
        rs = {"metadata": {"annotations": annotations}}
    history = meta.annotations(rs)[revisions.REVISION_HISTORY]
    assert len(history) <= 2000
    assert history.endswith(",1998")


def at(seconds: int) -> datetime:
    return NOW + timedelta(seconds=seconds)


def progressing(reason: str, state: str = "True") -> Object:
    return status.condition("Progressing", state, reason, "", NOW)


def test_a_rollout_that_stands_still_is_overdue_after_its_deadline():
    d = {**deployment(progressDeadlineSeconds=60), "status": {"replicas": 1}}
    d["metadata"]["generation"] = 1
    kept = [progressing("ReplicaSetUpdated")]
    report = {"replicas": 1, "conditions": kept}
    assert status.next_check(d, report, at(10)) == 51
    assert status.with_progress(d, None, report, kept, at(59)) == kept
    (late,) = status.with_progress(d, None, report, kept, at(61))
    assert (late["status"], late["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert late["message"] == 'Deployment "web" has timed out progressing.'
    assert status.next_check(d, {"conditions": [late]}, at(61)) is None


def test_pods_that_fail_after_the_rollout_do_not_time_it_out():
    d = {**deployment(progressDeadlineSeconds=60), "status": {}}
    kept = [progressing("NewReplicaSetAvailable")]
    report = {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 1}
    assert status.with_progress(d, None, report, kept, at(600)) == kept


def test_without_a_deadline_there_is_no_condition():
    d = deployment(progressDeadlineSeconds=None)
    assert status.with_progress(d, None, {}, [progressing("X")], NOW) == []


def test_a_pause_stops_the_clock():
    d = deployment(paused=True)
    (paused,) = status.with_pause(d, [progressing("ReplicaSetUpdated")], at(5))
    assert (paused["status"], paused["reason"]) == ("Unknown", "DeploymentPaused")
    (resumed,) = status.with_pause(deployment(), [paused], at(500))
    assert resumed["reason"] == "DeploymentResumed"
    assert resumed["lastUpdateTime"] == meta.format_time(at(500))
