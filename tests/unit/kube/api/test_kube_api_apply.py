"""Server-side apply, as upstream documents it."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import apply as ssa
from wherry.kube.api.errors import StatusError
from wherry.kube.api.merge_types import merge_type_of
from wherry.kube.api.merging import compare
from wherry.kube.api.meta import clone
from wherry.kube.api.resources import CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES

T1, T2, T3 = (f"2026-01-01T00:00:0{i}Z" for i in (1, 2, 3))


def deployment(*, replicas: int | None = None, **containers: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": "web"}}}
    if replicas is not None:
        spec["replicas"] = replicas
    if containers:
        spec["template"] = {
            "spec": {"containers": [{"name": k, **v} for k, v in containers.items()]}
        }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "demo"},
        "spec": spec,
    }


def applied(live: Any, config: Any, manager: str = "me", now: str = T1, **options: Any) -> Any:
    resource = options.pop("resource", DEPLOYMENTS)
    before = clone([live, config])
    result = ssa.apply(resource, live, config, manager, now=now, **options)
    assert [live, config] == before
    return result


def updated(live: Any, new: Any, manager: str = "them", now: str = T1, **options: Any) -> Any:
    before = clone(live)
    new = clone(new)
    ssa.track_update(options.pop("resource", DEPLOYMENTS), live, new, manager, now=now, **options)
    assert live == before
    return new


def entries(o: dict[str, Any]) -> list[tuple[str, str, Any]]:
    managed = o["metadata"].get("managedFields", [])
    return [(e["manager"], e["operation"], e["fieldsV1"]) for e in managed]


def conflict(live: Any, config: Any, manager: str = "me", **options: Any) -> StatusError:
    with pytest.raises(StatusError) as caught:
        applied(live, config, manager, **options)
    assert (caught.value.code, caught.value.reason) == (409, "Conflict")
    return caught.value


SELECTOR = {"f:selector": {}}


def test_applying_to_nothing_creates_and_owns_what_was_said():
    o = applied(None, deployment(replicas=3, web={"image": "hello:1"}))
    assert o["spec"]["replicas"] == 3
    (entry,) = o["metadata"]["managedFields"]
    assert entry == {
        "manager": "me",
        "operation": "Apply",
        "apiVersion": "apps/v1",
        "time": T1,
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:spec": {
                        "f:containers": {'k:{"name":"web"}': {".": {}, "f:image": {}, "f:name": {}}}
                    }
                },
            }
        },
    }


def test_applying_the_same_again_changes_nothing_at_all():
    config = deployment(replicas=3, web={"image": "hello:1"})
    live = applied(None, config)
    assert applied(live, config, now=T2) is live


def test_a_changed_value_moves_the_time():
    live = applied(None, deployment(replicas=3))
    o = applied(live, deployment(replicas=4), now=T2)
    assert o["spec"]["replicas"] == 4
    assert o["metadata"]["managedFields"][0]["time"] == T2


def test_what_is_applied_no_longer_is_removed():
    live = applied(None, deployment(replicas=3, a={"image": "a:1"}, b={"image": "b:1"}))
    o = applied(live, deployment(a={}), now=T2)
    assert o["spec"] == deployment(a={})["spec"]


def test_what_others_hold_too_stays():
    live = applied(None, deployment(replicas=3, a={"image": "a:1"}))
    live = applied(live, deployment(replicas=3), "other")
    o = applied(live, deployment(a={"image": "a:1"}))
    assert o["spec"]["replicas"] == 3
    assert entries(o)[1] == ("other", "Apply", {"f:spec": {"f:replicas": {}, **SELECTOR}})


def test_what_nobody_applied_stays():
    live = applied(None, deployment(a={"image": "a:1"}))
    live["spec"]["paused"] = True  # a default, say
    o = applied(live, deployment(a={"image": "a:2"}))
    assert o["spec"]["paused"] is True


def test_a_struct_goes_with_the_last_field_that_was_applied_in_it():
    config = deployment()
    live = applied(
        None, config | {"spec": {**config["spec"], "strategy": {"rollingUpdate": {"maxSurge": 1}}}}
    )
    live["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = "25%"  # defaulted, not owned
    o = applied(live, config, now=T2)
    assert "strategy" not in o["spec"]


def test_another_value_than_anothers_is_a_conflict():
    live = updated(None, deployment(replicas=3), "kubectl-client-side-apply")
    error = conflict(live, deployment(replicas=4))
    assert error.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: '
        ".spec.replicas"
    )
    assert error.details == {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
                "field": ".spec.replicas",
            }
        ]
    }


def test_several_conflicts_are_told_by_manager():
    live = applied(None, deployment(replicas=3, web={"image": "hello:1", "tty": True}), "b")
    live = updated(live, live | {"spec": {**live["spec"], "replicas": 4}}, "a", subresource="scale")
    error = conflict(live, deployment(replicas=5, web={"image": "hello:2", "tty": False}))
    assert error.message == (
        "Apply failed with 3 conflicts: "
        'conflicts with "a" with subresource "scale" using apps/v1:\n'
        "- .spec.replicas\n"
        'conflicts with "b":\n'
        '- .spec.template.spec.containers[name="web"].image\n'
        '- .spec.template.spec.containers[name="web"].tty'
    )
    assert len(error.details["causes"]) == 3


def test_the_same_value_is_shared_not_fought_over():
    live = applied(None, deployment(replicas=3), "other")
    o = applied(live, deployment(replicas=3))
    assert [e[0] for e in entries(o)] == ["me", "other"]


def test_force_takes_the_field():
    live = updated(None, deployment(replicas=3), "them")
    o = applied(live, deployment(replicas=4), force=True, now=T2)
    assert o["spec"]["replicas"] == 4
    assert entries(o) == [
        ("me", "Apply", {"f:spec": {"f:replicas": {}, **SELECTOR}}),
        ("them", "Update", {"f:spec": {**SELECTOR}}),
    ]


def test_an_update_takes_what_it_changes_without_asking():
    live = applied(None, deployment(replicas=3, web={"image": "hello:1"}))
    new = clone(live)
    new["spec"]["replicas"] = 5
    new["spec"]["paused"] = True
    o = updated(live, new, now=T2)
    mine, theirs = entries(o)
    assert "f:replicas" not in mine[2]["f:spec"]
    assert theirs == ("them", "Update", {"f:spec": {"f:paused": {}, "f:replicas": {}}})
    assert conflict(o, deployment(replicas=3, web={"image": "hello:1"}))


def test_an_update_that_removes_leaves_no_owner_behind():
    live = applied(None, deployment(replicas=3, a={"image": "a:1"}, b={"image": "b:1"}))
    new = clone(live)
    del new["spec"]["template"]["spec"]["containers"][0]
    o = updated(live, new, now=T2)
    (mine,) = entries(o)
    assert list(mine[2]["f:spec"]["f:template"]["f:spec"]["f:containers"]) == ['k:{"name":"b"}']
    assert o["metadata"]["managedFields"][0]["time"] == T1


def test_an_update_that_changes_nothing_notes_nothing():
    live = applied(None, deployment(replicas=3))
    o = updated(live, live, now=T2)
    assert o == live
    without = clone(live)
    del without["metadata"]["managedFields"]  # a client need not send them back
    assert updated(live, without, now=T2) == live


def test_a_create_notes_all_fields_and_the_maps_it_made():
    o = updated(
        None,
        {
            "metadata": {"name": "web", "labels": {"app": "web"}, "uid": "1", "generation": 1},
            "spec": {
                "containers": [{"name": "web", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]
            },
            "status": {"phase": "Pending"},
        },
        resource=PODS,
    )
    assert entries(o) == [
        (
            "them",
            "Update",
            {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {
                        ".": {},
                        'k:{"name":"web"}': {
                            ".": {},
                            "f:name": {},
                            "f:ports": {
                                ".": {},
                                'k:{"containerPort":80,"protocol":"TCP"}': {
                                    ".": {},
                                    "f:containerPort": {},
                                    "f:protocol": {},
                                },
                            },
                        },
                    }
                },
            },
        )
    ]


def test_status_has_managers_of_its_own():
    live = updated(None, deployment(replicas=1))
    new = {**live, "status": {"replicas": 1, "conditions": [{"type": "Available"}]}}
    o = updated(live, new, "controller", now=T2, subresource="status")
    assert o["metadata"]["managedFields"][1] == {
        "manager": "controller",
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": T2,
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:status": {
                "f:conditions": {".": {}, 'k:{"type":"Available"}': {".": {}, "f:type": {}}},
                "f:replicas": {},
            }
        },
        "subresource": "status",
    }


def test_applied_status_is_not_managed_by_the_main_door():
    o = applied(None, deployment(replicas=1) | {"status": {"replicas": 9}})
    assert "f:status" not in entries(o)[0][2]


def test_an_object_without_managers_gets_none_by_an_update():
    live = deployment(replicas=1)
    o = updated(live, deployment(replicas=2))
    assert "managedFields" not in o["metadata"]


def test_the_first_apply_finds_someone_before_it():
    live = deployment(replicas=1)
    assert conflict(live, deployment(replicas=2)).message.endswith(
        'conflict with "before-first-apply" using apps/v1: .spec.replicas'
    )
    o = applied(live, deployment(replicas=1))
    assert [e[0] for e in entries(o)] == ["me", "before-first-apply"]


@pytest.mark.parametrize("cleared", [[], [{}]])
def test_a_client_may_clear_managed_fields(cleared: list[Any]):
    live = updated(None, deployment(replicas=1))
    new = clone(live)
    new["metadata"]["managedFields"] = cleared
    assert "managedFields" not in updated(live, new)["metadata"]


def test_a_client_may_rewrite_managed_fields_but_not_break_them():
    live = updated(None, deployment(replicas=1))
    new = clone(live)
    new["metadata"]["managedFields"][0]["manager"] = "renamed"
    assert entries(updated(live, new))[0][0] == "renamed"
    new["metadata"]["managedFields"][0]["fieldsV1"] = {"bogus": {}}
    assert entries(updated(live, new)) == entries(live)


def test_kubectl_takes_over_what_its_client_side_apply_set():
    config = deployment(replicas=3, web={"image": "hello:1"})
    note = {ssa.LAST_APPLIED: orjson.dumps(config).decode()}
    live = updated(
        None,
        config | {"metadata": {**config["metadata"], "annotations": note}},
        "kubectl-client-side-apply",
    )
    wanted = deployment(replicas=4, web={"image": "hello:1"})
    assert conflict(live, wanted, "another")
    o = applied(live, wanted, "kubectl", now=T2)
    assert o["spec"]["replicas"] == 4
    assert orjson.loads(o["metadata"]["annotations"][ssa.LAST_APPLIED]) == wanted


def test_items_are_told_apart_by_all_their_keys():
    def service(*ports: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": "dns"}, "spec": {"ports": list(ports)}}

    tcp, udp = {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}
    live = applied(None, service(tcp, udp), resource=SERVICES)
    o = applied(live, service(udp), resource=SERVICES)
    assert o["spec"]["ports"] == [udp]
    live = applied(None, service({"port": 53}), resource=SERVICES)  # TCP, if nothing is said
    o = applied(live, service(tcp), resource=SERVICES)
    assert o["spec"]["ports"] == [tcp]


def test_an_item_that_stands_twice_is_refused():
    config = deployment()
    config["spec"]["template"] = {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}
    with pytest.raises(StatusError) as caught:
        applied(None, config)
    assert caught.value.message == (
        "failed to create typed patch object (demo/web; apps/v1, Kind=Deployment): errors:\n"
        '  .spec.template.spec.containers: duplicate entries for key [name="a"]'
    )


def test_the_configs_order_wins_and_others_items_keep_their_place():
    live = applied(None, deployment(a={}, x={}, b={}), "other")
    o = applied(live, deployment(b={}, c={}, a={}))
    names = [c["name"] for c in o["spec"]["template"]["spec"]["containers"]]
    assert [n for n in names if n != "x"] == ["b", "c", "a"] and "x" in names
    live = applied(None, deployment(a={}, b={}), "other")
    o = applied(live, deployment(c={}))
    names = [c["name"] for c in o["spec"]["template"]["spec"]["containers"]]
    assert names == ["a", "b", "c"]


def test_sets_merge_by_value():
    def config(*finalizers: str) -> dict[str, Any]:
        return {"metadata": {"name": "x", "finalizers": list(finalizers)}}

    live = applied(None, config("a", "b"), resource=CONFIG_MAPS)
    live = applied(live, config("c"), "other", resource=CONFIG_MAPS)
    assert live["metadata"]["finalizers"] == ["a", "b", "c"]
    o = applied(live, config("b"), resource=CONFIG_MAPS)
    assert o["metadata"]["finalizers"] == ["b", "c"]


def test_old_updaters_become_one():
    live = updated(None, {"metadata": {"name": "x"}, "data": {"k": "0"}}, resource=CONFIG_MAPS)
    for i in range(20):
        new = {**live, "data": {**live["data"], f"k{i}": "1"}}
        now = f"2026-01-01T00:01:{i:02}Z"
        live = updated(live, new, f"m{i}", now, resource=CONFIG_MAPS)
    found = entries(live)
    assert len(found) == 10 and sum(e[0] == "ancient-changes" for e in found) == 1
    owned = {f for e in found for f in e[2]["f:data"]}
    assert owned >= {f"f:k{i}" for i in range(20)}


DATA = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"), max_size=4)


@given(st.lists(st.tuples(st.sampled_from(["me", "you"]), DATA), min_size=1, max_size=6))
def test_forced_applies_keep_what_someone_still_applies_and_nothing_else(steps: list[Any]):
    live = None
    latest: dict[str, dict[str, str]] = {}
    wanted: dict[str, str] = {}
    for manager, data in steps:
        config: dict[str, Any] = {"metadata": {"name": "x"}}
        if data:
            config["data"] = data
        live = applied(live, config, manager, resource=CONFIG_MAPS, force=True)
        for other, held in latest.items():
            if other != manager:  # force took what differs
                for key in [k for k in held if k in data and data[k] != held[k]]:
                    del held[key]
        latest[manager] = dict(data)
        wanted = {}
        for held in latest.values():
            wanted |= held
        assert live.get("data", {}) == wanted


@given(DATA, DATA, DATA)
def test_every_field_of_an_object_that_was_created_has_one_owner(a: Any, b: Any, c: Any):
    live: Any = None
    for manager, data in (("a", a), ("b", b), ("c", c)):
        new = {"metadata": {"name": "x"}, **({"data": data} if data else {})}
        if live is not None and "managedFields" in live["metadata"]:
            new["metadata"]["managedFields"] = live["metadata"]["managedFields"]
        tracked = live is None or "managedFields" in live["metadata"]
        live = updated(live, new, manager, resource=CONFIG_MAPS)
        if tracked:
            owned = [f for e in entries(live) for f in e[2].get("f:data", {}) if f != "."]
            assert sorted(owned) == sorted(f"f:{k}" for k in data)


def test_a_value_that_no_schema_describes_may_become_one_of_another_type():
    shape = merge_type_of({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    assert compare({"a": "x", "b": 1}, {"a": "y", "b": 1}, shape) == ({"f:a": {}}, {})
    changed, _ = compare({"a": "x"}, {"a": {"b": 1}}, shape)
    assert "f:b" in changed["f:a"]
    assert compare({"a": {"b": 1}}, {"a": [1]}, shape)[0] == {"f:a": {}}
