"""Where a pod may run: node selectors, affinity, tolerations, spreading, gates; and node taints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wherry.kube.api import names
from wherry.kube.api.kinds import checks, fields, label_selectors
from wherry.kube.api.kinds.checks import Faults

Spec = Mapping[str, Any]

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_ACTIONS = ("DoNotSchedule", "ScheduleAnyway")
_INCLUSION = ("Honor", "Ignore")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_NEEDS_SELECTOR = "must not be specified when labelSelector is not set"


def check_affinity(affinity: Spec, path: str, faults: Faults) -> None:
    """Faults of ``spec.affinity``."""
    if node := affinity.get("nodeAffinity"):
        _check_node_affinity(node, f"{path}.nodeAffinity", faults)
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        where = f"{path}.{kind}"
        for index, term in enumerate(terms.get(_REQUIRED) or ()):
            _check_pod_term(term, f"{where}.{_REQUIRED}[{index}]", faults)
        for index, weighted in enumerate(terms.get(_PREFERRED) or ()):
            at = f"{where}.{_PREFERRED}[{index}]"
            _check_weight(weighted, at, faults)
            _check_pod_term(weighted.get("podAffinityTerm") or {}, f"{at}.podAffinityTerm", faults)


def _check_node_affinity(affinity: Spec, path: str, faults: Faults) -> None:
    if (required := affinity.get(_REQUIRED)) is not None:
        check_node_selector(required, f"{path}.{_REQUIRED}", faults)
    for index, preferred in enumerate(affinity.get(_PREFERRED) or ()):
        where = f"{path}.{_PREFERRED}[{index}]"
        _check_weight(preferred, where, faults)
        term = preferred.get("preference") or {}
        _check_node_term(term, f"{where}.preference", faults, strict=False)


def check_node_selector(selector: Spec, path: str, faults: Faults) -> None:
    """Faults of a choice of nodes that must be kept."""
    where = f"{path}.nodeSelectorTerms"
    terms = selector.get("nodeSelectorTerms")
    if not terms:
        faults.append(fields.required(where, "must have at least one node selector term"))
    for index, term in enumerate(terms or ()):
        _check_node_term(term, f"{where}[{index}]", faults, strict=True)


def _check_weight(item: Spec, path: str, faults: Faults) -> None:
    if not 1 <= (weight := item.get("weight", 0)) <= 100:
        faults.append(fields.invalid(f"{path}.weight", weight, "must be in the range 1-100"))


def _check_node_term(term: Spec, path: str, faults: Faults, *, strict: bool) -> None:
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{index}]"
        _check_node_expression(requirement, where, faults, strict=strict)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        _check_node_field(requirement, f"{path}.matchFields[{index}]", faults)


def _check_node_expression(requirement: Spec, path: str, faults: Faults, *, strict: bool) -> None:
    operator, values = requirement.get("operator", ""), requirement.get("values") or ()
    where = f"{path}.values"
    if operator in ("In", "NotIn"):
        if not values:
            why = "must be specified when `operator` is 'In' or 'NotIn'"
            faults.append(fields.required(where, why))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            faults.append(fields.forbidden(where, why))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            why = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            faults.append(fields.required(where, why))
    else:
        why = "not a valid selector operator"
        faults.append(fields.invalid(f"{path}.operator", operator, why))
    checks.qualified_name(requirement.get("key", ""), f"{path}.key", faults)
    if strict:
        for index, value in enumerate(values):
            checks.check(names.is_label_value, value, f"{where}[{index}]", faults)


def _check_node_field(requirement: Spec, path: str, faults: Faults) -> None:
    operator, values = requirement.get("operator", ""), requirement.get("values") or ()
    if operator not in ("In", "NotIn"):
        why = "not a valid selector operator"
        faults.append(fields.invalid(f"{path}.operator", operator, why))
    elif len(values) != 1:
        why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        faults.append(fields.required(f"{path}.values", why))
    if (key := requirement.get("key", "")) != "metadata.name":
        faults.append(fields.invalid(f"{path}.key", key, "not a valid field selector key"))
        return
    for index, value in enumerate(values):
        checks.node_name(value, f"{path}.values[{index}]", faults)


def _check_pod_term(term: Spec, path: str, faults: Faults) -> None:
    selector = term.get("labelSelector")
    label_selectors.check_selector(selector, f"{path}.labelSelector", faults)
    where = f"{path}.namespaceSelector"
    label_selectors.check_selector(term.get("namespaceSelector"), where, faults)
    for namespace in term.get("namespaces") or ():
        checks.dns_label(namespace, f"{path}.namespace", faults)
    matched, mismatched = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    for name, keys in (("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)):
        if keys and selector is None:
            faults.append(fields.forbidden(f"{path}.{name}", _NEEDS_SELECTOR))
            continue
        for index, key in enumerate(keys):
            checks.qualified_name(key, f"{path}.{name}[{index}]", faults)
    for index, key in enumerate(matched):
        if key in mismatched:
            why = "exists in both matchLabelKeys and mismatchLabelKeys"
            faults.append(fields.invalid(f"{path}.matchLabelKeys[{index}]", key, why))
    topology = term.get("topologyKey", "")
    if not topology:
        faults.append(fields.required(f"{path}.topologyKey", "can not be empty"))
    checks.qualified_name(topology, f"{path}.topologyKey", faults)


def check_tolerations(tolerations: Sequence[Spec], path: str, faults: Faults) -> None:
    """Faults of ``spec.tolerations``."""
    for index, toleration in enumerate(tolerations):
        where = f"{path}[{index}]"
        key, operator = toleration.get("key", ""), toleration.get("operator", "")
        effect, value = toleration.get("effect", ""), toleration.get("value", "")
        if key:
            checks.qualified_name(key, f"{where}.key", faults)
        elif operator != "Exists":
            why = (
                "operator must be Exists when `key` is empty, which means "
                '"match all values and all keys"'
            )
            faults.append(fields.invalid(f"{where}.operator", operator, why))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            faults.append(fields.invalid(f"{where}.effect", effect, why))
        if operator in ("", "Equal"):
            checks.label_value(value, f"{where}.operator", faults)
        elif operator == "Exists":
            if value:
                why = "value must be empty when `operator` is 'Exists'"
                faults.append(fields.invalid(f"{where}.operator", value, why))
        else:
            supported = ("Equal", "Exists")
            faults.append(fields.not_supported(f"{where}.operator", operator, supported))
        if effect:
            checks.one_of(effect, _EFFECTS, f"{where}.effect", faults)


def check_taints(taints: Sequence[Spec], path: str, faults: Faults) -> None:
    """Faults of a node's taints."""
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        where = f"{path}[{index}]"
        key, effect = taint.get("key", ""), taint.get("effect", "")
        checks.qualified_name(key, f"{where}.key", faults)
        checks.label_value(taint.get("value", ""), f"{where}.value", faults)
        checks.one_of(effect, _EFFECTS, f"{where}.effect", faults)
        if (key, effect) in seen:
            shown = fields.Struct(
                Key=key,
                Value=taint.get("value", ""),
                Effect=effect,
                TimeAdded=taint.get("timeAdded"),
            )
            why = "taints must be unique by key and effect pair"
            faults.append(fields.duplicate(where, shown, why))
        seen.add((key, effect))


def check_spread(constraints: Sequence[Spec], path: str, faults: Faults) -> None:
    """Faults of ``spec.topologySpreadConstraints``."""
    for index, constraint in enumerate(constraints):
        where = f"{path}[{index}]"
        key, action = constraint.get("topologyKey", ""), constraint.get("whenUnsatisfiable", "")
        if (skew := constraint.get("maxSkew", 0)) <= 0:
            faults.append(fields.invalid(f"{where}.maxSkew", skew, "must be greater than zero"))
        if not key:
            faults.append(fields.required(f"{where}.topologyKey", "can not be empty"))
        if action not in _ACTIONS:
            faults.append(fields.not_supported(f"{where}.whenUnsatisfiable", action, _ACTIONS))
        for other in constraints[index + 1 :]:
            if (other.get("topologyKey", ""), other.get("whenUnsatisfiable", "")) == (key, action):
                at = f"{where}.{{topologyKey, whenUnsatisfiable}}"
                faults.append(fields.duplicate(at, f"{{{key}, {action}}}"))
                break
        if (domains := constraint.get("minDomains")) is not None:
            at = f"{where}.minDomains"
            if domains <= 0:
                faults.append(fields.invalid(at, domains, "must be greater than zero"))
            if action != "DoNotSchedule":
                why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                faults.append(fields.invalid(at, domains, why))
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            policy = constraint.get(name)
            if policy is not None and policy not in _INCLUSION:
                faults.append(fields.not_supported(f"{where}.{name}", policy, _INCLUSION))
        _check_match_keys(constraint, where, faults)
        at = f"{where}.labelSelector"
        label_selectors.check_selector(constraint.get("labelSelector"), at, faults)


def _check_match_keys(constraint: Spec, path: str, faults: Faults) -> None:
    keys, selector = constraint.get("matchLabelKeys"), constraint.get("labelSelector")
    if not keys:
        return
    where = f"{path}.matchLabelKeys"
    selected = set((selector or {}).get("matchLabels") or ())
    selected |= {e.get("key", "") for e in (selector or {}).get("matchExpressions") or ()}
    selected -= set(_merged_keys(constraint))
    if selector is None:
        faults.append(fields.forbidden(where, _NEEDS_SELECTOR))
    for index, key in enumerate(keys):
        checks.qualified_name(key, f"{where}[{index}]", faults)
        if key in selected:
            why = "exists in both matchLabelKeys and labelSelector"
            faults.append(fields.invalid(f"{where}[{index}]", key, why))


def _merged_keys(constraint: Spec) -> Sequence[str]:
    """The keys that the API server itself merged into the selector when the pod was created."""
    expressions = (constraint.get("labelSelector") or {}).get("matchExpressions") or ()
    keys = constraint.get("matchLabelKeys") or ()
    return [
        e["key"]
        for e in expressions
        if e.get("key") in keys and e.get("operator") == "In" and len(e.get("values") or ()) == 1
    ]


def merge_label_keys(spec: Spec, labels: Mapping[str, str]) -> None:
    """Put the pod's own values of ``matchLabelKeys`` and ``mismatchLabelKeys`` into the selectors
    of its affinity terms and spread constraints, in place; done once, when the pod is created."""
    for constraint in spec.get("topologySpreadConstraints") or ():
        _merge(constraint, "matchLabelKeys", "In", labels)
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        weighted = [w.get("podAffinityTerm") or {} for w in terms.get(_PREFERRED) or ()]
        for term in (*weighted, *(terms.get(_REQUIRED) or ())):
            _merge(term, "matchLabelKeys", "In", labels)
            _merge(term, "mismatchLabelKeys", "NotIn", labels)


def _merge(term: Spec, name: str, operator: str, labels: Mapping[str, str]) -> None:
    selector = term.get("labelSelector")
    if selector is None:
        return
    for key in term.get(name) or ():
        if key in labels:
            expression = {"key": key, "operator": operator, "values": [labels[key]]}
            selector.setdefault("matchExpressions", []).append(expression)


def check_gates(gates: Sequence[Spec], path: str, faults: Faults) -> None:
    """Faults of ``spec.schedulingGates``."""
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        name = gate.get("name", "")
        checks.qualified_name(name, f"{path}[{index}]", faults)
        if name in seen:
            faults.append(fields.duplicate(f"{path}[{index}]", name))
        seen.add(name)
