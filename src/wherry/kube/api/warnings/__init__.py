"""What a client is told beside the answer: deprecated fields and kinds, and what is allowed but
hardly meant.

`ON_WRITE` lists, by resource, what looks at a written object: a function of the new object and the
old one (None at a create). Its texts are upstream's. Writes of a status, and updates of pods, which
are frequent and seldom made by people, are not looked at.
Upstream: WarningsOnCreate and WarningsOnUpdate (pkg/registry/*/strategy.go), pkg/api/*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wherry.kube.api import resources as r
from wherry.kube.api.resources import Resource
from wherry.kube.api.warnings import cluster, network, storage, workloads

Object = dict[str, Any]
Look = Callable[[Object, Object | None], list[str]]

__all__ = ["DEPRECATED", "ON_WRITE", "ORPHANED_PODS"]

DEPRECATED = {
    "componentstatuses": "v1 ComponentStatus is deprecated in v1.19+",
    "endpoints": ("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
}
"""Kinds of the core, by plural, that should not be used any more in their only version."""

ORPHANED_PODS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background "
    "to remove them or set propagationPolicy=Orphan to suppress this warning"
)

_TABLE: tuple[tuple[Resource, Look], ...] = (
    (r.PODS, workloads.pod),
    (r.POD_TEMPLATES, workloads.pod_template),
    (r.REPLICATION_CONTROLLERS, workloads.named),
    (r.REPLICA_SETS, workloads.named),
    (r.DEPLOYMENTS, workloads.named),
    (r.DAEMON_SETS, workloads.templated),
    (r.STATEFUL_SETS, workloads.stateful_set),
    (r.JOBS, workloads.job),
    (r.CRON_JOBS, workloads.cron_job),
    (r.SERVICES, network.service),
    (r.INGRESSES, network.ingress),
    (r.NETWORK_POLICIES, network.network_policy),
    (r.PERSISTENT_VOLUMES, storage.volume),
    (r.PERSISTENT_VOLUME_CLAIMS, storage.claim),
    (r.STORAGE_CLASSES, storage.storage_class),
    (r.CSI_STORAGE_CAPACITIES, storage.capacity),
    (r.NODES, cluster.node),
    (r.RUNTIME_CLASSES, cluster.runtime_class),
)

ON_WRITE: dict[str, Look] = {resource.schema: look for resource, look in _TABLE}
"""By the name of the kind's definition."""
