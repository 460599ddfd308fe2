"""Environment variables of a container, and the fields of the pod they may show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.podspec import paths
from wherry.kube.api.quantity import ZERO, QuantityError, parse

Spec = Mapping[str, Any]

ENV_FIELDS: Final = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""What ``valueFrom.fieldRef`` may name (besides ``metadata.labels['…']`` and annotations)."""

VOLUME_FIELDS: Final = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
"""What a file of a downwardAPI volume may show."""

_DOWNWARD_FIELDS = frozenset(
    (*ENV_FIELDS, *VOLUME_FIELDS, "spec.restartPolicy", "spec.schedulerName", "status.phase")
)
_RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_SIZES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def check_env(variables: Sequence[Spec], path: str, faults: Faults) -> None:
    """Faults of ``env``."""
    for index, variable in enumerate(variables):
        name = variable.get("name")
        if not name:
            faults.append(fields.required(f"{path}[{index}].name"))
        else:
            checks.check(names.is_env_var_name, name, f"{path}[{index}].name", faults)
        if (source := variable.get("valueFrom")) is not None:
            where = f"{path}[{index}].valueFrom"
            _check_source(source, bool(variable.get("value")), where, faults)


def check_env_from(sources: Sequence[Spec], path: str, faults: Faults) -> None:
    """Faults of ``envFrom``."""
    for index, source in enumerate(sources):
        where = f"{path}[{index}]"
        if prefix := source.get("prefix"):
            checks.check(names.is_env_var_name, prefix, f"{where}.prefix", faults)
        given = [kind for kind in ("configMapRef", "secretRef") if kind in source]
        for kind in given:
            name = source[kind].get("name")
            if not name:
                faults.append(fields.required(f"{where}.{kind}.name"))
            else:
                checks.dns_subdomain(name, f"{where}.{kind}.name", faults)
        if not given:
            why = "must specify one of: `configMapRef` or `secretRef`"
            faults.append(fields.invalid(path, "", why))
        elif len(given) > 1:
            why = "may not have more than one field specified at a time"
            faults.append(fields.invalid(path, "", why))


def _check_source(source: Spec, has_value: bool, path: str, faults: Faults) -> None:
    given = [kind for kind in _SOURCES if kind in source]
    for kind in given:
        reference, where = source[kind], f"{path}.{kind}"
        match kind:
            case "fieldRef":
                check_field_reference(reference, ENV_FIELDS, where, faults)
            case "resourceFieldRef":
                check_resource_reference(reference, where, faults)
            case "fileKeyRef":
                _check_file_key(reference, where, faults)
            case _:
                checks.dns_subdomain(reference.get("name", ""), f"{where}.name", faults)
                _check_key(reference, where, faults)
    if not given:
        why = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, "
            "`secretKeyRef` or `fileKeyRef`"
        )
        faults.append(fields.invalid(path, "", why))
    elif has_value:
        why = "may not be specified when `value` is not empty"
        faults.append(fields.invalid(path, "", why))
    elif len(given) > 1:
        why = "may not have more than one field specified at a time"
        faults.append(fields.invalid(path, "", why))


def _check_key(reference: Spec, path: str, faults: Faults) -> None:
    if not reference.get("key"):
        faults.append(fields.required(f"{path}.key"))
    else:
        checks.check(names.is_config_key, reference["key"], f"{path}.key", faults)


def _check_file_key(reference: Spec, path: str, faults: Faults) -> None:
    if not reference.get("volumeName"):
        faults.append(fields.required(f"{path}.volumeName"))
    else:
        checks.dns_label(reference["volumeName"], f"{path}.volumeName", faults)
    if not reference.get("path"):
        faults.append(fields.required(f"{path}.path"))
    else:
        paths.check_local_not_reserved(reference["path"], f"{path}.path", faults)
    if not reference.get("key"):
        faults.append(fields.required(f"{path}.key"))
    else:
        checks.check(names.is_env_var_name, reference["key"], f"{path}.key", faults)


def split_subscript(field: str) -> tuple[str, str] | None:
    """``metadata.labels['a']`` → (``metadata.labels``, ``a``); None without a subscript."""
    if not field.endswith("']"):
        return None
    name, bracket, subscript = field[:-2].partition("['")
    return (name, subscript) if bracket and name else None


def check_field_reference(
    reference: Spec, supported: Sequence[str], path: str, faults: Faults
) -> None:
    """Faults of a reference to a field of the pod; ``supported`` are the plain fields."""
    version, field = reference.get("apiVersion"), reference.get("fieldPath")
    if not version:
        faults.append(fields.required(f"{path}.apiVersion"))
        return
    if not field:
        faults.append(fields.required(f"{path}.fieldPath"))
        return
    subscripted = split_subscript(field)
    if problem := _unconvertible(version, field, subscripted):
        why = f"error converting fieldPath: {problem}"
        faults.append(fields.invalid(f"{path}.fieldPath", field, why))
        return
    if subscripted:
        name, subscript = subscripted
        key = subscript.lower() if name == "metadata.annotations" else subscript
        checks.qualified_name(key, path, faults)
    elif field not in supported:
        faults.append(fields.not_supported(f"{path}.fieldPath", field, supported))


def _unconvertible(version: str, field: str, subscripted: tuple[str, str] | None) -> str:
    if version != "v1":
        return f"unsupported pod version: {version}"
    if subscripted:
        if subscripted[0] in ("metadata.annotations", "metadata.labels"):
            return ""
        return f"field label does not support subscript: {field}"
    return "" if field in _DOWNWARD_FIELDS else f"field label not supported: {field}"


def check_resource_reference(
    reference: Spec, path: str, faults: Faults, *, in_volume: bool = False
) -> None:
    """Faults of a reference to a container's request or limit."""
    resource = reference.get("resource", "")
    if in_volume and not reference.get("containerName"):
        faults.append(fields.required(f"{path}.containerName"))
    elif not resource:
        faults.append(fields.required(f"{path}.resource"))
    elif resource not in _RESOURCES and not resource.startswith(_HUGE_PAGES):
        faults.append(fields.not_supported(f"{path}.resource", resource, _RESOURCES))
    _check_divisor(resource, reference.get("divisor"), f"{path}.divisor", faults)


def _check_divisor(resource: str, divisor: Any, path: str, faults: Faults) -> None:
    try:
        quantity = parse(str(divisor)) if divisor is not None else ZERO
    except QuantityError as error:
        faults.append(fields.invalid(path, str(divisor), str(error)))
        return
    if quantity == ZERO:
        return
    kind = resource.partition(".")[2].partition("-")[0]
    if kind == "cpu":
        if str(quantity) not in ("1m", "1"):
            why = "only divisor's values 1m and 1 are supported with the cpu resource"
            faults.append(fields.invalid(path, resource, why))
        return
    title = {
        "memory": "memory",
        "ephemeral": "local ephemeral storage",
        "hugepages": "hugepages",
    }.get(kind)
    if title and str(quantity) not in _SIZES:
        why = f"only divisor's values {', '.join(_SIZES)} are supported with the {title} resource"
        faults.append(fields.invalid(path, resource, why))
