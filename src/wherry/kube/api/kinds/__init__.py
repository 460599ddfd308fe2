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
from wherry.kube.api.kinds.autoscaler import HorizontalPodAutoscaler
from wherry.kube.api.kinds.base import Column, Kind
from wherry.kube.api.kinds.config_map import ConfigMap
from wherry.kube.api.kinds.controller_revision import ControllerRevision
from wherry.kube.api.kinds.cron_job import CronJob
from wherry.kube.api.kinds.daemon_set import DaemonSet
from wherry.kube.api.kinds.deployment import Deployment
from wherry.kube.api.kinds.disruption_budget import PodDisruptionBudget
from wherry.kube.api.kinds.endpoint_slice import EndpointSlice
from wherry.kube.api.kinds.endpoints import Endpoints
from wherry.kube.api.kinds.event import Event
from wherry.kube.api.kinds.job import Job
from wherry.kube.api.kinds.lease import Lease
from wherry.kube.api.kinds.limit_range import LimitRange
from wherry.kube.api.kinds.namespace import Namespace
from wherry.kube.api.kinds.node import Node
from wherry.kube.api.kinds.persistent_volume import PersistentVolume
from wherry.kube.api.kinds.persistent_volume_claim import PersistentVolumeClaim
from wherry.kube.api.kinds.pod import Pod
from wherry.kube.api.kinds.pod_template import PodTemplate
from wherry.kube.api.kinds.replica_set import ReplicaSet
from wherry.kube.api.kinds.replication_controller import ReplicationController
from wherry.kube.api.kinds.resource_quota import ResourceQuota
from wherry.kube.api.kinds.secret import Secret
from wherry.kube.api.kinds.service import Service
from wherry.kube.api.kinds.service_account import ServiceAccount
from wherry.kube.api.kinds.stateful_set import StatefulSet

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
    Kind(resources.BINDINGS),
    Kind(resources.COMPONENT_STATUSES),
    LimitRange(resources.LIMIT_RANGES),
    PersistentVolume(resources.PERSISTENT_VOLUMES),
    PersistentVolumeClaim(resources.PERSISTENT_VOLUME_CLAIMS),
    PodTemplate(resources.POD_TEMPLATES),
    ResourceQuota(resources.RESOURCE_QUOTAS),
    StatefulSet(resources.STATEFUL_SETS),
    DaemonSet(resources.DAEMON_SETS),
    ControllerRevision(resources.CONTROLLER_REVISIONS),
    Job(resources.JOBS),
    CronJob(resources.CRON_JOBS),
    HorizontalPodAutoscaler(resources.HORIZONTAL_POD_AUTOSCALERS),
    PodDisruptionBudget(resources.POD_DISRUPTION_BUDGETS),
    Kind(resources.INGRESSES),
    Kind(resources.INGRESS_CLASSES),
    Kind(resources.NETWORK_POLICIES),
    Kind(resources.SERVICE_CIDRS),
    Kind(resources.IP_ADDRESSES),
    Kind(resources.ROLES),
    Kind(resources.CLUSTER_ROLES),
    Kind(resources.ROLE_BINDINGS),
    Kind(resources.CLUSTER_ROLE_BINDINGS),
    Kind(resources.STORAGE_CLASSES),
    Kind(resources.CSI_DRIVERS),
    Kind(resources.CSI_NODES),
    Kind(resources.CSI_STORAGE_CAPACITIES),
    Kind(resources.VOLUME_ATTACHMENTS),
    Kind(resources.VOLUME_ATTRIBUTES_CLASSES),
    Kind(resources.PRIORITY_CLASSES),
    Kind(resources.RUNTIME_CLASSES),
    Kind(resources.CERTIFICATE_SIGNING_REQUESTS),
    Kind(resources.CLUSTER_TRUST_BUNDLES),
    Kind(resources.POD_CERTIFICATE_REQUESTS),
    Kind(resources.MUTATING_WEBHOOK_CONFIGURATIONS),
    Kind(resources.VALIDATING_WEBHOOK_CONFIGURATIONS),
    Kind(resources.VALIDATING_ADMISSION_POLICIES),
    Kind(resources.VALIDATING_ADMISSION_POLICY_BINDINGS),
    Kind(resources.MUTATING_ADMISSION_POLICIES),
    Kind(resources.MUTATING_ADMISSION_POLICY_BINDINGS),
    Kind(resources.FLOW_SCHEMAS),
    Kind(resources.PRIORITY_LEVEL_CONFIGURATIONS),
    Kind(resources.DEVICE_CLASSES),
    Kind(resources.DEVICE_TAINT_RULES),
    Kind(resources.RESOURCE_CLAIMS),
    Kind(resources.RESOURCE_CLAIM_TEMPLATES),
    Kind(resources.RESOURCE_SLICES),
)

KINDS: dict[tuple[str, str, str], Kind] = {
    (kind.resource.group, kind.resource.version, kind.resource.plural): kind for kind in _ALL
}
"""(group, version, plural) → the kind's rules."""
