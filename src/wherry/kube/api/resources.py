"""The table of resources. Adding a kind is one line here, and a module in ``kinds`` for what is
special about it."""

from __future__ import annotations

from dataclasses import dataclass

ALL_VERBS = (
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
)


@dataclass(frozen=True, slots=True)
class Resource:
    """One served resource: its names, where it lives, what can be done with it.

    ``schema`` is the name of its definition in the schema data; ``storage_prefix`` is where its
    objects lie in the store, as upstream lays them out under ``/registry``.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    schema: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    storage_prefix: str = ""

    @property
    def api_version(self) -> str:
        """``v1``, ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def base_path(self) -> str:
        """``/api/v1``, ``/apis/apps/v1``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, an object, or a subresource of it."""
        parts = [self.base_path]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
            if subresource:
                parts.append(subresource)
        return "/".join(parts)

    def key(self, namespace: str, name: str) -> str:
        """Where the object lies in the store."""
        prefix = f"/registry/{self.storage_prefix or self.plural}/"
        return f"{prefix}{namespace}/{name}" if self.namespaced else prefix + name


_CORE = "io.k8s.api.core.v1."

# One line a resource, as a table is read.
# ruff: noqa: E501
# fmt: off
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", "namespace", False, _CORE + "Namespace", ("ns",), subresources=("status", "finalize"), verbs=tuple(v for v in ALL_VERBS if v != "deletecollection"))
NODES = Resource("", "v1", "Node", "nodes", "node", False, _CORE + "Node", ("no",), subresources=("status", "proxy"), storage_prefix="minions")
PODS = Resource("", "v1", "Pod", "pods", "pod", True, _CORE + "Pod", ("po",), ("all",), ("status", "binding", "log", "exec", "attach", "portforward", "eviction"))
SERVICES = Resource("", "v1", "Service", "services", "service", True, _CORE + "Service", ("svc",), ("all",), ("status",), storage_prefix="services/specs")
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints", "endpoints", True, _CORE + "Endpoints", ("ep",), storage_prefix="services/endpoints")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", True, "io.k8s.api.discovery.v1.EndpointSlice")
EVENTS = Resource("", "v1", "Event", "events", "event", True, _CORE + "Event", ("ev",))
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", "configmap", True, _CORE + "ConfigMap", ("cm",))
SECRETS = Resource("", "v1", "Secret", "secrets", "secret", True, _CORE + "Secret")
SERVICE_ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", True, _CORE + "ServiceAccount", ("sa",))
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", "lease", True, "io.k8s.api.coordination.v1.Lease")
REPLICATION_CONTROLLERS = Resource("", "v1", "ReplicationController", "replicationcontrollers", "replicationcontroller", True, _CORE + "ReplicationController", ("rc",), ("all",), ("status", "scale"), storage_prefix="controllers")
REPLICA_SETS = Resource("apps", "v1", "ReplicaSet", "replicasets", "replicaset", True, "io.k8s.api.apps.v1.ReplicaSet", ("rs",), ("all",), ("status", "scale"))
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", "deployment", True, "io.k8s.api.apps.v1.Deployment", ("deploy",), ("all",), ("status", "scale"))
# fmt: on

RESOURCES: tuple[Resource, ...] = (
    CONFIG_MAPS,
    ENDPOINTS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICATION_CONTROLLERS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    DEPLOYMENTS,
    REPLICA_SETS,
    LEASES,
    ENDPOINT_SLICES,
)

BY_PLURAL: dict[tuple[str, str, str], Resource] = {
    (r.group, r.version, r.plural): r for r in RESOURCES
}
BY_KIND: dict[tuple[str, str, str], Resource] = {(r.group, r.version, r.kind): r for r in RESOURCES}
