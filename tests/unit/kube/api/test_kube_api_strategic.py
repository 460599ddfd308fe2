"""Strategic merge patches as kubectl sends them, and as they should not be sent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import clone
from wherry.kube.api.patch import strategic_merge_patch
from wherry.kube.api.resources import DEPLOYMENTS, PODS, SERVICES


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web"}, "spec": {"containers": list(containers), **spec}}


def patched(doc: dict[str, Any], patch: Any, resource: Any = PODS) -> dict[str, Any]:
    doc_before, patch_before = clone(doc), clone(patch)
    result = strategic_merge_patch(resource, doc, patch)
    assert doc == doc_before and patch == patch_before
    return result


A, B, C = {"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}, {"name": "c"}


def test_maps_merge_and_null_removes():
    doc = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    patch = {"metadata": {"labels": {"a": None, "c": "3", "zz": None}, "annotations": {"x": None}}}
    assert patched(doc, patch) == {"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {}}}


def test_containers_merge_by_name():
    result = patched(pod(A, B), {"spec": {"containers": [{"name": "b", "image": "b:2"}]}})
    assert result == pod({"name": "b", "image": "b:2"}, A) or result == pod(
        A, {"name": "b", "image": "b:2"}
    )


def test_a_changed_item_keeps_its_place_among_the_servers_items():
    patch = {"spec": {"containers": [{"name": "b", "image": "b:2"}]}}
    names = [c["name"] for c in patched(pod(A, B, C), patch)["spec"]["containers"]]
    assert names == ["a", "b", "c"]


def test_new_items_come_at_the_front_as_the_patch_has_precedence():
    patch = {"spec": {"containers": [{"name": "new"}]}}
    names = [c["name"] for c in patched(pod(A, B), patch)["spec"]["containers"]]
    assert names == ["new", "a", "b"]


def test_items_can_be_deleted_by_their_key():
    patch = {"spec": {"containers": [{"$patch": "delete", "name": "a"}]}}
    assert patched(pod(A, B), patch) == pod(B)


def test_a_list_can_be_replaced():
    patch = {"spec": {"containers": [{"$patch": "replace"}, {"name": "x", "image": None}]}}
    assert patched(pod(A, B), patch) == pod({"name": "x"})
    doubled = [{"$patch": "replace"}, {"name": "x"}, {"name": "x", "image": "y"}]
    replaced = patched(pod(A, B), {"spec": {"containers": doubled}})["spec"]["containers"]
    assert replaced == doubled[1:], "as it is, though the key is there twice"


def test_a_map_can_be_replaced_or_emptied():
    doc = {"spec": {"securityContext": {"runAsUser": 1, "fsGroup": 2}, "containers": []}}
    patch = {"spec": {"securityContext": {"$patch": "replace", "runAsUser": 5}}}
    assert patched(doc, patch)["spec"]["securityContext"] == {"runAsUser": 5}
    patch = {"spec": {"securityContext": {"$patch": "delete"}}}
    assert patched(doc, patch)["spec"]["securityContext"] == {}


def test_deleting_what_is_not_there_adds_nothing():
    patch = {"spec": {"securityContext": {"$patch": "delete"}, "containers": []}}
    assert "securityContext" not in patched(pod(A), patch)["spec"]
    patch = {"spec": {"volumes": [{"$patch": "delete", "name": "v"}]}}
    assert patched(pod(A), patch)["spec"]["volumes"] == []


def test_retain_keys_drops_the_other_member_of_a_union():
    doc = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert patched(doc, patch, DEPLOYMENTS) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_retain_keys_on_what_is_new_leaves_no_trace():
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert patched({"spec": {}}, patch, DEPLOYMENTS) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_retain_keys_must_name_what_the_patch_sets():
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}
    with pytest.raises(StatusError, match="invalid patch format of retainKeys"):
        patched({"spec": {"strategy": {"type": "x"}}}, patch, DEPLOYMENTS)


def test_volumes_change_their_source_by_retain_keys():
    doc = pod(A, volumes=[{"name": "v", "emptyDir": {}}])
    patch = {
        "spec": {
            "volumes": [
                {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}
            ]
        }
    }
    assert patched(doc, patch)["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/"}}]


def test_lists_of_values_merge_as_sets_and_lose_by_directive():
    doc = {"metadata": {"finalizers": ["a", "b"]}}
    assert patched(doc, {"metadata": {"finalizers": ["c", "a"]}}) == {
        "metadata": {"finalizers": ["c", "a", "b"]}
    }
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "zz"]}}
    assert patched(doc, patch) == {"metadata": {"finalizers": ["b"]}}


def test_atomic_lists_are_replaced():
    doc = pod({"name": "a", "args": ["1", "2"]}, tolerations=[{"key": "x"}])
    patch = {"spec": {"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "y"}]}}
    assert patched(doc, patch) == pod({"name": "a", "args": ["3"]}, tolerations=[{"key": "y"}])


def test_the_order_directive_orders_what_it_names():
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "c", "image": "c:2"}],
        }
    }
    result = patched(pod(A, B, C), patch)["spec"]["containers"]
    # b, which only the server has, stays before c, as the server had it.
    assert [c["name"] for c in result] == ["b", "c", "a"]
    assert result[1]["image"] == "c:2"


def test_the_order_directive_alone_reorders():
    patch = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}
    assert patched(pod(A, B), patch) == pod(B, A)


def test_the_order_directive_works_on_values():
    doc = {"metadata": {"finalizers": ["a", "b", "c"]}}
    patch = {
        "metadata": {
            "$setElementOrder/finalizers": ["c", "a"],
            "$deleteFromPrimitiveList/finalizers": ["b"],
        }
    }
    assert patched(doc, patch) == {"metadata": {"finalizers": ["c", "a"]}}


def test_a_patch_out_of_its_own_order_is_refused():
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b"}, {"name": "a"}],
        }
    }
    with pytest.raises(StatusError, match=r"doesn't match \$setElementOrder list"):
        patched(pod(A, B), patch)


def test_what_kubectl_set_image_sends():
    doc = {"spec": {"replicas": 3, "template": {"spec": {"containers": [A, B]}}}}
    patch = {
        "spec": {
            "template": {
                "spec": {
                    "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                    "containers": [{"image": "a:2", "name": "a"}],
                }
            }
        }
    }
    containers = patched(doc, patch, DEPLOYMENTS)["spec"]["template"]["spec"]["containers"]
    assert containers == [{"name": "a", "image": "a:2"}, B]


def test_ports_merge_by_number_alone():
    doc = {"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}}
    patch = {
        "spec": {
            "$setElementOrder/ports": [{"port": 80}, {"port": 443}],
            "ports": [{"port": 443, "protocol": "TCP"}],
        }
    }
    assert patched(doc, patch, SERVICES)["spec"]["ports"] == [
        {"port": 80, "protocol": "TCP", "nodePort": 30080},
        {"port": 443, "protocol": "TCP"},
    ]
    doc = pod({"name": "a", "ports": [{"containerPort": 53, "protocol": "TCP"}]})
    patch = {
        "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]}
    }
    assert patched(doc, patch)["spec"]["containers"][0]["ports"] == [
        {"containerPort": 53, "protocol": "UDP"}
    ]


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ([], "json: cannot unmarshal array into Go value of type map"),
        ({"spec": {"$patch": "frob"}}, r"unknown patch type: frob in map: map\[\$patch:frob\]"),
        ({"spec": {"$patch": "merge"}}, "unknown patch type: merge"),
        (
            {"spec": {"containers": [{"image": "x"}]}},
            r"map: map\[image:x\] does not contain declared merge key: name",
        ),
        ({"spec": {"containers": [{"$patch": "delete"}]}}, "does not contain declared merge key"),
        (
            {"spec": {"containers": [{"$patch": "merge", "name": "a"}]}},
            "merging lists cannot yet be specified in the patch",
        ),
        ({"spec": {"containers": ["a"]}}, "list element types are not identical"),
        ({"spec": {"containers": [{"name": {}}]}}, "expected a scalar"),
        ({"spec": {"$setElementOrder/containers": "a"}}, "invalid patch format of setElementOrder"),
        ({"spec": {"$setElementOrder/containers": [{}]}}, "does not contain declared merge key"),
        ({"spec": {"$setElementOrder": []}}, "invalid patch format of setElementOrder"),
        ({"spec": {"$setElementOrder/frob": []}}, "unable to find api field"),
        ({"spec": {"$retainKeys": "a"}}, "invalid patch format of retainKeys"),
        ({"spec": {"$deleteFromPrimitiveList": []}}, "invalid patch format of primitive list"),
        ({"spec": {"$deleteFromPrimitiveList/x": 1}}, "invalid patch format of primitive list"),
    ],
)
def test_a_patch_that_makes_no_sense_is_a_bad_request(patch: Any, message: str):
    with pytest.raises(StatusError, match=message) as caught:
        patched(pod(A, B), patch)
    assert caught.value.code == 400


def test_another_type_of_value_simply_replaces():
    assert patched(pod(A), {"spec": {"containers": "x"}})["spec"]["containers"] == "x"


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@given(NAMES, NAMES)
def test_a_patch_with_the_whole_order_leads_to_that_order(live: list[str], wanted: list[str]):
    """As kubectl apply makes it: deletions, changes, and the wanted order."""
    doc = pod(*({"name": n} for n in live))
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": n} for n in wanted],
            "containers": [{"name": n, "image": "new"} for n in wanted]
            + [{"$patch": "delete", "name": n} for n in live if n not in wanted],
        }
    }
    result = patched(doc, patch)["spec"]["containers"]
    assert result == [{"name": n, "image": "new"} for n in wanted]


ORDER_KEY = "$setElementOrder/containers"


@given(NAMES, NAMES)
def test_items_only_the_server_has_stay_in_their_order(live: list[str], ordered: list[str]):
    doc = pod(*({"name": n} for n in live))
    patch = {"spec": {ORDER_KEY: [{"name": n} for n in ordered]}}
    result = [c["name"] for c in patched(doc, patch)["spec"]["containers"]]
    assert sorted(result) == sorted(live)
    assert [n for n in result if n in ordered] == [n for n in ordered if n in live]
    assert [n for n in result if n not in ordered] == [n for n in live if n not in ordered]


VALUE = st.recursive(
    st.none() | st.integers() | st.sampled_from(["a", "b", "delete", "replace"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "image", "env", "ports", "$patch", "$retainKeys", ORDER_KEY, "volumes",
                 "containers", "$deleteFromPrimitiveList/finalizers"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "status"]), VALUE, max_size=2))
def test_any_patch_applies_or_is_refused(patch: Any):
    try:
        patched(pod(A, B), patch)
    except StatusError as error:
        assert error.code in (400, 422)
