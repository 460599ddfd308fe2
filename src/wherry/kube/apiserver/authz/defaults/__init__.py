"""The roles and bindings every cluster has: `objects` makes them of the text in `roles`, and
`mended` says what one that is there lacks.

Like upstream, what was added to them stays and what is missing comes back at each start, unless
the object says ``rbac.authorization.kubernetes.io/autoupdate: "false"``.
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#auto-reconciliation
"""

from __future__ import annotations

from collections.abc import Iterator

from wherry.kube.api.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Resource,
)
from wherry.kube.apiserver.authz.defaults import roles
from wherry.kube.apiserver.authz.rules import Rule, compact, missing, rules_of
from wherry.kube.apiserver.objects import Object

_GROUP = "rbac.authorization.k8s.io"
_LABEL = "kubernetes.io/bootstrapping"
_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_CONTROLLER = "system:controller:"
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_EVENTS = Rule(("create", "patch", "update"), ("", "events.k8s.io"), ("events",))


def node_rules() -> tuple[Rule, ...]:
    """What ``system:node`` allows: the Node authorizer goes by it where it knows nothing better."""
    for name, _, rules in _parse(roles.CLUSTER_ROLES):
        if name == "system:node":
            return tuple(rules)
    raise AssertionError("unreachable")


def objects() -> Iterator[tuple[Resource, Object]]:
    """All of them."""
    for name, marks, rules in _parse(roles.CLUSTER_ROLES):
        yield CLUSTER_ROLES, _role(CLUSTER_ROLES, name, rules, marks)
    for name, subjects, role in _bindings(roles.BINDINGS):
        yield CLUSTER_ROLE_BINDINGS, _binding(CLUSTER_ROLE_BINDINGS, name, role, subjects)
    for name, _, rules in _parse(roles.CONTROLLER_ROLES):
        full = _CONTROLLER + name
        account = _subject(f"ServiceAccount kube-system/{name}")
        yield CLUSTER_ROLES, _role(CLUSTER_ROLES, full, rules)
        yield CLUSTER_ROLE_BINDINGS, _binding(CLUSTER_ROLE_BINDINGS, full, full, [account])
    for namespace, text in roles.NAMESPACE_ROLES.items():
        for name, _, rules in _parse(text):
            yield ROLES, _role(ROLES, name, rules, namespace=namespace)
    for namespace, text in roles.NAMESPACE_BINDINGS.items():
        for name, subjects, role in _bindings(text):
            yield ROLE_BINDINGS, _binding(ROLE_BINDINGS, name, role, subjects, namespace)


# --- what is there already --------------------------------------------------------------------


def mended(wanted: Object, found: Object) -> Object | None:
    """``found`` with what it lacks of ``wanted``; None where it lacks nothing, or is to be left
    alone. A binding of another role than ours comes back with ``roleRef`` changed: it must be
    removed and made anew."""
    metadata = found["metadata"]
    if (metadata.get("annotations") or {}).get(_AUTOUPDATE) == "false":
        return None
    made = {**found, "metadata": {**metadata}}
    for field in ("labels", "annotations"):
        present = metadata.get(field) or {}
        # what somebody gave another value keeps it
        made["metadata"][field] = {**wanted["metadata"].get(field, {}), **present}
    if "roleRef" in wanted:
        made["roleRef"] = wanted["roleRef"]
        made["subjects"] = _with_subjects(found.get("subjects") or [], wanted["subjects"])
        if not made["subjects"] and "subjects" not in found:
            del made["subjects"]
    elif "aggregationRule" in wanted:
        made["aggregationRule"] = _with_selectors(found.get("aggregationRule"), wanted)
    elif found.get("rules") == wanted["rules"]:
        pass  # as nearly always
    elif lacking := compact(missing(rules_of(found), rules_of(wanted))):
        made["rules"] = [*(found.get("rules") or ()), *(rule.as_object() for rule in lacking)]
    return None if made == found else made


def _with_subjects(present: list[Object], wanted: list[Object]) -> list[Object]:
    return [*present, *(subject for subject in wanted if subject not in present)]


def _with_selectors(present: Object | None, wanted: Object) -> Object:
    there = (present or {}).get("clusterRoleSelectors") or []
    ours = wanted["aggregationRule"]["clusterRoleSelectors"]
    return {"clusterRoleSelectors": [*there, *(each for each in ours if each not in there)]}


# --- from text to objects ---------------------------------------------------------------------


def _parse(text: str) -> Iterator[tuple[str, list[str], list[Rule]]]:
    """Names, marks and rules of the roles in a text."""
    name, marks, rules = "", list[str](), list[Rule]()
    for line in text.splitlines():
        if not line:
            continue
        if line.startswith(" "):
            rules.append(_rule(line.strip()))
            continue
        if name:
            yield name, marks, rules
        name, *marks = line.split()
        rules = []
    yield name, marks, rules


def _rule(line: str) -> Rule:
    if line == "events":
        return _EVENTS
    verbs, _, rest = line.partition(" ")
    spelled: list[str] = []
    for verb in verbs.split(","):
        spelled += {"read": _READ, "write": _WRITE}.get(verb, (verb,))
    groups, colon, what = rest.partition(": ")
    if not colon:
        return Rule(tuple(sorted(spelled)), urls=tuple(rest.split()))
    resources, _, names = what.partition(" = ")
    return Rule(
        tuple(sorted(spelled)),
        tuple("" if group == "core" else group for group in groups.split(",")),
        tuple(resources.split()),
        tuple(names.split()),
    )


def _bindings(text: str) -> Iterator[tuple[str, list[Object], str]]:
    for line in text.splitlines():
        if not line:
            continue
        # names have colons, too, but none with a space behind it
        named, _, subjects = f"{line} ".partition(": ")
        name, _, role = named.partition(" = ")
        found = [_subject(whom) for whom in subjects.strip().split(", ") if whom]
        yield name, found, role or name


def _subject(text: str) -> Object:
    kind, _, name = text.partition(" ")
    if kind == "ServiceAccount":
        namespace, _, name = name.partition("/")
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"apiGroup": _GROUP, "kind": kind, "name": name}


def _metadata(name: str, namespace: str = "") -> Object:
    metadata: Object = {
        "name": name,
        "labels": {_LABEL: "rbac-defaults"},
        "annotations": {_AUTOUPDATE: "true"},
    }
    if namespace:
        metadata["namespace"] = namespace
    return metadata


def _role(
    resource: Resource,
    name: str,
    rules: list[Rule],
    marks: list[str] | None = None,
    namespace: str = "",
) -> Object:
    metadata = _metadata(name, namespace)
    made: Object = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "rules": [rule.as_object() for rule in rules],
    }
    for mark in marks or ():
        what, _, which = mark.partition("-")
        label = f"{_GROUP}/aggregate-to-{which}"
        if what == "to":
            metadata["labels"][label] = "true"
        else:
            selector = {"matchLabels": {label: "true"}}
            made["aggregationRule"] = {"clusterRoleSelectors": [selector]}
            del made["rules"]
    return made


def _binding(
    resource: Resource, name: str, role: str, subjects: list[Object], namespace: str = ""
) -> Object:
    kind = ROLES.kind if namespace else CLUSTER_ROLES.kind
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": _metadata(name, namespace),
        "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": role},
        "subjects": subjects,
    }
