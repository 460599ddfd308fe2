"""The table of subresources: what stands behind a name like ``scale``, for discovery and OpenAPI.

A resource lists the names of its own in ``resources``; what they hold and allow is said here once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wherry.kube.api.resources import Resource

_CORE = "io.k8s.api.core.v1."
_CHANGE = ("get", "patch", "update")
_STREAM = ("create", "get")
_PROXY = ("create", "delete", "get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """What is served below an object.

    ``kind`` is what it holds or takes, the object's own where empty; ``schema`` the definition of
    that. ``connect`` marks a stream: its verbs open it and there is no body of a declared kind.
    """

    name: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""
    kind: str = ""
    schema: str = ""
    connect: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


# One line a subresource, as a table is read.
# ruff: noqa: E501
# fmt: off
_ALL = {
    s.name: s
    for s in (
        Subresource("approval", _CHANGE),
        Subresource("attach", _STREAM, "", "v1", "PodAttachOptions", connect=True),
        Subresource("binding", ("create",), "", "v1", "Binding", _CORE + "Binding"),
        Subresource("ephemeralcontainers", _CHANGE),
        Subresource("eviction", ("create",), "policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction"),
        Subresource("exec", _STREAM, "", "v1", "PodExecOptions", connect=True),
        Subresource("finalize", ("update",)),
        Subresource("log", ("get",)),
        Subresource("portforward", _STREAM, "", "v1", "PodPortForwardOptions", connect=True),
        Subresource("proxy", _PROXY, "", "v1", "", connect=True),
        Subresource("resize", _CHANGE),
        Subresource("scale", _CHANGE, "autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale"),
        Subresource("status", _CHANGE),
        Subresource("token", ("create",), "authentication.k8s.io", "v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
    )
}
# fmt: on


def subresource(resource: Resource, name: str) -> Subresource:
    """The subresource of ``resource`` called ``name``, with what it holds filled in."""
    entry = _ALL[name]
    if name == "proxy":
        return replace(entry, kind=f"{resource.kind}ProxyOptions")
    if name == "scale" and resource.stored_as is not None and not resource.custom:
        return _old_scale(entry, resource)
    if entry.kind:
        return entry
    return replace(
        entry,
        group=resource.group,
        version=resource.version,
        kind=resource.kind,
        schema=resource.schema,
    )


def _old_scale(entry: Subresource, resource: Resource) -> Subresource:
    """Workloads of old versions are scaled by a Scale of the same version."""
    schema = f"{resource.schema.rpartition('.')[0]}.Scale"
    return replace(entry, group=resource.group, version=resource.version, schema=schema)
