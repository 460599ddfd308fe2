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
    list_name: str = ""
    stored_as: Resource | None = None
    """The resource whose objects these are, in another version; None for that one itself."""
    custom: bool = False
    """It comes from a definition of a user's."""
    hidden: bool = False
    """It is only stored, not served."""

    @property
    def list_kind(self) -> str:
        """The kind of lists of it."""
        return self.list_name or f"{self.kind}List"

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
_APPS = "io.k8s.api.apps.v1."
_BATCH = "io.k8s.api.batch.v1."
_AUTOSCALING = "io.k8s.api.autoscaling.v2."
_POLICY = "io.k8s.api.policy.v1."
_NETWORKING = "io.k8s.api.networking.v1."
_RBAC = "io.k8s.api.rbac.v1."
_AUTHORIZATION = "io.k8s.api.authorization.v1."
_STORAGE = "io.k8s.api.storage.v1."
_SCHEDULING = "io.k8s.api.scheduling.v1."
_NODE = "io.k8s.api.node.v1."
_CERTIFICATES = "io.k8s.api.certificates.v1."
_ADMISSION = "io.k8s.api.admissionregistration.v1."
_FLOW_CONTROL = "io.k8s.api.flowcontrol.v1."
_AUTHENTICATION = "io.k8s.api.authentication.v1."
_RESOURCE = "io.k8s.api.resource.v1."

# One line a resource, as a table is read.
# ruff: noqa: E501
# fmt: off
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", "namespace", False, _CORE + "Namespace", ("ns",), subresources=("status", "finalize"), verbs=tuple(v for v in ALL_VERBS if v != "deletecollection"))
NODES = Resource("", "v1", "Node", "nodes", "node", False, _CORE + "Node", ("no",), subresources=("status", "proxy"), storage_prefix="minions")
PODS = Resource("", "v1", "Pod", "pods", "pod", True, _CORE + "Pod", ("po",), ("all",), ("status", "binding", "log", "exec", "attach", "portforward", "eviction", "proxy", "ephemeralcontainers", "resize"))
SERVICES = Resource("", "v1", "Service", "services", "service", True, _CORE + "Service", ("svc",), ("all",), ("status", "proxy"), storage_prefix="services/specs")
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints", "endpoints", True, _CORE + "Endpoints", ("ep",), storage_prefix="services/endpoints")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", True, "io.k8s.api.discovery.v1.EndpointSlice")
EVENTS = Resource("", "v1", "Event", "events", "event", True, _CORE + "Event", ("ev",))
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", "configmap", True, _CORE + "ConfigMap", ("cm",))
SECRETS = Resource("", "v1", "Secret", "secrets", "secret", True, _CORE + "Secret")
SERVICE_ACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", True, _CORE + "ServiceAccount", ("sa",), subresources=("token",))
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", "lease", True, "io.k8s.api.coordination.v1.Lease")
REPLICATION_CONTROLLERS = Resource("", "v1", "ReplicationController", "replicationcontrollers", "replicationcontroller", True, _CORE + "ReplicationController", ("rc",), ("all",), ("status", "scale"), storage_prefix="controllers")
REPLICA_SETS = Resource("apps", "v1", "ReplicaSet", "replicasets", "replicaset", True, "io.k8s.api.apps.v1.ReplicaSet", ("rs",), ("all",), ("status", "scale"))
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", "deployment", True, "io.k8s.api.apps.v1.Deployment", ("deploy",), ("all",), ("status", "scale"))
BINDINGS = Resource("", "v1", "Binding", "bindings", "binding", True, _CORE + "Binding", verbs=("create",))
COMPONENT_STATUSES = Resource("", "v1", "ComponentStatus", "componentstatuses", "componentstatus", False, _CORE + "ComponentStatus", ("cs",), verbs=("get", "list"))
LIMIT_RANGES = Resource("", "v1", "LimitRange", "limitranges", "limitrange", True, _CORE + "LimitRange", ("limits",))
PERSISTENT_VOLUMES = Resource("", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume", False, _CORE + "PersistentVolume", ("pv",), subresources=("status",))
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim", True, _CORE + "PersistentVolumeClaim", ("pvc",), subresources=("status",))
POD_TEMPLATES = Resource("", "v1", "PodTemplate", "podtemplates", "podtemplate", True, _CORE + "PodTemplate")
RESOURCE_QUOTAS = Resource("", "v1", "ResourceQuota", "resourcequotas", "resourcequota", True, _CORE + "ResourceQuota", ("quota",), subresources=("status",))
STATEFUL_SETS = Resource("apps", "v1", "StatefulSet", "statefulsets", "statefulset", True, _APPS + "StatefulSet", ("sts",), ("all",), subresources=("status", "scale"))
DAEMON_SETS = Resource("apps", "v1", "DaemonSet", "daemonsets", "daemonset", True, _APPS + "DaemonSet", ("ds",), ("all",), subresources=("status",))
CONTROLLER_REVISIONS = Resource("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision", True, _APPS + "ControllerRevision")
JOBS = Resource("batch", "v1", "Job", "jobs", "job", True, _BATCH + "Job", categories=("all",), subresources=("status",))
CRON_JOBS = Resource("batch", "v1", "CronJob", "cronjobs", "cronjob", True, _BATCH + "CronJob", ("cj",), ("all",), subresources=("status",))
HORIZONTAL_POD_AUTOSCALERS = Resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "horizontalpodautoscaler", True, _AUTOSCALING + "HorizontalPodAutoscaler", ("hpa",), ("all",), subresources=("status",))
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget", True, _POLICY + "PodDisruptionBudget", ("pdb",), subresources=("status",))
INGRESSES = Resource("networking.k8s.io", "v1", "Ingress", "ingresses", "ingress", True, _NETWORKING + "Ingress", ("ing",), subresources=("status",), storage_prefix="ingress")
INGRESS_CLASSES = Resource("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "ingressclass", False, _NETWORKING + "IngressClass")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "networkpolicy", True, _NETWORKING + "NetworkPolicy", ("netpol",))
SERVICE_CIDRS = Resource("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", "servicecidr", False, _NETWORKING + "ServiceCIDR", subresources=("status",))
IP_ADDRESSES = Resource("networking.k8s.io", "v1", "IPAddress", "ipaddresses", "ipaddress", False, _NETWORKING + "IPAddress", ("ip",))
ROLES = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles", "role", True, _RBAC + "Role")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "clusterrole", False, _RBAC + "ClusterRole")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "rolebinding", True, _RBAC + "RoleBinding")
CLUSTER_ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding", False, _RBAC + "ClusterRoleBinding")
SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview", False, _AUTHORIZATION + "SubjectAccessReview", verbs=("create",))
LOCAL_SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview", True, _AUTHORIZATION + "LocalSubjectAccessReview", verbs=("create",))
SELF_SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview", False, _AUTHORIZATION + "SelfSubjectAccessReview", verbs=("create",))
SELF_SUBJECT_RULES_REVIEWS = Resource("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview", False, _AUTHORIZATION + "SelfSubjectRulesReview", verbs=("create",))
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", "storageclass", False, _STORAGE + "StorageClass", ("sc",))
CSI_DRIVERS = Resource("storage.k8s.io", "v1", "CSIDriver", "csidrivers", "csidriver", False, _STORAGE + "CSIDriver")
CSI_NODES = Resource("storage.k8s.io", "v1", "CSINode", "csinodes", "csinode", False, _STORAGE + "CSINode")
CSI_STORAGE_CAPACITIES = Resource("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities", "csistoragecapacity", True, _STORAGE + "CSIStorageCapacity")
VOLUME_ATTACHMENTS = Resource("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", "volumeattachment", False, _STORAGE + "VolumeAttachment", subresources=("status",))
VOLUME_ATTRIBUTES_CLASSES = Resource("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", "volumeattributesclass", False, _STORAGE + "VolumeAttributesClass", ("vac",))
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "priorityclass", False, _SCHEDULING + "PriorityClass", ("pc",))
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass", False, _NODE + "RuntimeClass")
CERTIFICATE_SIGNING_REQUESTS = Resource("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", "certificatesigningrequest", False, _CERTIFICATES + "CertificateSigningRequest", ("csr",), subresources=("approval", "status"))
CLUSTER_TRUST_BUNDLES = Resource("certificates.k8s.io", "v1", "ClusterTrustBundle", "clustertrustbundles", "clustertrustbundle", False, _CERTIFICATES + "ClusterTrustBundle")
POD_CERTIFICATE_REQUESTS = Resource("certificates.k8s.io", "v1", "PodCertificateRequest", "podcertificaterequests", "podcertificaterequest", True, _CERTIFICATES + "PodCertificateRequest", subresources=("status",))
MUTATING_WEBHOOK_CONFIGURATIONS = Resource("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "mutatingwebhookconfiguration", False, _ADMISSION + "MutatingWebhookConfiguration", categories=("api-extensions",))
VALIDATING_WEBHOOK_CONFIGURATIONS = Resource("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "validatingwebhookconfiguration", False, _ADMISSION + "ValidatingWebhookConfiguration", categories=("api-extensions",))
VALIDATING_ADMISSION_POLICIES = Resource("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", "validatingadmissionpolicy", False, _ADMISSION + "ValidatingAdmissionPolicy", categories=("api-extensions",), subresources=("status",))
VALIDATING_ADMISSION_POLICY_BINDINGS = Resource("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding", False, _ADMISSION + "ValidatingAdmissionPolicyBinding", categories=("api-extensions",))
MUTATING_ADMISSION_POLICIES = Resource("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy", False, _ADMISSION + "MutatingAdmissionPolicy", categories=("api-extensions",))
MUTATING_ADMISSION_POLICY_BINDINGS = Resource("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding", False, _ADMISSION + "MutatingAdmissionPolicyBinding", categories=("api-extensions",))
FLOW_SCHEMAS = Resource("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", "flowschema", False, _FLOW_CONTROL + "FlowSchema", subresources=("status",))
PRIORITY_LEVEL_CONFIGURATIONS = Resource("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", "prioritylevelconfiguration", False, _FLOW_CONTROL + "PriorityLevelConfiguration", subresources=("status",))
DEVICE_CLASSES = Resource("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", "deviceclass", False, _RESOURCE + "DeviceClass")
DEVICE_TAINT_RULES = Resource("resource.k8s.io", "v1", "DeviceTaintRule", "devicetaintrules", "devicetaintrule", False, _RESOURCE + "DeviceTaintRule", subresources=("status",))
RESOURCE_CLAIMS = Resource("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims", "resourceclaim", True, _RESOURCE + "ResourceClaim", subresources=("status",))
RESOURCE_CLAIM_TEMPLATES = Resource("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates", "resourceclaimtemplate", True, _RESOURCE + "ResourceClaimTemplate")
RESOURCE_SLICES = Resource("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", "resourceslice", False, _RESOURCE + "ResourceSlice")
CUSTOM_RESOURCE_DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", "customresourcedefinition", False, "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition", ("crd", "crds"), ("api-extensions",), ("status",), storage_prefix="apiextensions.k8s.io/customresourcedefinitions")
API_SERVICES = Resource("apiregistration.k8s.io", "v1", "APIService", "apiservices", "apiservice", False, "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService", (), ("api-extensions",), ("status",), storage_prefix="apiregistration.k8s.io/apiservices")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", "tokenreview", False, _AUTHENTICATION + "TokenReview", verbs=("create",))
SELF_SUBJECT_REVIEWS = Resource("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", False, _AUTHENTICATION + "SelfSubjectReview", verbs=("create",))
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
    BINDINGS,
    COMPONENT_STATUSES,
    LIMIT_RANGES,
    PERSISTENT_VOLUMES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_TEMPLATES,
    RESOURCE_QUOTAS,
    STATEFUL_SETS,
    DAEMON_SETS,
    CONTROLLER_REVISIONS,
    JOBS,
    CRON_JOBS,
    HORIZONTAL_POD_AUTOSCALERS,
    POD_DISRUPTION_BUDGETS,
    INGRESSES,
    INGRESS_CLASSES,
    NETWORK_POLICIES,
    SERVICE_CIDRS,
    IP_ADDRESSES,
    ROLES,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLE_BINDINGS,
    SUBJECT_ACCESS_REVIEWS,
    LOCAL_SUBJECT_ACCESS_REVIEWS,
    SELF_SUBJECT_ACCESS_REVIEWS,
    SELF_SUBJECT_RULES_REVIEWS,
    STORAGE_CLASSES,
    CSI_DRIVERS,
    CSI_NODES,
    CSI_STORAGE_CAPACITIES,
    VOLUME_ATTACHMENTS,
    VOLUME_ATTRIBUTES_CLASSES,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    CERTIFICATE_SIGNING_REQUESTS,
    CLUSTER_TRUST_BUNDLES,
    POD_CERTIFICATE_REQUESTS,
    MUTATING_WEBHOOK_CONFIGURATIONS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
    MUTATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS,
    FLOW_SCHEMAS,
    PRIORITY_LEVEL_CONFIGURATIONS,
    DEVICE_CLASSES,
    DEVICE_TAINT_RULES,
    RESOURCE_CLAIMS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_SLICES,
    CUSTOM_RESOURCE_DEFINITIONS,
    API_SERVICES,
    TOKEN_REVIEWS,
    SELF_SUBJECT_REVIEWS,
)

BY_KIND: dict[tuple[str, str, str], Resource] = {(r.group, r.version, r.kind): r for r in RESOURCES}
