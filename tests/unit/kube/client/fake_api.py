"""An API server in a dict: enough of its semantics to run controllers against, without a disk.

It keeps revisions, history and watches, refuses stale writes, holds objects back for grace periods
and finalizers, separates status from the rest. Every object it hands out is the one it keeps, as in
the server's own in-memory transport; ``assert_untouched`` tells whether somebody changed one.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from wherry.kube.api import errors, meta
from wherry.kube.api.resources import NAMESPACES, PODS, RESOURCES, Resource
from wherry.kube.client.transport import Object, Query

_BY_PATH = {(r.base_path, r.plural): r for r in RESOURCES}
_FINISHED = ("Succeeded", "Failed")


class FakeAPI:
    """A Transport over a dict."""

    def __init__(self) -> None:
        self.revision = 0
        self.objects: dict[tuple[Resource, str, str], Object] = {}
        self.history: list[tuple[int, Resource, str, Object, Object | None]] = []
        self.kept_from = 0
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str, Any], None] | None = None
        """Called with (method, path, body) before each request; may raise."""
        self.after: Callable[[str, str, Any], None] | None = None
        """Called after each request took effect; may raise, as a connection that breaks then."""
        self.watch_delay: Callable[[], float] | None = None
        self._changed = asyncio.Condition()
        self._snapshots: list[tuple[Object, str]] = []
        self._broken = 0

    # -- for tests

    def assert_untouched(self) -> None:
        for object, text in self._snapshots:
            assert json.dumps(object, sort_keys=True) == text, "a shared object was changed"

    def find(self, resource: Resource, namespace: str | None = None) -> list[Object]:
        return [
            o
            for (r, ns, _), o in self.objects.items()
            if r == resource and (namespace is None or ns == namespace)
        ]

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        return self.objects.get((resource, namespace, name))

    async def break_watches(self) -> None:
        self._broken += 1
        async with self._changed:
            self._changed.notify_all()

    def compact(self) -> None:
        self.kept_from = self.revision

    # -- Transport

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        await asyncio.sleep(0)
        self.requests.append((method, path))
        if self.before is not None:
            self.before(method, path, body)
        resource, namespace, name, subresource = _parse(path)
        answer = self._dispatch(
            method, resource, namespace, name, subresource, dict(query), copy.deepcopy(body)
        )
        async with self._changed:
            self._changed.notify_all()
        if self.after is not None:
            self.after(method, path, body)
        return answer

    async def watch(self, path: str, query: Query = ()) -> AsyncIterator[tuple[str, Object]]:
        options = dict(query)
        resource, namespace, _, _ = _parse(path)
        matches = _matcher(namespace, options)
        seen = int(options.get("resourceVersion") or 0)
        broken = self._broken
        if not seen:
            for object in self._select(resource, namespace, options):
                yield "ADDED", object
            seen = self.revision
        if seen < self.kept_from:
            raise errors.expired(f"too old resource version: {seen} ({self.kept_from})")
        while True:
            if self._broken != broken:
                raise ConnectionError("the watch broke")
            for revision, changed, kind, object, previous in self.history[seen:]:
                seen = revision
                if changed != resource:
                    continue
                now, before = matches(object), previous is not None and matches(previous)
                if self.watch_delay is not None:
                    await asyncio.sleep(self.watch_delay())
                if kind == "DELETED":
                    if now or before:
                        yield "DELETED", object
                elif now:
                    yield ("MODIFIED" if before else "ADDED"), object
                elif before:
                    yield "DELETED", object
            if seen < self.revision:
                continue
            async with self._changed:
                while self.revision <= seen and self._broken == broken:
                    await self._changed.wait()

    async def close(self) -> None:
        return

    # -- verbs

    def _dispatch(
        self,
        method: str,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str,
        query: dict[str, str],
        body: Any,
    ) -> Object:
        if method == "GET" and not name:
            items = self._select(resource, namespace, query)
            return {"metadata": {"resourceVersion": str(self.revision)}, "items": items}
        if method == "DELETE" and not name:
            for object in self._select(resource, namespace, query):
                self._delete(resource, object, body or {})
            return {"kind": "Status", "status": "Success"}
        if method == "POST" and not name:
            return self._create(resource, namespace, body)
        object = self.objects.get((resource, namespace, name))
        if object is None:
            raise errors.not_found(resource.plural, name, resource.group)
        if method == "GET":
            return object
        if method == "DELETE":
            return self._delete(resource, object, body or {})
        if method == "POST" and subresource == "binding":
            return self._bind(object, body)
        if method == "PATCH":
            if isinstance(body, list):
                raise NotImplementedError("JSON patch")
            body = _merge(object, body)
            if subresource == "":
                body["status"] = object.get("status")
        return self._update(resource, object, body, subresource)

    def _create(self, resource: Resource, namespace: str, new: Object) -> Object:
        metadata = new.setdefault("metadata", {})
        if resource.namespaced:
            metadata["namespace"] = namespace
            parent = self.get(NAMESPACES, namespace)
            if parent is not None and meta.is_deleting(parent):
                raise errors.StatusError(
                    403,
                    "Forbidden",
                    f"namespace {namespace} is being terminated",
                    details={"causes": [{"reason": "NamespaceTerminating"}]},
                )
        if not metadata.get("name"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        name = metadata["name"]
        if (resource, namespace, name) in self.objects:
            raise errors.already_exists(resource.plural, name, resource.group)
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = meta.now()
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        if "spec" in new:
            metadata["generation"] = 1
        if resource is PODS:
            new.setdefault("status", {"phase": "Pending"})
        if resource is NAMESPACES:
            new.setdefault("spec", {"finalizers": ["kubernetes"]})
            new.setdefault("status", {"phase": "Active"})
        return self._store(resource, new, None)

    def _update(self, resource: Resource, old: Object, new: Object, subresource: str) -> Object:
        wanted = new["metadata"].get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise errors.conflict(
                resource.plural, old["metadata"]["name"], errors.MODIFIED, resource.group
            )
        wanted = new["metadata"].get("uid")
        if wanted and wanted != old["metadata"]["uid"]:
            raise errors.conflict(
                resource.plural, old["metadata"]["name"], "uid mismatch", resource.group
            )
        if subresource == "status":
            result = {**old, "status": new.get("status")}
            annotations = new["metadata"].get("annotations")
            result["metadata"] = {**old["metadata"], "annotations": annotations}
        elif subresource == "finalize":
            result = {**old, "spec": new.get("spec") or {}}
        else:
            kept = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
            metadata = dict(new["metadata"])
            for field in (*kept, "generation"):
                metadata.pop(field, None)
                if field in old["metadata"]:
                    metadata[field] = old["metadata"][field]
            result = {**new, "metadata": metadata}
            if "status" in resource.subresources:
                result["status"] = old.get("status")
            if result.get("spec") != old.get("spec"):
                metadata["generation"] = metadata.get("generation", 0) + 1
        for part in (result, result["metadata"]):
            for field in [f for f, v in part.items() if v is None]:
                del part[field]
        held = result["metadata"].get("finalizers") or (
            resource is NAMESPACES and result.get("spec", {}).get("finalizers")
        )
        graced = result["metadata"].get("deletionGracePeriodSeconds")
        if meta.is_deleting(result) and not held and not graced:
            return self._remove(resource, result)
        comparable = {**result, "metadata": {**result["metadata"]}}
        comparable["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if comparable == old:
            return old
        return self._store(resource, result, old)

    def _delete(self, resource: Resource, object: Object, options: Object) -> Object:
        preconditions = options.get("preconditions") or {}
        for field in ("uid", "resourceVersion"):
            if preconditions.get(field, object["metadata"][field]) != object["metadata"][field]:
                raise errors.conflict(
                    resource.plural, object["metadata"]["name"], f"precondition {field}"
                )
        finalizers = list(meta.finalizers(object))
        policy = options.get("propagationPolicy")
        extra = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(policy or "")
        if extra and extra not in finalizers:
            finalizers.append(extra)
        grace = options.get("gracePeriodSeconds")
        if resource is PODS:
            spec, phase = object.get("spec") or {}, (object.get("status") or {}).get("phase")
            if grace is None:
                grace = spec.get("terminationGracePeriodSeconds", 30)
            if not spec.get("nodeName") or phase in _FINISHED:
                grace = 0
        else:
            grace = 0
        held = finalizers or grace or resource is NAMESPACES
        if not held:
            return self._remove(resource, object)
        if (
            meta.is_deleting(object)
            and finalizers == list(meta.finalizers(object))
            and grace >= object["metadata"].get("deletionGracePeriodSeconds", 0)
        ):
            return object
        metadata = {**object["metadata"], "deletionGracePeriodSeconds": grace}
        metadata.setdefault("deletionTimestamp", meta.now())
        if finalizers:
            metadata["finalizers"] = finalizers
        new = {**object, "metadata": metadata}
        if resource is NAMESPACES:
            new["status"] = {**(object.get("status") or {}), "phase": "Terminating"}
        return self._store(resource, new, object)

    def _bind(self, pod: Object, binding: Object) -> Object:
        if pod["spec"].get("nodeName"):
            raise errors.conflict(
                "pods/binding",
                meta.name(pod),
                f'pod {meta.name(pod)} is already assigned to node "{pod["spec"]["nodeName"]}"',
            )
        spec = {**pod["spec"], "nodeName": binding["target"]["name"]}
        status = dict(pod.get("status") or {})
        others = [c for c in status.get("conditions") or () if c["type"] != "PodScheduled"]
        status["conditions"] = [*others, {"type": "PodScheduled", "status": "True"}]
        self._store(PODS, {**pod, "spec": spec, "status": status}, pod)
        return {"kind": "Status", "status": "Success"}

    # -- the store

    def _store(self, resource: Resource, new: Object, old: Object | None) -> Object:
        self.revision += 1
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.revision)}}
        key = (resource, meta.namespace(new), meta.name(new))
        self.objects[key] = new
        self._snapshots.append((new, json.dumps(new, sort_keys=True)))
        self.history.append(
            (self.revision, resource, "ADDED" if old is None else "MODIFIED", new, old)
        )
        return new

    def _remove(self, resource: Resource, object: Object) -> Object:
        self.revision += 1
        last = {**object, "metadata": dict(object["metadata"])}
        last["metadata"]["resourceVersion"] = str(self.revision)
        del self.objects[(resource, meta.namespace(object), meta.name(object))]
        self._snapshots.append((last, json.dumps(last, sort_keys=True)))
        self.history.append((self.revision, resource, "DELETED", last, object))
        return last

    def _select(self, resource: Resource, namespace: str, query: dict[str, str]) -> list[Object]:
        matches = _matcher(namespace, query)
        return [o for (r, _, _), o in self.objects.items() if r == resource and matches(o)]


def _parse(path: str) -> tuple[Resource, str, str, str]:
    parts = path.strip("/").split("/")
    size = 2 if parts[0] == "api" else 3
    base, rest = "/" + "/".join(parts[:size]), parts[size:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    rest += ["", ""]
    return _BY_PATH[(base, rest[0])], namespace, rest[1], rest[2]


def _matcher(namespace: str, query: dict[str, str]) -> Callable[[Object], bool]:
    wanted = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
    fields = dict(part.split("=", 1) for part in query.get("fieldSelector", "").split(",") if part)

    def matches(object: Object) -> bool:
        if namespace and meta.namespace(object) != namespace:
            return False
        if any(meta.labels(object).get(key) != value for key, value in wanted.items()):
            return False
        return all(_field(object, key) == value for key, value in fields.items())

    return matches


def _field(object: Object, path: str) -> Any:
    value: Any = object
    for part in path.split("."):
        value = (value or {}).get(part)
    return value


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, list) and key == "conditions":
            named = {c["type"]: c for c in result.get(key) or ()}
            result[key] = list({**named, **{c["type"]: c for c in value}}.values())
        else:
            result[key] = _merge(result.get(key), value)
    return result


def jitter(longest: float) -> Callable[[], float]:
    """Delays that let watches lag behind each other."""
    return lambda: random.random() * longest
