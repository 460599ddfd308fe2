"""Address families of Services: what is filled in, and what cannot be had."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api.kinds.service_families import complete, release

BOTH = ("IPv4", "IPv6")
POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")


def completed(spec: dict[str, Any], *configured: str, before: Any = None) -> tuple[Any, Any]:
    """Families and policy, or the faults."""
    faults = complete(spec, before, configured)
    if faults:
        return None, [str(fault) for fault in faults]
    return spec["ipFamilies"], spec["ipFamilyPolicy"]


@pytest.mark.parametrize(
    ("configured", "spec", "expected"),
    [
        (("IPv4",), {}, (["IPv4"], "SingleStack")),
        (("IPv6", "IPv4"), {}, (["IPv6"], "SingleStack")),
        (BOTH, {"ipFamilies": ["IPv6"]}, (["IPv6"], "SingleStack")),
        (BOTH, {"clusterIPs": ["fd00::1"]}, (["IPv6"], "SingleStack")),
        (("IPv4",), {"ipFamilyPolicy": "PreferDualStack"}, (["IPv4"], "PreferDualStack")),
        (BOTH, {"ipFamilyPolicy": "PreferDualStack"}, (["IPv4", "IPv6"], "PreferDualStack")),
        (
            BOTH,
            {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]},
            (["IPv6", "IPv4"], "RequireDualStack"),
        ),
        (
            BOTH,
            {"ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["fd00::1", "10.0.0.1"]},
            (["IPv6", "IPv4"], "PreferDualStack"),
        ),
        # Whoever writes the endpoints of a headless service decides on their families.
        (("IPv4",), {"clusterIP": "None"}, (["IPv4", "IPv6"], "RequireDualStack")),
        (
            ("IPv4",),
            {"clusterIP": "None", "ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"},
            (["IPv6"], "SingleStack"),
        ),
        (("IPv4",), {"clusterIP": "None", "selector": {"a": "b"}}, (["IPv4"], "SingleStack")),
    ],
)
def test_what_is_not_said_follows_from_the_cluster(
    configured: tuple[str, ...], spec: dict[str, Any], expected: Any
) -> None:
    assert completed(spec, *configured) == expected


@pytest.mark.parametrize(
    ("configured", "spec", "fault"),
    [
        (
            ("IPv4",),
            {"ipFamilyPolicy": "RequireDualStack"},
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not '
            "configured for dual-stack services",
        ),
        (
            ("IPv4",),
            {"ipFamilies": ["IPv6"]},
            'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster',
        ),
        (
            ("IPv4",),
            {"clusterIPs": ["fd00::1"]},
            'spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this '
            "cluster",
        ),
        (
            BOTH,
            {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"]},
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or "
            "'PreferDualStack' when multiple IP families are specified",
        ),
        (
            BOTH,
            {"clusterIPs": ["10.0.0.1", "fd00::1"]},
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or "
            "'PreferDualStack' when multiple cluster IPs are specified",
        ),
    ],
)
def test_what_the_cluster_has_not_is_refused(
    configured: tuple[str, ...], spec: dict[str, Any], fault: str
) -> None:
    assert completed(spec, *configured) == (None, [fault])


def test_a_service_that_prefers_both_is_not_changed_by_the_cluster() -> None:
    before = {
        "ipFamilyPolicy": "PreferDualStack",
        "clusterIPs": ["10.0.0.1"],
        "ipFamilies": ["IPv4"],
    }
    assert completed(dict(before), *BOTH, before=before) == (["IPv4"], "PreferDualStack")
    wanted = {**before, "ipFamilyPolicy": "RequireDualStack"}
    assert completed(wanted, *BOTH, before=before) == (["IPv4", "IPv6"], "RequireDualStack")


def test_who_turns_to_a_single_stack_gives_the_second_up() -> None:
    before = {
        "ipFamilyPolicy": "RequireDualStack",
        "clusterIPs": ["10.0.0.1", "fd00::1"],
        "ipFamilies": ["IPv4", "IPv6"],
    }
    after = {**before, "ipFamilyPolicy": "SingleStack"}
    release(after, before)
    assert (after["clusterIPs"], after["ipFamilies"]) == (["10.0.0.1"], ["IPv4"])
    kept = dict(before)
    release(kept, before)
    assert kept == before


some = st.sampled_from([["IPv4"], ["IPv6"], ["IPv4", "IPv6"], ["IPv6", "IPv4"]])
families = some | st.just([])
specs = st.fixed_dictionaries(
    {},
    optional={
        "ipFamilies": families,
        "ipFamilyPolicy": st.sampled_from(POLICIES),
        "selector": st.just({"app": "web"}),
        "clusterIP": st.just("None"),
    },
)


@given(specs, some, specs | st.none())
def test_what_is_completed_is_whole_and_stays(
    spec: dict[str, Any], configured: list[str], before: Any
) -> None:
    asked = dict(spec)
    if before is not None and complete(before, None, configured):
        before = None
    if complete(spec, before, configured):
        return
    policy, found = spec["ipFamilyPolicy"], spec["ipFamilies"]
    assert 1 <= len(found) <= 2 and len(set(found)) == len(found)
    assert len(found) == 1 or policy != "SingleStack"
    assert len(found) == 2 or policy != "RequireDualStack"
    assert found[: len(asked.get("ipFamilies", ()))] == asked.get("ipFamilies", [])
    if spec.get("selector") or spec.get("clusterIP") != "None":
        assert set(found) <= set(configured)
    again = {**spec, "ipFamilies": list(found)}
    assert complete(again, spec, configured) == [] and again == spec
