"""The kinds: what is special about each, on the generic behaviour of ``base.Kind``.

``base`` is the order of steps every write takes; a module per kind overrides steps. Shared by them:
``fields`` words the faults, ``checks`` and ``metadata`` hold rules all kinds have, ``podspec``
the rules of pods and pod templates. Pure functions over plain dicts; the API server's registry is
the caller.

The table :data:`KINDS` lists them; adding a kind is one line here and one in
``kube.api.resources``.
"""

from __future__ import annotations

from wherry.kube.api import resources
from wherry.kube.api.kinds.base import Column, Kind
from wherry.kube.api.kinds.config_map import ConfigMap
from wherry.kube.api.kinds.deployment import Deployment
from wherry.kube.api.kinds.endpoint_slice import EndpointSlice
from wherry.kube.api.kinds.endpoints import Endpoints
from wherry.kube.api.kinds.event import Event
from wherry.kube.api.kinds.lease import Lease
from wherry.kube.api.kinds.namespace import Namespace
from wherry.kube.api.kinds.node import Node
from wherry.kube.api.kinds.pod import Pod
from wherry.kube.api.kinds.replica_set import ReplicaSet
from wherry.kube.api.kinds.replication_controller import ReplicationController
from wherry.kube.api.kinds.secret import Secret
from wherry.kube.api.kinds.service import Service
from wherry.kube.api.kinds.service_account import ServiceAccount

__all__ = ["KINDS", "Column", "Kind"]

_ALL: tuple[Kind, ...] = (
    ConfigMap(resources.CONFIG_MAPS),
    Endpoints(resources.ENDPOINTS),
    Event(resources.EVENTS),
    Namespace(resources.NAMESPACES),
    Node(resources.NODES),
    Pod(resources.PODS),
    ReplicationController(resources.REPLICATION_CONTROLLERS),
    Secret(resources.SECRETS),
    ServiceAccount(resources.SERVICE_ACCOUNTS),
    Service(resources.SERVICES),
    Deployment(resources.DEPLOYMENTS),
    ReplicaSet(resources.REPLICA_SETS),
    Lease(resources.LEASES),
    EndpointSlice(resources.ENDPOINT_SLICES),
)

KINDS: dict[tuple[str, str, str], Kind] = {
    (kind.resource.group, kind.resource.version, kind.resource.plural): kind for kind in _ALL
}
"""(group, version, plural) → the kind's rules."""
