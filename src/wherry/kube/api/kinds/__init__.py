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
from wherry.kube.api.kinds.admission_policies import (
    MutatingAdmissionPolicy,
    MutatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
)
from wherry.kube.api.kinds.api_service import APIService
from wherry.kube.api.kinds.autoscaler import HorizontalPodAutoscaler
from wherry.kube.api.kinds.base import Column, Kind
from wherry.kube.api.kinds.certificates import CertificateSigningRequest
from wherry.kube.api.kinds.component_status import ComponentStatus
from wherry.kube.api.kinds.config_map import ConfigMap
from wherry.kube.api.kinds.controller_revision import ControllerRevision
from wherry.kube.api.kinds.cron_job import CronJob
from wherry.kube.api.kinds.csi import CSIDriver, CSINode, CSIStorageCapacity, VolumeAttachment
from wherry.kube.api.kinds.custom_resource_definition import CustomResourceDefinition
from wherry.kube.api.kinds.daemon_set import DaemonSet
from wherry.kube.api.kinds.deployment import Deployment
from wherry.kube.api.kinds.device import (
    ResourceClaim,
    ResourceClaimTemplate,
    ResourceSlice,
    Specified,
)
from wherry.kube.api.kinds.disruption_budget import PodDisruptionBudget
from wherry.kube.api.kinds.endpoint_slice import EndpointSlice
from wherry.kube.api.kinds.endpoints import Endpoints
from wherry.kube.api.kinds.event import Event
from wherry.kube.api.kinds.flow_control import FlowSchema, PriorityLevelConfiguration
from wherry.kube.api.kinds.ingress import Ingress, IngressClass
from wherry.kube.api.kinds.job import Job
from wherry.kube.api.kinds.lease import Lease
from wherry.kube.api.kinds.limit_range import LimitRange
from wherry.kube.api.kinds.namespace import Namespace
from wherry.kube.api.kinds.network_policy import NetworkPolicy
from wherry.kube.api.kinds.node import Node
from wherry.kube.api.kinds.persistent_volume import PersistentVolume
from wherry.kube.api.kinds.persistent_volume_claim import PersistentVolumeClaim
from wherry.kube.api.kinds.pod import Pod
from wherry.kube.api.kinds.pod_template import PodTemplate
from wherry.kube.api.kinds.priority_class import PriorityClass
from wherry.kube.api.kinds.replica_set import ReplicaSet
from wherry.kube.api.kinds.replication_controller import ReplicationController
from wherry.kube.api.kinds.resource_quota import ResourceQuota
from wherry.kube.api.kinds.roles import Role, RoleBinding
from wherry.kube.api.kinds.runtime_class import RuntimeClass
from wherry.kube.api.kinds.secret import Secret
from wherry.kube.api.kinds.service import Service
from wherry.kube.api.kinds.service_account import ServiceAccount
from wherry.kube.api.kinds.service_ranges import IPAddress, ServiceCIDR
from wherry.kube.api.kinds.stateful_set import StatefulSet
from wherry.kube.api.kinds.storage_classes import StorageClass, VolumeAttributesClass
from wherry.kube.api.kinds.webhooks import (
    MutatingWebhookConfiguration,
    ValidatingWebhookConfiguration,
)

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
    ComponentStatus(resources.COMPONENT_STATUSES),
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
    Ingress(resources.INGRESSES),
    IngressClass(resources.INGRESS_CLASSES),
    NetworkPolicy(resources.NETWORK_POLICIES),
    ServiceCIDR(resources.SERVICE_CIDRS),
    IPAddress(resources.IP_ADDRESSES),
    Role(resources.ROLES),
    Role(resources.CLUSTER_ROLES),
    RoleBinding(resources.ROLE_BINDINGS),
    RoleBinding(resources.CLUSTER_ROLE_BINDINGS),
    Kind(resources.SUBJECT_ACCESS_REVIEWS),
    Kind(resources.LOCAL_SUBJECT_ACCESS_REVIEWS),
    Kind(resources.SELF_SUBJECT_ACCESS_REVIEWS),
    Kind(resources.SELF_SUBJECT_RULES_REVIEWS),
    StorageClass(resources.STORAGE_CLASSES),
    CSIDriver(resources.CSI_DRIVERS),
    CSINode(resources.CSI_NODES),
    CSIStorageCapacity(resources.CSI_STORAGE_CAPACITIES),
    VolumeAttachment(resources.VOLUME_ATTACHMENTS),
    VolumeAttributesClass(resources.VOLUME_ATTRIBUTES_CLASSES),
    PriorityClass(resources.PRIORITY_CLASSES),
    RuntimeClass(resources.RUNTIME_CLASSES),
    CertificateSigningRequest(resources.CERTIFICATE_SIGNING_REQUESTS),
    Kind(resources.CLUSTER_TRUST_BUNDLES),
    Kind(resources.POD_CERTIFICATE_REQUESTS),
    MutatingWebhookConfiguration(resources.MUTATING_WEBHOOK_CONFIGURATIONS),
    ValidatingWebhookConfiguration(resources.VALIDATING_WEBHOOK_CONFIGURATIONS),
    ValidatingAdmissionPolicy(resources.VALIDATING_ADMISSION_POLICIES),
    ValidatingAdmissionPolicyBinding(resources.VALIDATING_ADMISSION_POLICY_BINDINGS),
    MutatingAdmissionPolicy(resources.MUTATING_ADMISSION_POLICIES),
    MutatingAdmissionPolicyBinding(resources.MUTATING_ADMISSION_POLICY_BINDINGS),
    FlowSchema(resources.FLOW_SCHEMAS),
    PriorityLevelConfiguration(resources.PRIORITY_LEVEL_CONFIGURATIONS),
    Specified(resources.DEVICE_CLASSES),
    Specified(resources.DEVICE_TAINT_RULES),
    ResourceClaim(resources.RESOURCE_CLAIMS),
    ResourceClaimTemplate(resources.RESOURCE_CLAIM_TEMPLATES),
    ResourceSlice(resources.RESOURCE_SLICES),
    CustomResourceDefinition(resources.CUSTOM_RESOURCE_DEFINITIONS),
    APIService(resources.API_SERVICES),
    Kind(resources.TOKEN_REVIEWS),
    Kind(resources.SELF_SUBJECT_REVIEWS),
)

KINDS: dict[tuple[str, str, str], Kind] = {
    (kind.resource.group, kind.resource.version, kind.resource.plural): kind for kind in _ALL
}
"""(group, version, plural) → the kind's rules."""
