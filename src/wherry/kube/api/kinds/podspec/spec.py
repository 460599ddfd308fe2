"""A pod's spec as a whole, in a Pod and in a pod template.

Upstream: ValidatePodSpec and ValidatePodTemplateSpec in pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.kinds import checks, fields, metadata
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.podspec import containers, resources, scheduling, security, volumes

Spec = Mapping[str, Any]

MIRROR: Final = "kubernetes.io/config.mirror"
"""The annotation of a pod that stands for one the kubelet runs from a file."""

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"

_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_PREEMPTION = ("PreemptLowerPriority", "Never")
_NAMESERVERS: Final = 3
_SEARCH_PATHS: Final = 32
_SEARCH_LENGTH: Final = 2048


def check_spec(spec: Spec, path: str, faults: Faults, *, pod: str | None = None) -> None:
    """Faults of a pod's spec. ``pod`` is the Pod's name; None in a template, which says less."""
    if (grace := spec.get("terminationGracePeriodSeconds")) is None:
        faults.append(fields.required(f"{path}.terminationGracePeriodSeconds"))
    _check_containers(spec, grace, path, faults, pod=pod)
    checks.one_of(spec.get("restartPolicy"), _RESTART_POLICIES, f"{path}.restartPolicy", faults)
    checks.one_of(spec.get("dnsPolicy"), _DNS_POLICIES, f"{path}.dnsPolicy", faults)
    if selector := spec.get("nodeSelector"):
        checks.labels(selector, f"{path}.nodeSelector", faults)
    if spec.get("securityContext"):
        security.check_pod(spec, path, faults)
    if affinity := spec.get("affinity"):
        scheduling.check_affinity(affinity, f"{path}.affinity", faults)
    if spec.get("dnsPolicy") == "None" or "dnsConfig" in spec:
        _check_dns(spec, f"{path}.dnsConfig", faults)
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        where = f"{path}.readinessGates[{index}].conditionType"
        checks.qualified_name(gate.get("conditionType", ""), where, faults)
    if gates := spec.get("schedulingGates"):
        scheduling.check_gates(gates, f"{path}.schedulingGates", faults)
    if constraints := spec.get("topologySpreadConstraints"):
        scheduling.check_spread(constraints, f"{path}.topologySpreadConstraints", faults)
    security.check_host_users(spec, path, faults)
    for name, rule in (
        ("serviceAccountName", checks.dns_subdomain),
        ("nodeName", checks.node_name),
        ("hostname", checks.dns_label),
        ("subdomain", checks.dns_label),
        ("priorityClassName", checks.dns_subdomain),
        ("runtimeClassName", checks.dns_subdomain),
    ):
        if value := spec.get(name):
            rule(value, f"{path}.{name}", faults)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= fields.MAX_INT32:
        where, why = f"{path}.activeDeadlineSeconds", fields.between(1, fields.MAX_INT32)
        faults.append(fields.invalid(where, deadline, why))
    if tolerations := spec.get("tolerations"):
        scheduling.check_tolerations(tolerations, f"{path}.tolerations", faults)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        where = f"{path}.hostAliases[{index}]"
        checks.ip(alias.get("ip", ""), f"{where}.ip", faults)
        for at, hostname in enumerate(alias.get("hostnames") or ()):
            checks.dns_subdomain(hostname, f"{where}.hostnames[{at}]", faults)
    if (policy := spec.get("preemptionPolicy")) is not None:
        checks.one_of(policy, _PREEMPTION, f"{path}.preemptionPolicy", faults)
    if overhead := spec.get("overhead"):
        resources.check_overhead(overhead, f"{path}.overhead", faults)
    if spec.get("os") is not None:
        security.check_os(spec, path, faults)


def _check_containers(
    spec: Spec, grace: int | None, path: str, faults: Faults, *, pod: str | None
) -> None:
    listed = spec.get("volumes") or ()
    good = volumes.check_volumes(listed, pod or "", f"{path}.volumes", faults) if listed else {}
    claims = _check_claims(spec.get("resourceClaims") or (), f"{path}.resourceClaims", faults)
    around = containers.Pod(
        volumes=good,
        claims=claims,
        grace=grace,
        restart_policy=spec.get("restartPolicy", ""),
        host_users=spec.get("hostUsers") is not False,
    )
    regular = spec.get("containers") or ()
    containers.check_containers(regular, around, f"{path}.containers", faults)
    if initial := spec.get("initContainers"):
        where = f"{path}.initContainers"
        containers.check_init_containers(initial, regular, around, where, faults)
    if spec.get("ephemeralContainers"):
        containers.check_ephemeral(spec, around, f"{path}.ephemeralContainers", faults)
    if spec.get("resources"):
        resources.check_pod_level(spec, f"{path}.resources", faults)
    if spec.get("hostNetwork"):
        _check_host_network(regular, f"{path}.containers", faults, is_pod=pod is not None)


def _check_host_network(listed: Any, path: str, faults: Faults, *, is_pod: bool) -> None:
    for index, container in enumerate(listed):
        for at, port in enumerate(container.get("ports") or ()):
            on_host, inside = port.get("hostPort", 0), port.get("containerPort", 0)
            if (is_pod or on_host) and on_host != inside:
                where = f"{path}[{index}].ports[{at}].hostPort"
                why = "must match `containerPort` when `hostNetwork` is true"
                faults.append(fields.invalid(where, on_host, why))


def _check_claims(listed: Any, path: str, faults: Faults) -> set[str]:
    seen: set[str] = set()
    for index, claim in enumerate(listed):
        where, name = f"{path}[{index}]", claim.get("name", "")
        if not name:
            faults.append(fields.required(f"{where}.name"))
        elif name in seen:
            faults.append(fields.duplicate(f"{where}.name", name))
        else:
            checks.dns_label(name, f"{where}.name", faults)
            seen.add(name)
        kinds = ("resourceClaimName", "resourceClaimTemplateName")
        given = [kind for kind in kinds if claim.get(kind) is not None]
        if len(given) != 1:
            shown = fields.Struct(
                Name=name,
                ResourceClaimName=claim.get("resourceClaimName"),
                ResourceClaimTemplateName=claim.get("resourceClaimTemplateName"),
            )
            why = (
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
                if given
                else "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            )
            faults.append(fields.invalid(where, shown, why))
        for kind in given:
            checks.dns_subdomain(claim[kind], f"{where}.{kind}", faults)
    return seen


def _check_dns(spec: Spec, path: str, faults: Faults) -> None:
    config = spec.get("dnsConfig")
    servers = (config or {}).get("nameservers") or []
    if spec.get("dnsPolicy") == "None":
        if config is None:
            why = "must provide `dnsConfig` when `dnsPolicy` is None"
            faults.append(fields.required(path, why))
            return
        if not servers:
            why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            faults.append(fields.required(f"{path}.nameservers", why))
            return
    config = config or {}
    if len(servers) > _NAMESERVERS:
        why = f"must not have more than {_NAMESERVERS} nameservers"
        faults.append(fields.invalid(f"{path}.nameservers", servers, why))
    for index, server in enumerate(servers):
        checks.ip(server, f"{path}.nameservers[{index}]", faults)
    searches = config.get("searches") or []
    if len(searches) > _SEARCH_PATHS:
        why = f"must not have more than {_SEARCH_PATHS} search paths"
        faults.append(fields.invalid(f"{path}.searches", searches, why))
    if len(" ".join(searches)) > _SEARCH_LENGTH:
        limit = f"must not have more than {_SEARCH_LENGTH} characters"
        why = f"{limit} (including spaces) in the search list"
        faults.append(fields.invalid(f"{path}.searches", searches, why))
    for index, search in enumerate(searches):
        if search == ".":
            continue
        name = search.removesuffix(".")
        messages = names.is_dns1123_subdomain_with_underscore(name)
        faults += [fields.invalid(f"{path}.searches[{index}]", name, m) for m in messages]
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            faults.append(fields.required(f"{path}.options[{index}]", "must not be empty"))


def check_annotations(
    annotations: Mapping[str, str], spec: Spec, path: str, faults: Faults
) -> None:
    """Faults of the annotations that mean something in a pod."""
    if MIRROR in annotations and not spec.get("nodeName"):
        why = "must set spec.nodeName if mirror pod annotation is set"
        faults.append(fields.invalid(f"{path}[{MIRROR}]", annotations[MIRROR], why))
    cost = annotations.get(DELETION_COST)
    if cost is not None and not _is_int32(cost):
        where = f"{path}[{DELETION_COST}]"
        faults.append(fields.invalid(where, cost, "must be a 32bit integer"))


def _is_int32(text: str) -> bool:
    digits = text.removeprefix("-")
    if not digits.isdecimal() or not digits.isascii() or (digits != "0" and digits[0] == "0"):
        return False
    return text != "-0" and -(2**31) <= int(text) < 2**31


def check_template(template: Spec, path: str, faults: Faults) -> None:
    """Faults of a pod template."""
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    checks.labels(meta.get("labels") or {}, f"{path}.labels", faults)
    if annotations := meta.get("annotations"):
        faults += metadata.validate_annotations(annotations, f"{path}.annotations")
        check_annotations(annotations, spec, f"{path}.annotations", faults)
    check_spec(spec, f"{path}.spec", faults)
    if spec.get("ephemeralContainers"):
        why = "ephemeral containers not allowed in pod template"
        faults.append(fields.forbidden(f"{path}.spec.ephemeralContainers", why))
