"""A budget over random histories of evictions: as long as nothing else harms its pods, there are
never fewer healthy ones than it demands, however late the controller and the kubelets are."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from test_disruption_controller import NOW, pod

from wherry.kube.api import pods
from wherry.kube.api.meta import format_time, is_deleting, name
from wherry.kube.client.transport import Object
from wherry.kube.controllers.disruption import counts, disrupted, status

SPECS = st.one_of(
    st.integers(0, 7).map(lambda n: {"minAvailable": n}),
    st.integers(0, 7).map(lambda n: {"maxUnavailable": n}),
    st.sampled_from(["0%", "30%", "50%", "100%"]).map(lambda p: {"minAvailable": p}),
    st.sampled_from(["0%", "30%", "50%", "100%"]).map(lambda p: {"maxUnavailable": p}),
)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["sync", "sync", "evict", "evict", "delete", "end", "replace", "wait"]),
        st.integers(0, 9),
    ),
    max_size=40,
)
SCALE = 6


@settings(max_examples=200, deadline=None)
@given(SPECS, ACTS)
def test_evictions_leave_as_many_as_the_budget_demands(spec: Object, acts: list):
    budget: Object = {"metadata": {"name": "b"}, "spec": spec, "status": {}}
    there = {f"p{n}": pod(f"p{n}") for n in range(SCALE)}
    moment, made = NOW, SCALE
    evicting: dict[str, None] = {}  # allowed, and their deletion not seen yet

    def sync() -> None:
        found = list(there.values())
        wanted = counts(spec, len(found), SCALE)
        going, _ = disrupted(budget, found, moment)
        budget["status"] = status(budget, found, wanted, going, format_time(moment))

    for what, number in acts:
        before = len(evicting)
        picked = sorted(there)[number % len(there)] if there else ""
        if what == "sync":
            sync()
        elif what == "evict" and picked:
            known = budget["status"]
            allowed = known.get("disruptionsAllowed", 0)
            if allowed > 0 and picked not in evicting and not is_deleting(there[picked]):
                going = {**known.get("disruptedPods", {}), picked: format_time(moment)}
                budget["status"] = {
                    **known,
                    "disruptionsAllowed": allowed - 1,
                    "disruptedPods": going,
                }
                evicting[picked] = None
        elif what == "delete" and evicting:
            gone, _ = evicting.popitem()
            there[gone] = pod(gone, deleting=True)
        elif what == "end":
            ended = [n for n, p in there.items() if is_deleting(p)]
            for each in ended[:1]:
                del there[each]
        elif what == "replace" and len(there) < SCALE:
            there[f"p{made}"] = pod(f"p{made}")
            made += 1
        elif what == "wait":
            moment += timedelta(seconds=number)  # less than what evictions are believed for
            if evicting and (moment - NOW).total_seconds() > 100:
                break
        healthy = sum(
            pods.is_ready(p) and not is_deleting(p) and name(p) not in evicting
            for p in there.values()
        )
        demanded = counts(spec, len(there), SCALE).desired
        if len(evicting) > before:
            assert healthy >= demanded, "nobody was let go too many"
        if budget["status"].get("disruptionsAllowed"):
            assert healthy - budget["status"]["disruptionsAllowed"] >= demanded
