"""Which writes are judged, by which standard, and who is told what.

Upstream: k8s.io/pod-security-admission/admission.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from wherry.kube.api.errors import FieldError, invalid
from wherry.kube.api.pods import all_containers
from wherry.kube.api.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    POD_TEMPLATES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
)
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.pod_security.policy import (
    PREFIX,
    Policy,
    Standard,
    of_labels,
    stricter,
)
from wherry.kube.apiserver.admission.pod_security.words import Violation
from wherry.kube.apiserver.objects import Object, Stored

WORKLOADS = (
    REPLICATION_CONTROLLERS,
    POD_TEMPLATES,
    REPLICA_SETS,
    DEPLOYMENTS,
    STATEFUL_SETS,
    DAEMON_SETS,
    JOBS,
    CRON_JOBS,
)
"""They hold templates of pods: who writes one is warned, not refused."""

_REMEMBERED = 10_000  # namespaces
_MOST = 3000  # pods of a namespace that are looked at when its level changes


class Configuration:
    """Defaults and exemptions (PodSecurityConfiguration, pod-security.admission.config.k8s.io)."""

    def __init__(self, context: Context) -> None:
        given: Any = context.configuration.get("PodSecurity") or {}
        labels = {f"{PREFIX}{name}": str(v) for name, v in (given.get("defaults") or {}).items()}
        self.defaults, faults = of_labels(labels, Policy())
        if faults:
            raise ValueError(f"PodSecurity: {faults[0].detail}")
        exempt = given.get("exemptions") or {}
        self.namespaces = frozenset(exempt.get("namespaces") or ())
        self.users = frozenset(exempt.get("usernames") or ())
        self.runtime_classes = frozenset(exempt.get("runtimeClasses") or ())
        self._policies: dict[str, tuple[int, Policy, list[FieldError]]] = {}

    def policy(self, namespace: Stored | None) -> tuple[Policy, list[FieldError]]:
        """What holds in a namespace, and what is wrong with its labels; read once a revision."""
        if namespace is None:
            return self.defaults, []
        found = self._policies.get(namespace.key)
        if found is None or found[0] != namespace.revision:
            labels = namespace.object["metadata"].get("labels") or {}
            if len(self._policies) > _REMEMBERED:
                self._policies.clear()
            found = (namespace.revision, *of_labels(labels, self.defaults))
            self._policies[namespace.key] = found
        return found[1], found[2]

    def exemption(self, attributes: Attributes) -> str:
        """Why a write of a pod or workload is not judged, or ""."""
        if attributes.namespace in self.namespaces:
            return "namespace"
        return "user" if attributes.user.name in self.users else ""


def validate(attributes: Attributes, context: Context) -> None:
    """Raises StatusError 403 for a pod, 422 for labels of a namespace."""
    if attributes.resource is NAMESPACES:
        _namespace(attributes, context)
    elif attributes.resource is PODS:
        old = attributes.old
        if old is None or significant(attributes.new, old):
            _judge(attributes, context, attributes.new, enforce=True)
    else:
        template = _template(attributes.new)
        if template is not None:
            _judge(attributes, context, template, enforce=False)


def _template(o: Object) -> Object | None:
    if "template" in o:
        found = o["template"]
    else:
        spec = o.get("spec") or {}
        job = (spec.get("jobTemplate") or {}).get("spec") or {}
        found = spec.get("template") or job.get("template")
    return found if found and found.get("spec") else None


def _judge(attributes: Attributes, context: Context, pod: Object, *, enforce: bool) -> None:
    """A pod or a pod's template."""
    config = context.part(Configuration)
    policy, faults = config.policy(context.cache.of(NAMESPACES).get("", attributes.namespace))
    if policy.privileged and not faults:
        return
    notes = attributes.annotations
    exempt = config.exemption(attributes)
    if not exempt and pod["spec"].get("runtimeClassName", "") in config.runtime_classes:
        exempt = "runtimeClass"
    if exempt:
        notes[f"{PREFIX}exempt"] = exempt
        return
    if faults:
        notes[f"{PREFIX}error"] = f"Failed to parse policy: {_joined(faults)}"
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    found: dict[Standard, list[Violation]] = {}

    def violations(standard: Standard) -> list[Violation]:
        if standard not in found:
            found[standard] = standard.violations(metadata, spec)
        return found[standard]

    if enforce:
        notes[f"{PREFIX}enforce-policy"] = str(policy.enforce)
    if wrong := violations(policy.audit):
        notes[f"{PREFIX}audit-violations"] = f"would {_told(policy.audit, wrong)}"
    if enforce and (wrong := violations(policy.enforce)):
        raise attributes.forbidden(_told(policy.enforce, wrong, "violates"))
    if wrong := violations(policy.warn):
        attributes.warnings.append(f"would {_told(policy.warn, wrong)}")


def _told(standard: Standard, wrong: Iterable[Violation], verb: str = "violate") -> str:
    return f'{verb} PodSecurity "{standard}": {", ".join(str(each) for each in wrong)}'


def _joined(faults: Sequence[FieldError]) -> str:
    texts = [str(fault) for fault in faults]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def significant(new: Object, old: Object) -> bool:
    """Whether a pod's update changes what the checks look at."""

    def looked_at(pod: Object) -> Any:
        annotations = pod["metadata"].get("annotations") or {}
        seccomp = {k: v for k, v in annotations.items() if "seccomp.security.alpha" in k}
        return seccomp, [(c["name"], c.get("image")) for c in all_containers(pod["spec"])]

    return bool(looked_at(new) != looked_at(old))


# --- namespaces ---------------------------------------------------------------------------------


def _namespace(attributes: Attributes, context: Context) -> None:
    config = context.part(Configuration)
    labels = attributes.new["metadata"].get("labels") or {}
    policy, faults = of_labels(labels, config.defaults)
    name = attributes.new["metadata"].get("name", "")
    old = attributes.old
    if old is None:
        if faults:
            raise invalid(NAMESPACES.kind, name, faults)
    else:
        before, faulty = of_labels(old["metadata"].get("labels") or {}, config.defaults)
        if faults and faults != faulty:
            raise invalid(NAMESPACES.kind, name, faults)
    exempt = name in config.namespaces
    if exempt and not policy.privileged and any(label.startswith(PREFIX) for label in labels):
        attributes.warnings.append(
            f'namespace "{name}" is exempt from Pod Security, and the policy ({policy}) '
            "will be ignored"
        )
    if old is None or exempt:
        return
    now, was = policy.enforce, before.enforce
    if now in (was, Standard("privileged", now.version)):
        return
    if now.version != was.version or stricter(now.level, was.level):
        pods = [stored.object for stored in context.cache.of(PODS).list(name)]
        attributes.warnings += existing(name, now, pods, config.runtime_classes)


def existing(
    namespace: str, standard: Standard, pods: Sequence[Object], exempt: Iterable[str] = ()
) -> list[str]:
    """Warnings about pods that are against the standard their namespace is to enforce."""
    classes = frozenset(exempt)
    against: dict[str, list[str]] = {}
    for pod in pods[:_MOST]:
        if pod["spec"].get("runtimeClassName", "") in classes:
            continue
        if wrong := standard.violations(pod["metadata"], pod["spec"]):
            reasons = ", ".join(each.reason for each in wrong)
            against.setdefault(reasons, []).append(pod["metadata"]["name"])
    warnings = []
    if len(pods) > _MOST:
        warnings.append(
            f"new PodSecurity enforce level only checked against the first {_MOST} of "
            f"{len(pods)} existing pods"
        )
    if against:
        warnings.append(
            f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level '
            f'"{standard}"'
        )
    return warnings + sorted(_counted(names, why) for why, names in against.items())


def _counted(names: Sequence[str], why: str) -> str:
    first, others = min(names), len(names) - 1
    if not others:
        return f"{first}: {why}"
    return f"{first} (and {others} other {'pod' if others == 1 else 'pods'}): {why}"
