"""Admission: what the cluster adds to a write, and what it refuses, after authorisation.

Two tables say in which order a write meets the plugins; the order is upstream's
(https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/):

    read, default ─► MUTATING ─► the kind's rules ─► VALIDATING ─► store

A plugin is a module with ``admit`` (may change ``attributes.object``) or ``validate`` (may not), or
both: functions of `Attributes` and `Context` that return, or raise StatusError. Its line says which
writes it wants to see, so that others cost nothing. Adding one is a module and a line here.
Deletes, each of a collection too, and connections (exec, attach, portforward, proxy) pass as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from wherry.kube.api.resources import (
    CERTIFICATE_SIGNING_REQUESTS,
    EVENTS,
    INGRESSES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    PRIORITY_CLASSES,
    SERVICES,
)
from wherry.kube.apiserver.admission import (
    certificates,
    claim_resize,
    default_classes,
    limit_ranger,
    namespace_lifecycle,
    new_nodes,
    node_restriction,
    priority,
    resource_quota,
    runtime_class,
    service_account,
    storage_protection,
    toleration_seconds,
    topology_labels,
)
from wherry.kube.apiserver.admission.attributes import Attributes, of
from wherry.kube.apiserver.admission.configuration import AdmissionOptions
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.optional import event_rates, lazy
from wherry.kube.apiserver.admission.plugin import EVERYTHING, Chain, Plugin, on
from wherry.kube.apiserver.admission.pod_security import plugin as pod_security
from wherry.kube.apiserver.admission.policies import plugin as policies
from wherry.kube.apiserver.admission.webhooks import plugin as webhooks
from wherry.kube.apiserver.metrics import ADMISSION_STEPS

__all__ = [
    "MUTATING",
    "ORDER",
    "VALIDATING",
    "Admission",
    "AdmissionOptions",
    "Attributes",
    "Context",
    "of",
]

ORDER = (
    "NamespaceAutoProvision",
    "NamespaceLifecycle",
    "NamespaceExists",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "PodSecurity",
    "PodNodeSelector",
    "Priority",
    "DefaultTolerationSeconds",
    "PodTolerationRestriction",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
)
"""The names of all plugins in upstream's order, which both tables keep."""

_PODS = (on("CREATE UPDATE", PODS),)
_WRITES = on("CREATE UPDATE DELETE", subresources=None)

MUTATING: tuple[Plugin, ...] = (
    Plugin(
        "NamespaceAutoProvision",
        lazy("namespaces", "provide"),
        (on("CREATE", subresources=None),),
        default=False,
    ),
    Plugin("NamespaceLifecycle", namespace_lifecycle.admit, (_WRITES,)),
    Plugin("LimitRanger", limit_ranger.admit, (on("CREATE", PODS),)),
    Plugin("ServiceAccount", service_account.admit, (on("CREATE", PODS),)),
    Plugin(
        "NodeRestriction",
        node_restriction.admit,
        (on("", *node_restriction.CONCERNED, subresources=None),),
    ),
    Plugin("TaintNodesByCondition", new_nodes.admit, (on("CREATE", NODES),)),
    Plugin("AlwaysPullImages", lazy("always_pull", "admit"), _PODS, default=False),
    Plugin("PodNodeSelector", lazy("node_selector", "admit"), (on("CREATE", PODS),), default=False),
    Plugin("Priority", priority.admit, (on("CREATE UPDATE", PODS),)),
    Plugin("DefaultTolerationSeconds", toleration_seconds.admit, (on("CREATE UPDATE", PODS),)),
    Plugin(
        "PodTolerationRestriction", lazy("toleration_restriction", "admit"), _PODS, default=False
    ),
    Plugin("ExtendedResourceToleration", lazy("device_tolerations", "admit"), _PODS, default=False),
    Plugin(
        "DefaultStorageClass", default_classes.storage, (on("CREATE", PERSISTENT_VOLUME_CLAIMS),)
    ),
    Plugin(
        "StorageObjectInUseProtection",
        storage_protection.admit,
        (on("CREATE", PERSISTENT_VOLUMES, PERSISTENT_VOLUME_CLAIMS),),
    ),
    Plugin("RuntimeClass", runtime_class.admit, (on("CREATE", PODS),)),
    Plugin("DefaultIngressClass", default_classes.ingress, (on("CREATE", INGRESSES),)),
    Plugin(
        "PodTopologyLabels",
        topology_labels.admit,
        (on("CREATE", PODS, subresources=("", "binding")),),
    ),
    Plugin("MutatingAdmissionPolicy", policies.admit, (EVERYTHING,)),
    Plugin("MutatingAdmissionWebhook", webhooks.admit, (EVERYTHING,)),
)

VALIDATING: tuple[Plugin, ...] = (
    Plugin(
        "NamespaceExists",
        lazy("namespaces", "exists"),
        (on("CREATE UPDATE DELETE", subresources=None),),
        default=False,
    ),
    Plugin(
        "LimitPodHardAntiAffinityTopology",
        lazy("host_anti_affinity", "validate"),
        _PODS,
        default=False,
    ),
    Plugin(
        "LimitRanger",
        limit_ranger.validate,
        (
            on("CREATE", PODS),
            on("UPDATE", PODS, subresources=("resize",)),
            on("CREATE UPDATE", PERSISTENT_VOLUME_CLAIMS),
        ),
    ),
    Plugin("ServiceAccount", service_account.validate, (on("CREATE", PODS),)),
    Plugin("AlwaysPullImages", lazy("always_pull", "validate"), _PODS, default=False),
    Plugin(
        "PodSecurity",
        pod_security.validate,
        (
            on("CREATE UPDATE", PODS, subresources=("", "ephemeralcontainers")),
            on("CREATE UPDATE", NAMESPACES, *pod_security.WORKLOADS),
        ),
        prepare=pod_security.Configuration,
    ),
    Plugin(
        "PodNodeSelector", lazy("node_selector", "validate"), (on("CREATE", PODS),), default=False
    ),
    Plugin("Priority", priority.validate, (on("CREATE UPDATE", PRIORITY_CLASSES),)),
    Plugin(
        "PodTolerationRestriction",
        lazy("toleration_restriction", "validate"),
        _PODS,
        default=False,
    ),
    Plugin(
        "EventRateLimit",
        lazy("event_rate", "validate"),
        (on("CREATE UPDATE", EVENTS),),
        default=False,
        prepare=event_rates,
    ),
    Plugin(
        "OwnerReferencesPermissionEnforcement",
        lazy("owner_references", "validate"),
        (on("CREATE UPDATE", subresources=None),),
        default=False,
    ),
    Plugin(
        "PersistentVolumeClaimResize",
        claim_resize.validate,
        (on("UPDATE", PERSISTENT_VOLUME_CLAIMS),),
    ),
    Plugin("RuntimeClass", runtime_class.validate, (on("CREATE", PODS),)),
    Plugin(
        "CertificateApproval",
        certificates.approve,
        (on("UPDATE", CERTIFICATE_SIGNING_REQUESTS, subresources=("approval",)),),
    ),
    Plugin(
        "CertificateSigning",
        certificates.sign,
        (on("UPDATE", CERTIFICATE_SIGNING_REQUESTS, subresources=("status",)),),
    ),
    Plugin(
        "CertificateSubjectRestriction",
        certificates.restrict_subject,
        (on("CREATE", CERTIFICATE_SIGNING_REQUESTS),),
    ),
    Plugin(
        "DenyServiceExternalIPs",
        lazy("external_ips", "validate"),
        (on("CREATE UPDATE", SERVICES),),
        default=False,
    ),
    Plugin("ValidatingAdmissionPolicy", policies.validate, (EVERYTHING,)),
    Plugin("ValidatingAdmissionWebhook", webhooks.validate, (EVERYTHING,)),
    Plugin(
        "ResourceQuota",
        resource_quota.validate,
        (on("CREATE UPDATE"), on("UPDATE", PODS, subresources=("resize",))),
        prepare=resource_quota.Ledger,
    ),
)


class Admission:
    """The chains of one server, of the plugins that are on.

    Raises:
        ValueError: the options name a plugin that there is not, or its configuration is wrong.
    """

    def __init__(self, context: Context, options: AdmissionOptions) -> None:
        options.check(plugin.name for plugin in (*MUTATING, *VALIDATING))
        for plugin in (*_wanted(MUTATING, options), *_wanted(VALIDATING, options)):
            if plugin.prepare is not None:
                context.part(plugin.prepare)
        self._mutate = Chain(_wanted(MUTATING, options), context)
        self._validate = Chain(_wanted(VALIDATING, options), context)

    async def mutate(self, attributes: Attributes) -> None:
        """Lead a write through those who may change it; twice, if one of them asks for it."""
        with _Step("admit", attributes.operation):
            await self._mutate(attributes)
            if attributes.reinvoke:
                attributes.reinvoke, attributes.reinvoking = False, True
                await self._mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        """Lead a write through those who may refuse it."""
        with _Step("validate", attributes.operation):
            await self._validate(attributes)

    async def admit(self, attributes: Attributes) -> None:
        """Both chains, where there are no rules of a kind between them: deletes, connections."""
        await self.mutate(attributes)
        await self.validate(attributes)


class _Step:
    """Measures one of the two chains."""

    __slots__ = ("_kind", "_operation", "_started")

    def __init__(self, kind: str, operation: str) -> None:
        self._kind, self._operation = kind, operation

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        rejected = "false" if failure is None else "true"
        seconds = time.perf_counter() - self._started
        ADMISSION_STEPS.observe((self._operation, rejected, self._kind), seconds)


def _wanted(plugins: Iterable[Plugin], options: AdmissionOptions) -> Iterable[Plugin]:
    return (p for p in plugins if options.wants(p.name, default=p.default))
