"""Pods, and what makes them of templates."""

from __future__ import annotations

from typing import Any

from wherry.kube.api.names import is_dns1123_label
from wherry.kube.api.warnings.amounts import claim_amounts
from wherry.kube.api.warnings.podspec import look

Object = dict[str, Any]


def pod(new: Object, old: Object | None) -> list[str]:
    return [] if old is not None else look(new.get("spec") or {}, new["metadata"])


def pod_template(new: Object, old: Object | None) -> list[str]:
    if old is not None and new.get("template") == old.get("template"):
        return []
    return _template(new, "")


def named(new: Object, old: Object | None) -> list[str]:
    """A kind whose name goes into those of its pods."""
    return _name(new, old) + templated(new, old)


def templated(new: Object, old: Object | None) -> list[str]:
    """A kind with a template in its spec."""
    return _template(new.get("spec") or {}, "spec.") if _concerns(new, old) else []


def stateful_set(new: Object, old: Object | None) -> list[str]:
    spec = new.get("spec") or {}
    told = templated(new, old)
    for i, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        told += claim_amounts(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{i}]")
    if (spec.get("revisionHistoryLimit") or 0) < 0:
        told.append(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value "
            ">= 0 is recommended"
        )
    return told


def job(new: Object, old: Object | None) -> list[str]:
    told = _name(new, old)
    return told + (_job(new.get("spec") or {}, "spec") if _concerns(new, old) else [])


def cron_job(new: Object, old: Object | None) -> list[str]:
    told = _name(new, old)
    if not _concerns(new, old):
        return told
    spec = ((new.get("spec") or {}).get("jobTemplate") or {}).get("spec") or {}
    return told + _job(spec, "spec.jobTemplate.spec")


def _job(spec: Object, path: str) -> list[str]:
    told = []
    many = (spec.get("completions") or 0) > 100_000 and (spec.get("parallelism") or 0) > 10_000
    if spec.get("completionMode") == "Indexed" and many:
        told.append(
            f"{path}: In Indexed Jobs with a number of completions higher than 10^5 and a "
            "parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes "
            "when a big number of indexes fail"
        )
    return told + _template(spec, f"{path}.")


def _concerns(new: Object, old: Object | None) -> bool:
    """What did not change was told of before."""
    if old is None:
        return True
    return bool(new["metadata"].get("generation") != old["metadata"].get("generation"))


def _name(new: Object, old: Object | None) -> list[str]:
    if old is not None:
        return []
    faults = is_dns1123_label(new["metadata"].get("name", ""))
    if not faults:
        return []
    return [
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising "
        f"behavior; a DNS label is recommended: [{' '.join(faults)}]"
    ]


def _template(spec: Object, path: str) -> list[str]:
    template = spec.get("template") or {}
    return look(template.get("spec") or {}, template.get("metadata") or {}, f"{path}template.")
