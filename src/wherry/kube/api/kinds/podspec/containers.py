"""The containers of a pod: app, init (sidecars among them) and ephemeral containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.podspec import env, mounts, probes, resources, security
from wherry.kube.api.pods import is_sidecar

Spec = Mapping[str, Any]

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_RESIZE_RESOURCES = ("cpu", "memory")
_RESIZE_POLICIES = ("NotRequired", "RestartContainer")
_RULES_LIMIT: Final = 20
_CODES_LIMIT: Final = 255

_NOT_EPHEMERAL: Final = (
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
)


@dataclass(slots=True)
class Pod:
    """What a container's rules need to know of the pod around it."""

    volumes: Mapping[str, Spec]
    claims: set[str] = field(default_factory=set)
    grace: int | None = None
    restart_policy: str = "Always"
    host_users: bool = True


def check_containers(containers: Sequence[Spec], pod: Pod, path: str, faults: Faults) -> None:
    """Faults of ``spec.containers``."""
    if not containers:
        faults.append(fields.required(path))
        return
    seen: set[str] = set()
    has_host_ports = False
    for index, container in enumerate(containers):
        where = f"{path}[{index}]"
        _check_common(container, pod, where, faults)
        name = container.get("name", "")
        if name in seen:
            faults.append(fields.duplicate(f"{where}.name", name))
        seen.add(name)
        _check_hooks(container, pod, where, faults)
        _check_restart(container, where, faults)
        has_host_ports = has_host_ports or "ports" in container
    if has_host_ports:
        pairs = [(c, f"{path}[{i}]") for i, c in enumerate(containers)]
        probes.check_host_ports(pairs, faults)


def check_init_containers(
    containers: Sequence[Spec], others: Sequence[Spec], pod: Pod, path: str, faults: Faults
) -> None:
    """Faults of ``spec.initContainers``; ``others`` are the app containers."""
    seen = {other.get("name", "") for other in others}
    for index, container in enumerate(containers):
        where = f"{path}[{index}]"
        _check_common(container, pod, where, faults)
        _check_restart(container, where, faults)
        name = container.get("name", "")
        if name in seen:
            faults.append(fields.duplicate(f"{where}.name", name))
        elif name:
            seen.add(name)
        probes.check_host_ports([(container, where)], faults)
        if is_sidecar(container):
            _check_hooks(container, pod, where, faults)
            continue
        for hook in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if hook in container:
                why = "may not be set for init containers without restartPolicy=Always"
                faults.append(fields.forbidden(f"{where}.{hook}", why))
        if policies := container.get("resizePolicy"):
            why = "must not be set for init containers"
            faults.append(fields.invalid(f"{where}.resizePolicy", policies, why))


def check_ephemeral(spec: Spec, pod: Pod, path: str, faults: Faults) -> None:
    """Faults of ``spec.ephemeralContainers``."""
    others = {
        c.get("name", "") for kind in ("containers", "initContainers") for c in spec.get(kind) or ()
    }
    seen = set(others)
    for index, container in enumerate(spec["ephemeralContainers"]):
        where = f"{path}[{index}]"
        _check_common(container, pod, where, faults)
        check_image_padding(container, where, faults)
        name = container.get("name", "")
        if name in seen:
            faults.append(fields.duplicate(f"{where}.name", name))
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in others:
            faults.append(fields.not_found(f"{where}.targetContainerName", target))
        for name in _NOT_EPHEMERAL:
            if container.get(name):
                why = "cannot be set for an Ephemeral Container"
                faults.append(fields.forbidden(f"{where}.{name}", why))
        for at, mount in enumerate(container.get("volumeMounts") or ()):
            for name in ("subPath", "subPathExpr"):
                if mount.get(name):
                    why = "cannot be set for an Ephemeral Container"
                    faults.append(fields.forbidden(f"{where}.volumeMounts[{at}].{name}", why))


def check_image_padding(container: Spec, path: str, faults: Faults) -> None:
    """In a pod (a template may), no blanks around the image's name."""
    image = container.get("image", "")
    if image != image.strip():
        why = "must not have leading or trailing whitespace"
        faults.append(fields.invalid(f"{path}.image", image, why))


def _check_common(container: Spec, pod: Pod, path: str, faults: Faults) -> None:
    if not (name := container.get("name")):
        faults.append(fields.required(f"{path}.name"))
    else:
        checks.dns_label(name, f"{path}.name", faults)
    if not container.get("image"):
        faults.append(fields.required(f"{path}.image"))
    policy = container.get("terminationMessagePolicy")
    checks.one_of(policy, _MESSAGE_POLICIES, f"{path}.terminationMessagePolicy", faults)
    if ports := container.get("ports"):
        probes.check_ports(ports, f"{path}.ports", faults)
    if variables := container.get("env"):
        env.check_env(variables, f"{path}.env", faults)
    if sources := container.get("envFrom"):
        env.check_env_from(sources, f"{path}.envFrom", faults)
    if container.get("volumeMounts") or container.get("volumeDevices"):
        mounts.check_mounts(container, pod.volumes, path, faults)
    policy = container.get("imagePullPolicy")
    checks.one_of(policy, _PULL_POLICIES, f"{path}.imagePullPolicy", faults)
    if requirements := container.get("resources"):
        resources.check_container(requirements, pod.claims, f"{path}.resources", faults)
    if policies := container.get("resizePolicy"):
        _check_resize(policies, pod.restart_policy, f"{path}.resizePolicy", faults)
    if context := container.get("securityContext"):
        where = f"{path}.securityContext"
        security.check_container(context, pod.host_users, where, faults)


def _check_hooks(container: Spec, pod: Pod, path: str, faults: Faults) -> None:
    if lifecycle := container.get("lifecycle"):
        probes.check_lifecycle(lifecycle, pod.grace, f"{path}.lifecycle", faults)
    probes.check_probes(container, pod.grace, path, faults)


def _check_resize(policies: Sequence[Spec], restart: str, path: str, faults: Faults) -> None:
    seen: set[str] = set()
    for index, item in enumerate(policies):
        name, policy = item.get("resourceName", ""), item.get("restartPolicy", "")
        if name in seen:
            faults.append(fields.duplicate(f"{path}[{index}]", name))
        seen.add(name)
        checks.one_of(name, _RESIZE_RESOURCES, path, faults)
        checks.one_of(policy, _RESIZE_POLICIES, path, faults)
        if restart == "Never" and policy != "NotRequired":
            why = "must be 'NotRequired' when `restartPolicy` is 'Never'"
            faults.append(fields.invalid(path, policy, why))


def _check_restart(container: Spec, path: str, faults: Faults) -> None:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or ()
    if policy is None:
        if rules:
            why = "must specify restartPolicy when restart rules are used"
            faults.append(fields.required(f"{path}.restartPolicy", why))
    elif policy not in _RESTART_POLICIES:
        where = f"{path}.restartPolicy"
        faults.append(fields.not_supported(where, policy, _RESTART_POLICIES))
    where = f"{path}.restartPolicyRules"
    if len(rules) > _RULES_LIMIT:
        faults.append(fields.too_many(where, len(rules), _RULES_LIMIT))
    for index, rule in enumerate(rules):
        at = f"{where}[{index}]"
        actions = ("Restart", "RestartAllContainers")
        checks.one_of(rule.get("action"), actions, f"{at}.action", faults)
        if (codes := rule.get("exitCodes")) is None:
            faults.append(fields.required(f"{at}.exitCodes", "must be specified"))
            continue
        operators = ("In", "NotIn")
        checks.one_of(codes.get("operator"), operators, f"{at}.exitCodes.operator", faults)
        values = codes.get("values") or ()
        if not values:
            faults.append(
                fields.required(f"{at}.exitCodes.values", "at least one value is required")
            )
        elif len(values) > _CODES_LIMIT:
            faults.append(fields.too_many(f"{at}.exitCodes.values", len(values), _CODES_LIMIT))
