"""The rules for ``metadata``, the same for every kind.

Upstream: k8s.io/apimachinery/pkg/api/validation/objectmeta.go and pkg/apis/core/validation
(ValidateObjectMeta).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields

NameRule = Callable[[str, bool], list[str]]

ANNOTATIONS_LIMIT: Final = 256 * 1024
"""Bytes of all annotation keys and values together."""

ORPHAN: Final = "orphan"
FOREGROUND: Final = "foregroundDeletion"
_STANDARD_FINALIZERS = frozenset({"kubernetes", ORPHAN, FOREGROUND})


def _without_dash(name: str, prefix: bool) -> str:
    """A prefix may end in dashes: judge it as if a letter followed."""
    return name[:-1] + "a" if prefix and len(name) > 1 and name.endswith("-") else name


def dns_subdomain(name: str, prefix: bool = False) -> list[str]:
    """Most kinds' rule for names: an RFC 1123 subdomain."""
    return names.is_dns1123_subdomain(_without_dash(name, prefix))


def dns_label(name: str, prefix: bool = False) -> list[str]:
    """The rule for names of namespaces and Services: an RFC 1123 label."""
    return names.is_dns1123_label(_without_dash(name, prefix))


def validate(
    meta: Mapping[str, Any], *, namespaced: bool, name_rule: NameRule, kube_finalizers: bool = True
) -> list[FieldError]:
    """Every fault in a new object's metadata. ``kube_finalizers``: one without a domain must be
    Kubernetes' own, as for all kinds but custom resources and their definitions."""
    errors: list[FieldError] = []
    generate = meta.get("generateName")
    if generate:
        errors += _each(name_rule(generate, True), "metadata.generateName", generate)
    name = meta.get("name")
    if not name:
        errors.append(fields.required("metadata.name", "name or generateName is required"))
    else:
        errors += _each(name_rule(name, False), "metadata.name", name)
    namespace = meta.get("namespace")
    if namespaced:
        if not namespace:
            errors.append(fields.required("metadata.namespace"))
        else:
            errors += _each(dns_label(namespace), "metadata.namespace", namespace)
    elif namespace:
        errors.append(fields.forbidden("metadata.namespace", "not allowed on this type"))
    if (generation := meta.get("generation", 0)) < 0:
        errors += fields.non_negative("metadata.generation", generation)
    return errors + _validate_parts(meta, kube_finalizers)


def validate_update(
    new: Mapping[str, Any], old: Mapping[str, Any], *, kube_finalizers: bool = True
) -> list[FieldError]:
    """Every fault in changed metadata.

    A missing resourceVersion is not looked for here: whether it may be missing is the registry's
    decision (``Kind.unconditional_update``).
    """
    errors: list[FieldError] = []
    if old.get("deletionTimestamp"):
        known = set(old.get("finalizers") or ())
        added = sorted(set(new.get("finalizers") or ()) - known)
        if added:
            listed = ", ".join(map(fields.quote, added))
            errors.append(
                fields.forbidden(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new "
                    f"finalizers []string{{{listed}}}",
                )
            )
    if new.get("generation", 0) < old.get("generation", 0):
        errors.append(
            fields.invalid(
                "metadata.generation", new.get("generation", 0), "must not be decremented"
            )
        )
    for key in ("name", "namespace", "uid"):
        errors += fields.immutable(f"metadata.{key}", new.get(key, ""), old.get(key, ""))
    for key in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        errors += fields.immutable(f"metadata.{key}", new.get(key), old.get(key))
    return errors + _validate_parts(new, kube_finalizers)


def _each(messages: Sequence[str], path: str, value: str) -> list[FieldError]:
    return [fields.invalid(path, value, message) for message in messages]


def _validate_parts(meta: Mapping[str, Any], kube_finalizers: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if labels := meta.get("labels"):
        errors += validate_labels(labels, "metadata.labels")
    if annotations := meta.get("annotations"):
        errors += validate_annotations(annotations, "metadata.annotations")
    if owners := meta.get("ownerReferences"):
        errors += _validate_owners(owners, "metadata.ownerReferences")
    if finalizers := meta.get("finalizers"):
        errors += _validate_finalizers(finalizers, "metadata.finalizers", kube_finalizers)
    return errors


def validate_labels(labels: Mapping[str, str], path: str) -> list[FieldError]:
    """Faults of label keys and values."""
    errors: list[FieldError] = []
    checks.labels(labels, path, errors)
    return errors


def validate_annotations(annotations: Mapping[str, str], path: str) -> list[FieldError]:
    """Faults of annotations: keys as for labels but in any case, and the size of all together."""
    errors: list[FieldError] = []
    size = 0
    for key, value in annotations.items():
        errors += [fields.invalid(path, key, m) for m in names.is_qualified_name(key.lower())]
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_LIMIT:
        errors.append(fields.too_long(path, ANNOTATIONS_LIMIT))
    return errors


def _validate_owners(owners: Sequence[Mapping[str, Any]], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = ""
    for owner in owners:
        api_version = owner.get("apiVersion", "")
        if not api_version.rpartition("/")[2]:
            errors.append(
                fields.invalid(f"{path}.apiVersion", api_version, "version must not be empty")
            )
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                errors.append(fields.invalid(f"{path}.{key}", "", "must not be empty"))
        if api_version == "v1" and owner.get("kind") == "Event":
            errors.append(
                fields.invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner")
            )
        if owner.get("controller"):
            current = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if controller:
                errors.append(
                    fields.invalid(
                        path,
                        list(owners),
                        "Only one reference can have Controller set to true. Found "
                        f'"true" in references for {controller} and {current}',
                    )
                )
            else:
                controller = current
    return errors


def _validate_finalizers(finalizers: Sequence[str], path: str, kube: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    for finalizer in finalizers:
        errors += [fields.invalid(path, finalizer, m) for m in names.is_qualified_name(finalizer)]
    if ORPHAN in finalizers and FOREGROUND in finalizers:
        errors.append(
            fields.invalid(
                path,
                list(finalizers),
                f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set",
            )
        )
    for index, finalizer in enumerate(finalizers if kube else ()):
        errors += kube_finalizer(finalizer, f"{path}[{index}]")
    return errors


def kube_finalizer(finalizer: str, path: str) -> list[FieldError]:
    """The complaint about a finalizer without a domain that is none of Kubernetes' own."""
    if "/" in finalizer or finalizer in _STANDARD_FINALIZERS:
        return []
    return [
        fields.invalid(
            path, finalizer, "name is neither a standard finalizer name nor is it fully qualified"
        )
    ]
