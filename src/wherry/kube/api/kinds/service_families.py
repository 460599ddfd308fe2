"""The address families of a Service: what follows from what its author says and the cluster has.

Upstream: initIPFamilyFields in pkg/registry/core/service/storage/alloc.go;
https://kubernetes.io/docs/concepts/services-networking/dual-stack/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.families import IPV4, IPV6, family_of
from wherry.kube.api.kinds import fields

Spec = dict[str, Any]

SINGLE: Final = "SingleStack"
PREFER: Final = "PreferDualStack"
REQUIRE: Final = "RequireDualStack"
_POLICY: Final = "spec.ipFamilyPolicy"


def release(spec: Spec, before: Mapping[str, Any]) -> None:
    """Who turns a service to SingleStack, and says no more, gives the second of each up."""
    if spec.get("ipFamilyPolicy", before.get("ipFamilyPolicy")) != SINGLE:
        return
    for name in ("clusterIPs", "ipFamilies"):
        if len(spec.get(name) or ()) > 1 and spec[name] == before.get(name):
            spec[name] = spec[name][:1]


def complete(
    spec: Spec, before: Mapping[str, Any] | None, configured: Sequence[str]
) -> list[FieldError]:
    """Fill in families and policy of a service that has a cluster IP or is headless.

    ``spec`` is changed; it has been found valid. ``before`` is that of the stored service, None for
    a new one. ``configured`` are the families of the cluster's services, the default one first.

    Returns:
        Why it cannot be had; then what was filled in means nothing.
    """
    before = before or {}
    if _is_left_alone(spec, before):
        return []
    headless = spec.get("clusterIP") == "None" or spec.get("clusterIPs") == ["None"]
    anything_goes = headless and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        usual = REQUIRE if anything_goes else SINGLE
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or usual
    policy = spec["ipFamilyPolicy"]
    addresses = [] if headless else list(spec.get("clusterIPs") or ())
    families = list(spec.get("ipFamilies") or ())
    faults = _contradictions(policy, addresses, families)
    for index, address in enumerate(addresses[len(families) :], len(families)):
        family = family_of(address)
        if family not in configured:
            why = f"{family} is not configured on this cluster"
            faults.append(fields.invalid(f"spec.clusterIPs[{index}]", addresses, why))
        families.append(family)
    if faults:
        return faults
    if not anything_goes:
        faults = _unavailable(policy, families, configured)
        if faults:
            return faults
    families = families or list(configured[:1])
    both = len(configured) > 1 or anything_goes
    if policy != SINGLE and len(families) == 1 and both:
        families.append(IPV4 if families[0] == IPV6 else IPV6)
    spec["ipFamilies"] = families
    return []


def _is_left_alone(spec: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """A service that prefers both keeps what it got, also when the cluster has got a second one."""
    return (
        spec.get("ipFamilyPolicy") == before.get("ipFamilyPolicy") == PREFER
        and bool(before.get("ipFamilies"))
        and all(
            (spec.get(name) or []) == (before.get(name) or [])
            for name in ("clusterIPs", "ipFamilies")
        )
    )


def _contradictions(
    policy: str, addresses: Sequence[str], families: Sequence[str]
) -> list[FieldError]:
    if policy != SINGLE:
        return []
    return [
        fields.invalid(
            _POLICY,
            policy,
            f"must be '{REQUIRE}' or '{PREFER}' when multiple {what} are specified",
        )
        for given, what in ((addresses, "cluster IPs"), (families, "IP families"))
        if len(given) == 2
    ]


def _unavailable(
    policy: str, families: Sequence[str], configured: Sequence[str]
) -> list[FieldError]:
    faults = []
    if policy == REQUIRE and len(configured) < 2:
        why = "this cluster is not configured for dual-stack services"
        faults.append(fields.invalid(_POLICY, policy, why))
    for index, family in enumerate(families):
        if family not in configured:
            why = "not configured on this cluster"
            faults.append(fields.invalid(f"spec.ipFamilies[{index}]", family, why))
    return faults
