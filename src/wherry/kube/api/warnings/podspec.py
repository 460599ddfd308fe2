"""Pods and pod templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wherry.kube.api.kinds.fields import quote
from wherry.kube.api.warnings.amounts import claim_amounts, fractions
from wherry.kube.api.warnings.labels import DEPRECATED_LABELS, in_expressions, in_terms

Object = Mapping[str, Any]

_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
    "security.alpha.kubernetes.io/sysctls": (
        'non-functional in v1.11+; use the "sysctls" field instead'
    ),
    "security.alpha.kubernetes.io/unsafe-sysctls": (
        'non-functional in v1.11+; use the "sysctls" field instead'
    ),
}
_VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_SHOWN = {"storageos": "storageOS"}
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_BYTES = ("memory", "ephemeral-storage")
_NULL_SELECTOR = "a null labelSelector results in matching no pod"


def look(spec: Object, metadata: Object, path: str = "") -> list[str]:
    """What to tell of a pod (``path`` empty) or of a template at ``path``, which ends in a dot."""
    told: list[str] = []
    for key in spec.get("nodeSelector") or ():
        if why := DEPRECATED_LABELS.get(key):
            told.append(f"{path}spec.nodeSelector[{key}]: {why}")
    if affinity := spec.get("affinity"):
        told += _node_affinity(affinity.get("nodeAffinity") or {}, f"{path}spec.affinity.")
    for i, each in enumerate(spec.get("topologySpreadConstraints") or ()):
        told += _spread(each, f"{path}spec.topologySpreadConstraints[{i}]")
    annotations = metadata.get("annotations") or {}
    for key, why in _ANNOTATIONS.items():
        if key in annotations:
            told.append(f"{path}metadata.annotations[{key}]: {why}")
    if volumes := spec.get("volumes"):
        told += _volumes(volumes, f"{path}spec.volumes")
    told += _twice(spec.get("hostAliases") or (), "ip", f"{path}spec.hostAliases")
    if secrets := spec.get("imagePullSecrets"):
        where = f"{path}spec.imagePullSecrets"
        told += _twice(secrets, "name", where)
        for i, each in enumerate(secrets):
            if not each.get("name"):
                told.append(f'{where}[{i}].name: invalid empty name ""')
    if overhead := spec.get("overhead"):
        told += fractions(overhead, f"{path}spec.overhead", _BYTES)
    containers = list(_containers(spec, path))
    told += _annotated_profiles(spec, annotations, containers, path)
    for container, where in containers:
        told += _container(container, where)
    told += _ports(containers)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        why = "must be >= 0; negative values are invalid and will be treated as 1"
        told.append(f"{path}spec.terminationGracePeriodSeconds: {why}")
    if affinity:
        for name in ("podAffinity", "podAntiAffinity"):
            told += _pod_affinity(affinity.get(name) or {}, f"{path}spec.affinity.{name}.")
    return told


def _containers(spec: Object, path: str) -> Iterator[tuple[Object, str]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(kind) or ()):
            yield container, f"{path}spec.{kind}[{i}]"


def _node_affinity(affinity: Object, path: str) -> list[str]:
    where = f"{path}nodeAffinity."
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    told = in_terms(
        required.get("nodeSelectorTerms") or (),
        f"{where}requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
    )
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    for i, each in enumerate(preferred):
        told += in_expressions(
            (each.get("preference") or {}).get("matchExpressions") or (),
            f"{where}preferredDuringSchedulingIgnoredDuringExecution[{i}].preference."
            "matchExpressions",
        )
    return told


def _pod_affinity(affinity: Object, path: str) -> list[str]:
    told = []
    for i, term in enumerate(affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
        if term.get("labelSelector") is None:
            where = f"{path}requiredDuringSchedulingIgnoredDuringExecution[{i}].labelSelector"
            told.append(f"{where}: {_NULL_SELECTOR}")
    for i, each in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        if (each.get("podAffinityTerm") or {}).get("labelSelector") is None:
            where = f"{path}preferredDuringSchedulingIgnoredDuringExecution[{i}]"
            told.append(f"{where}.podAffinityTerm.labelSelector: {_NULL_SELECTOR}")
    return told


def _spread(constraint: Object, path: str) -> list[str]:
    told = []
    key = constraint.get("topologyKey", "")
    if why := DEPRECATED_LABELS.get(key):
        told.append(f"{path}.topologyKey: {key} is {why}")
    if constraint.get("labelSelector") is None:
        told.append(f"{path}.labelSelector: {_NULL_SELECTOR}")
    return told


def _volumes(volumes: list[Object], path: str) -> list[str]:
    told = []
    tokens = set()
    for i, volume in enumerate(volumes):
        for name in volume:
            if why := _VOLUMES.get(name):
                told.append(f"{path}[{i}].{_SHOWN.get(name, name)}: {why}")
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if template:
            where = f"{path}[{i}].ephemeral.volumeClaimTemplate.spec"
            told += claim_amounts(template.get("spec") or {}, where)
        for source in (volume.get("projected") or {}).get("sources") or ():
            if token := source.get("serviceAccountToken"):
                tokens.add(token.get("path", ""))
    if not tokens:
        return told
    for i, volume in enumerate(volumes):
        for source in (volume.get("projected") or {}).get("sources") or ():
            told += _hidden_tokens(source, tokens, f"{path}[{i}].projected.sources")
    return told


def _hidden_tokens(source: Object, tokens: set[str], path: str) -> list[str]:
    """Files projected to where a token is."""
    why = "has duplicated path with ServiceAccountToken"
    told = []
    for kind, shown in (
        ("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")
    ):  # fmt: skip
        for j, item in enumerate((source.get(kind) or {}).get("items") or ()):
            if item.get("path") in tokens:
                told.append(f"{path}.{shown}[{j}]: {why} {quote(item['path'])}")
    bundle = source.get("clusterTrustBundle") or {}
    if bundle.get("path") in tokens:
        told.append(f"{path}.ClusterTrustBundle: {why} {quote(bundle['path'])}")
    return told


def _twice(items: Any, key: str, path: str) -> list[str]:
    """Items of the same key."""
    if len(items) < 2:
        return []
    seen: set[str] = set()
    told = []
    for i, item in enumerate(items):
        value = item.get(key, "")
        if value in seen:
            told.append(f"{path}[{i}].{key}: duplicate {key} {quote(value)}")
        seen.add(value)
    return told


def _annotated_profiles(
    spec: Object, annotations: Object, containers: list[tuple[Object, str]], path: str
) -> list[str]:
    """Security profiles in annotations that fields have replaced."""
    if not annotations:
        return []
    told = []
    where = f"{path}metadata.annotations"
    context = spec.get("securityContext") or {}
    unheard = 'non-functional in v1.27+; use the "seccompProfile" field instead'
    if _SECCOMP_POD in annotations and context.get("seccompProfile") is None:
        told.append(f"{where}[{_SECCOMP_POD}]: {unheard}")
    for container, _ in containers:
        own = container.get("securityContext") or {}
        key = _SECCOMP_CONTAINER + container.get("name", "")
        if key in annotations and own.get("seccompProfile") is None:
            told.append(f"{where}[{key}]: {unheard}")
        key = _APP_ARMOR + container.get("name", "")
        profiled = context.get("appArmorProfile") or own.get("appArmorProfile")
        if key in annotations and not profiled:
            why = 'deprecated since v1.30; use the "appArmorProfile" field instead'
            told.append(f"{where}[{key}]: {why}")
    return told


def _container(container: Object, path: str) -> list[str]:
    told: list[str] = []
    resources = container.get("resources") or {}
    for part in ("limits", "requests"):
        if amounts := resources.get(part):
            told += fractions(amounts, f"{path}.resources.{part}", _BYTES)
    env = container.get("env") or ()
    if len(env) > 1:
        seen: set[str] = set()
        for i, each in enumerate(env):
            name = each.get("name", "")
            if name in seen:
                reference = f"$({name})"
                value = each.get("value", "")
                if "valueFrom" in each or value == reference or reference not in value:
                    why = f"hides previous definition of {quote(name)}, which may be dropped when"
                    told.append(f"{path}.env[{i}]: {why} using apply")
            seen.add(name)
    return told


def _ports(containers: list[tuple[Object, str]]) -> list[str]:
    """Ports that stand in each other's way."""
    told = []
    seen: dict[tuple[int, str], list[tuple[Object, str]]] = {}
    for container, path in containers:
        for i, port in enumerate(container.get("ports") or ()):
            where = f"{path}.ports[{i}]"
            address, host = port.get("hostIP", ""), port.get("hostPort", 0)
            if address and not host:
                told.append(f"{where}: hostIP set without hostPort: {_go_port(port)}")
            key = (port.get("containerPort", 0), port.get("protocol", ""))
            others = seen.setdefault(key, [])
            for other, there in others:
                its_address, its_host = other.get("hostIP", ""), other.get("hostPort", 0)
                if (address, host) == (its_address, its_host):
                    told.append(f"{where}: duplicate port definition with {there}")
                elif not host or not its_host:
                    told.append(f"{where}: overlapping port definition with {there}")
                elif host == its_host and (not address) != (not its_address):
                    told.append(f"{where}: dangerously ambiguous port definition with {there}")
            others.append((port, where))
    return told


def _go_port(port: Object) -> str:
    """A port as Go prints its struct."""
    return (
        f"{{Name:{port.get('name', '')} HostPort:{port.get('hostPort', 0)} "
        f"ContainerPort:{port.get('containerPort', 0)} Protocol:{port.get('protocol', '')} "
        f"HostIP:{port.get('hostIP', '')}}}"
    )
