"""Bodies in ``application/vnd.kubernetes.protobuf``, which typed Go clients send by preference.

``kubectl create deployment`` does, for example. Such a body is the four bytes ``k8s\\0`` and a
``runtime.Unknown`` message whose ``raw`` is the object
(https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding). Only the decoding
is needed: every such client also accepts JSON answers.

The field numbers are data (``protobuf_fields.json``: message, field, number, type; ``[]`` marks a
list, ``{}`` a map from strings); the wire format is the protobuf library's work. Both are loaded by
the first request that needs them.
"""

from __future__ import annotations

import base64
import datetime
import functools
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from wherry.kube.api.errors import StatusError, bad_request

if TYPE_CHECKING:
    from google.protobuf.message import Message

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_UNKNOWN = "io.k8s.apimachinery.pkg.runtime.Unknown"
_API_PACKAGES = {
    "": "io.k8s.api.core.",
    "meta.k8s.io": "io.k8s.apimachinery.pkg.apis.meta.",
}

# A Go field that is no pointer is written even when it is zero, and JSON then leaves it out. The
# wire cannot tell it from a pointer to zero, which means something. These are the pointers.
_POINTERS = frozenset(
    """
    activeDeadlineSeconds allocateLoadBalancerNodePorts allowPrivilegeEscalation
    automountServiceAccountToken averageUtilization backoffLimit backoffLimitPerIndex
    blockOwnerDeletion completions controller defaultMode deletionGracePeriodSeconds
    enableServiceLinks expirationSeconds failedJobsHistoryLimit fsGroup gracePeriodSeconds
    hostUsers ignoreStoreReadErrorWithClusterBreakingPotential immutable leaseDurationSeconds
    leaseTransitions manualSelector maxFailedIndexes minReplicas mode optional orphanDependents
    parallelism priority privileged procMount progressDeadlineSeconds readOnlyRootFilesystem ready
    revisionHistoryLimit runAsGroup runAsNonRoot runAsUser seLinuxChangePolicy serving
    setHostnameAsFQDN shareProcessNamespace stabilizationWindowSeconds startingDeadlineSeconds
    storageClassName successfulJobsHistoryLimit suspend terminatedReplicas terminating
    terminationGracePeriodSeconds timeoutSeconds tolerationSeconds ttlSecondsAfterFinished
    volumeBindingMode volumeMode
    """.split()  # noqa: SIM905 (a list of words is read as words)
)
# The same names as plain values elsewhere: message, field.
_PLAIN = frozenset(
    {
        ("io.k8s.api.core.v1.ContainerStatus", "ready"),
        ("io.k8s.api.core.v1.Probe", "timeoutSeconds"),
    }
)
_POINTER_REPLICAS = (
    "DeploymentSpec",
    "ReplicaSetSpec",
    "StatefulSetSpec",
    "ReplicationControllerSpec",
)
# Messages whose fields JSON shows as the fields of the message around them (embedded Go structs).
_EMBEDDED = frozenset(
    {
        "ephemeralContainerCommon",
        "handler",
        "localObjectReference",
        "persistentVolumeSource",
        "volumeSource",
    }
)


def decode(body: bytes) -> dict[str, Any]:
    """The object in ``body`` as JSON would have it, with ``apiVersion`` and ``kind``.

    Raises:
        StatusError: 400, the body is not what it says.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("provided data does not appear to be a protobuf message, expected prefix")
    envelope = _parse(_UNKNOWN, body[len(_MAGIC) :])
    api_version = str(envelope.typeMeta.apiVersion)
    kind = str(envelope.typeMeta.kind)
    name = _message_name(api_version, kind)
    if name not in _fields():
        raise StatusError(
            415,
            "UnsupportedMediaType",
            f'no kind "{kind}" is registered for version "{api_version}" in protobuf',
        )
    value = _value(name, _parse(name, bytes(envelope.raw)))
    return {"apiVersion": api_version, "kind": kind, **value}


def _message_name(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    # Options travel in the group of the object they are for, but are meta/v1's.
    if kind in ("DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "Status"):
        return _META + kind
    package = (
        _API_PACKAGES.get(group) or f"io.k8s.api.{group.removesuffix('.k8s.io').split('.')[0]}."
    )
    return f"{package}{version}.{kind}"


@functools.cache
def _fields() -> dict[str, dict[str, tuple[int, str]]]:
    text = resources.files("wherry.kube.api").joinpath("protobuf_fields.json").read_bytes()
    table: dict[str, dict[str, tuple[int, str]]] = json.loads(text)
    return table


@functools.cache
def _classes() -> dict[str, type[Message]]:
    """A message class for each name in the table."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="kubernetes.proto", syntax="proto2")
    for name, fields in _fields().items():
        _describe(file.message_type.add(name=_flat(name)), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(_flat(name)))
        for name in _fields()
    }


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _describe(message: Any, fields: dict[str, tuple[int, str]]) -> None:
    """Fill the DescriptorProto ``message``."""
    for name, (number, type_) in fields.items():
        if type_.startswith("{}"):
            entry = message.nested_type.add(name=_entry_name(name))
            entry.options.map_entry = True
            _add_field(entry, "key", 1, "string")
            _add_field(entry, "value", 2, type_[2:])
            field = message.field.add(name=name, number=number, label=3, type=11)
            field.type_name = f".{message.name}.{entry.name}"
        else:
            _add_field(message, name, number, type_)


def _entry_name(field: str) -> str:
    return f"{field[:1].upper()}{field[1:]}Entry"


def _add_field(message: Any, name: str, number: int, type_: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    repeated = type_.startswith("[]")
    type_ = type_.removeprefix("[]")
    field = message.field.add(name=name, number=number, label=3 if repeated else 1)
    if "." in type_:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{_flat(type_)}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{type_.upper()}")


def _parse(name: str, data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    message = _classes()[name]()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise bad_request(f"proto: {name.rsplit('.', 1)[1]}: {error}") from error
    return message


def _value(name: str, message: Any) -> Any:
    """``message`` of type ``name`` as a JSON value."""
    special = _SPECIAL.get(name)
    if special is not None:
        return special(message)
    result: dict[str, Any] = {}
    fields = _fields()[name]
    for descriptor, content in message.ListFields():
        field = descriptor.name
        type_ = fields[field][1]
        value = _field_value(type_, content)
        if field in _EMBEDDED and isinstance(value, dict):
            result.update(value)
        elif not _absent_in_json(name, field, type_, value):
            result[field] = value
    return result


def _field_value(type_: str, content: Any) -> Any:
    if type_.startswith("{}"):
        return {key: _single(type_[2:], value) for key, value in content.items()}
    if type_.startswith("[]"):
        return [_single(type_[2:], value) for value in content]
    return _single(type_, content)


def _single(type_: str, content: Any) -> Any:
    if "." in type_:
        return _value(type_, content)
    if type_ == "bytes":
        return base64.b64encode(content).decode()
    return content


def _absent_in_json(message: str, field: str, type_: str, value: Any) -> bool:
    if value is None:
        return True
    if "." in type_ or type_.startswith(("[]", "{}")) or value:
        return False
    if field == "replicas":
        return not message.endswith(_POINTER_REPLICAS)
    return field not in _POINTERS or (message, field) in _PLAIN


def _quantity(message: Any) -> str:
    return str(message.string)


def _int_or_string(message: Any) -> int | str:
    return str(message.strVal) if message.type == 1 else int(message.intVal)


def _time(message: Any) -> str | None:
    """RFC 3339 in seconds; None for Go's zero time, which JSON shows as null."""
    if not message.ListFields():
        return None
    moment = datetime.datetime.fromtimestamp(message.seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(message: Any) -> str | None:
    if not message.ListFields():
        return None
    moment = datetime.datetime.fromtimestamp(message.seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{message.nanos // 1000:06d}Z"


def _raw_json(message: Any) -> Any:
    raw = bytes(message.Raw if hasattr(message, "Raw") else message.raw)
    try:
        return json.loads(raw) if raw else None
    except ValueError as error:
        raise bad_request(f"invalid JSON inside a protobuf message: {error}") from error


_SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _quantity,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    _META + "Time": _time,
    _META + "MicroTime": _micro_time,
    _META + "FieldsV1": _raw_json,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _raw_json,
}
