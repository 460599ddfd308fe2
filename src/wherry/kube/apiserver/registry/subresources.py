"""What is reached below an object: its scale, a pod's binding and eviction.

``status`` and ``finalize`` are aspects of the object itself (`updating`); the streams of pods (log,
exec, attach, portforward) are `wherry.kube.apiserver.streams`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wherry.kube.api import errors
from wherry.kube.api.errors import FieldError, bad_request, invalid
from wherry.kube.api.kinds import Kind
from wherry.kube.api.meta import clone, now
from wherry.kube.api.patch import APPLY
from wherry.kube.api.resources import PODS
from wherry.kube.api.subresources import subresource
from wherry.kube.apiserver.answers import Single, success
from wherry.kube.apiserver.content import media_type, read_kind
from wherry.kube.apiserver.objects import Object, Stored, answer
from wherry.kube.apiserver.options import (
    WriteOptions,
    parse_write_options,
)
from wherry.kube.apiserver.registry import ownership
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.registry.patching import (
    judge,
    read_configuration,
    read_patch,
    require_manager,
)
from wherry.kube.apiserver.registry.records import Records
from wherry.kube.apiserver.registry.updating import SCALE, change, internal
from wherry.kube.apiserver.request import APIRequest

_SCALE = ("io.k8s.api.autoscaling.v1.Scale", "autoscaling/v1", "Scale")
_BINDING = ("io.k8s.api.core.v1.Binding", "v1", "Binding")


# --- scale ------------------------------------------------------------------------------------


async def get_scale(backend: Backend, request: APIRequest) -> Single:
    """How many there are, and how many there should be."""
    records = backend.records(request.info.served)
    stored = records.get(request.info.namespace, request.info.name)
    return Single(answer((request.version or records.kind).scale(stored.object)))


async def put_scale(backend: Backend, request: APIRequest) -> Single:
    """Replace the Scale: only its ``spec.replicas`` counts."""
    options = parse_write_options(request.query, "UpdateOptions", request.user_agent)
    scale = read_kind(request, *_scale_of(request), options.field_validation)
    return await _rescale(backend, request, options, lambda _: scale)


async def patch_scale(backend: Backend, request: APIRequest) -> Single:
    """Change the Scale by a patch."""
    options = parse_write_options(request.query, "PatchOptions", request.user_agent)
    version = request.version or backend.records(request.info.served).kind
    if media_type(request.body) == APPLY:
        return await _apply_scale(backend, request, options, version)
    apply_to, _ = read_patch(version, request.body)

    def patched(present: Object) -> Object:
        from wherry.kube.api.schema import decode_kind

        return decode_kind(*_scale_of(request), apply_to(present)).value

    return await _rescale(backend, request, options, patched)


async def _apply_scale(
    backend: Backend, request: APIRequest, options: WriteOptions, version: Kind
) -> Single:
    """Apply a Scale: what it says of replicas is applied to the object itself, and so owned."""
    from wherry.kube.api.schema import decode_kind

    records = backend.records(request.info.served)
    kind = records.kind
    require_manager(request)
    value, complaints = read_configuration(request.body, "Scale")
    applied = judge(request, options, decode_kind(*_scale_of(request), value), complaints)
    configuration: Object = {
        "apiVersion": version.resource.api_version,
        "kind": version.resource.kind,
        "metadata": {"name": request.info.name},
    }
    if "replicas" in (applied.get("spec") or {}):
        kind.apply_scale(configuration, applied)

    def make(old: Stored) -> Object:
        _check_scale(records, kind, applied, old, request.info.name)
        new = ownership.applied(
            backend,
            request,
            kind,
            old.object,
            configuration,
            options.field_manager,
            "scale",
            force=bool(options.force),
        )
        new = version.to_stored(new)
        kind.prepare_update(new, old.object)
        return new

    stored = await change(backend, request, make, SCALE, options, manage=False)
    return Single(answer(version.scale(stored.object)))


async def _rescale(
    backend: Backend, request: APIRequest, options: WriteOptions, wanted: Any
) -> Single:
    records = backend.records(request.info.served)
    kind = records.kind
    version = request.version or kind

    def make(old: Stored) -> Object:
        scale = wanted(version.scale(old.object))
        _check_scale(records, kind, scale, old, request.info.name)
        new: Object = clone(old.object)
        kind.apply_scale(new, scale)
        kind.prepare_update(new, old.object)
        return new

    stored = await change(backend, request, make, SCALE, options)
    return Single(answer(version.scale(stored.object)))


def _scale_of(request: APIRequest) -> tuple[str, str, str]:
    """The definition, version and kind of the Scale that the client speaks of."""
    if request.version is None:
        return _SCALE
    entry = subresource(request.version.resource, "scale")
    return entry.schema, entry.api_version, entry.kind


def _check_scale(records: Records, kind: Kind, scale: Object, old: Stored, name: str) -> None:
    metadata = scale.get("metadata") or {}
    if metadata.get("name", name) != name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({name})"
        )
    based_on = metadata.get("resourceVersion") or ""
    if based_on and based_on != str(old.revision):
        raise records.conflict(name)
    faults = kind.validate_scale(scale)
    if faults:
        raise invalid("Scale", name, faults, "autoscaling")


# --- pods: binding ------------------------------------------------------------------------------


async def bind_named(backend: Backend, request: APIRequest) -> Single:
    """The old way to bind: a POST to the collection of Bindings, which says which pod it is of."""
    name = read_kind(request, *_BINDING, "Ignore")["metadata"].get("name", "")
    if not name:
        missing = FieldError(
            "metadata.name",
            "FieldValueRequired",
            "Required value: name or generateName is required",
        )
        raise invalid("Binding", "", [missing])
    info = replace(
        request.info, resource=PODS, plural=PODS.plural, name=name, subresource="binding"
    )
    return await bind(backend, replace(request, info=info))


async def bind(backend: Backend, request: APIRequest) -> Single:
    """POST of a Binding: the scheduler's word on which node a pod goes to."""
    options = parse_write_options(request.query, "CreateOptions", request.user_agent)
    binding = read_kind(request, *_BINDING, options.field_validation)
    target, metadata = binding.get("target") or {}, binding["metadata"]
    name = request.info.name
    faults = []
    if target.get("kind", "") not in ("", "Node"):
        faults.append(
            FieldError(
                "target.kind",
                "FieldValueNotSupported",
                f'Unsupported value: "{target["kind"]}": supported values: "<empty>", "Node"',
            )
        )
    if not target.get("name"):
        faults.append(FieldError("target.name", "FieldValueRequired", "Required value"))
    if faults:
        raise invalid("Binding", name, faults)
    if metadata.get("name", name) != name:
        raise bad_request("name in URL does not match name in Binding object")

    binding = await backend.admit(request, binding, options)

    def bound(old: Stored) -> Object:
        why = _unbindable(old.object, metadata.get("uid"))
        if why:
            raise errors.conflict("pods/binding", name, why)
        return _bound(old.object, target["name"], binding["metadata"])

    stored = await change(backend, request, bound, internal("binding"), options, manage=False)
    return success(request.info.served, name, stored.object["metadata"]["uid"], 201)


def _unbindable(pod: Object, uid: str | None) -> str:
    """Why the pod cannot be bound, or ""."""
    metadata, spec = pod["metadata"], pod["spec"]
    if uid and uid != metadata["uid"]:
        return (
            f"Precondition failed: UID in precondition: {uid}, "
            f"UID in object meta: {metadata['uid']}"
        )
    if metadata.get("deletionTimestamp") is not None:
        return f"pod {metadata['name']} is being deleted, cannot be assigned to a host"
    if spec.get("nodeName"):
        return f'pod {metadata["name"]} is already assigned to node "{spec["nodeName"]}"'
    if spec.get("schedulingGates"):
        return f"pod {metadata['name']} has non-empty .spec.schedulingGates"
    return ""


def _bound(pod: Object, node: str, binding: Object) -> Object:
    status = pod.get("status", {})
    conditions = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
    conditions.append(
        {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": now(),
        }
    )
    new = {
        **pod,
        "metadata": {**pod["metadata"]},
        "spec": {**pod["spec"], "nodeName": node},
        "status": {**status, "conditions": conditions},
    }
    for field in ("annotations", "labels"):
        if binding.get(field):
            new["metadata"][field] = {**(pod["metadata"].get(field) or {}), **binding[field]}
    copied: Object = clone(new)
    return copied
