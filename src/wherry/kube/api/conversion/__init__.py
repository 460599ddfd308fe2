"""Old versions of the API: the same objects, as manifests and clients of the past write them.

An object is stored in one version. A request in another one is answered by conversion: the body to
the stored form before it is judged, the answer back. A module here says how a family of kinds
differed, in the shape of `version.Conversion`; `schemas` derives what they looked like from the
present definitions. `VERSIONS` lists all: adding one is a line there, and a module where it differs
in more than its name.

https://kubernetes.io/docs/reference/using-api/deprecation-guide/
"""

from __future__ import annotations

from dataclasses import replace

from wherry.kube.api import resources as r
from wherry.kube.api.conversion import (
    autoscaling,
    certificates,
    definitions,
    disruption_budget,
    endpoint_slice,
    event,
    flow_control,
    ingress,
    webhooks,
    workloads,
)
from wherry.kube.api.conversion.version import Conversion, OldVersion
from wherry.kube.api.kinds import KINDS
from wherry.kube.api.resources import Resource

__all__ = ["VERSIONS", "Conversion", "OldVersion"]

_SAME = Conversion()


def _old(
    group_version: str,
    stored: Resource,
    since: str = "",
    until: str = "",
    conversion: Conversion = _SAME,
    *,
    use: str = "",
) -> OldVersion:
    """A line of the table: ``stored`` was also served in ``group_version``, deprecated ``since``
    one release of Kubernetes and gone with another. ``use`` is what the warning recommends, the
    stored version where empty."""
    group, _, version = group_version.rpartition("/")
    package, _, kind = stored.schema.rpartition(".")
    stem = package.rpartition(".")[0]
    if group != stored.group:
        stem = f"io.k8s.api.{group.partition('.')[0]}"
    resource = replace(
        stored,
        group=group,
        version=version,
        schema=f"{stem}.{version}.{kind}",
        stored_as=stored,
        # Of two groups with the same kind, short names and categories mean the present one.
        short_names=stored.short_names if group != "extensions" else (),
        categories=stored.categories if group == stored.group else (),
    )
    deprecation = ""
    if since:
        deprecation = (
            f"{group_version} {stored.kind} is deprecated in v{since}+, "
            f"unavailable in v{until}+; use {use or f'{stored.api_version} {stored.kind}'}"
        )
    kind_of = KINDS[stored.group, stored.version, stored.plural]
    return OldVersion(resource, kind_of, conversion, deprecation)


# One line a version, as a table is read.
# ruff: noqa: E501
# fmt: off
VERSIONS: tuple[OldVersion, ...] = (
    _old("extensions/v1beta1", r.INGRESSES, "1.14", "1.22", ingress.INGRESS),
    _old("extensions/v1beta1", r.DEPLOYMENTS, "1.8", "1.16", workloads.DEPLOYMENT_EXTENSIONS),
    _old("extensions/v1beta1", r.REPLICA_SETS, "1.8", "1.16", workloads.REPLICA_SET_EXTENSIONS),
    _old("extensions/v1beta1", r.DAEMON_SETS, "1.8", "1.16", workloads.DAEMON_SET_EXTENSIONS),
    _old("extensions/v1beta1", r.NETWORK_POLICIES, "1.9", "1.16"),
    _old("apps/v1beta1", r.DEPLOYMENTS, "1.8", "1.16", workloads.DEPLOYMENT_V1BETA1),
    _old("apps/v1beta1", r.STATEFUL_SETS, "1.8", "1.16", workloads.STATEFUL_SET_V1BETA1),
    _old("apps/v1beta1", r.CONTROLLER_REVISIONS, "1.8", "1.16"),
    _old("apps/v1beta2", r.DEPLOYMENTS, "1.9", "1.16", workloads.V1BETA2),
    _old("apps/v1beta2", r.STATEFUL_SETS, "1.9", "1.16", workloads.V1BETA2),
    _old("apps/v1beta2", r.DAEMON_SETS, "1.9", "1.16", workloads.V1BETA2),
    _old("apps/v1beta2", r.REPLICA_SETS, "1.9", "1.16", workloads.V1BETA2),
    _old("apps/v1beta2", r.CONTROLLER_REVISIONS, "1.9", "1.16"),
    _old("networking.k8s.io/v1beta1", r.INGRESSES, "1.19", "1.22", ingress.INGRESS),
    _old("networking.k8s.io/v1beta1", r.INGRESS_CLASSES, "1.19", "1.22", use="networking.k8s.io/v1 IngressClassList"),
    _old("networking.k8s.io/v1beta1", r.IP_ADDRESSES, "1.34", "1.37"),
    _old("networking.k8s.io/v1beta1", r.SERVICE_CIDRS, "1.34", "1.37"),
    _old("batch/v1beta1", r.CRON_JOBS, "1.21", "1.25", workloads.CRON_JOB),
    _old("policy/v1beta1", r.POD_DISRUPTION_BUDGETS, "1.21", "1.25", disruption_budget.PDB),
    _old("autoscaling/v1", r.HORIZONTAL_POD_AUTOSCALERS, conversion=autoscaling.V1),
    _old("autoscaling/v2beta1", r.HORIZONTAL_POD_AUTOSCALERS, "1.22", "1.25", autoscaling.V2BETA1),
    _old("autoscaling/v2beta2", r.HORIZONTAL_POD_AUTOSCALERS, "1.23", "1.26"),
    _old("discovery.k8s.io/v1beta1", r.ENDPOINT_SLICES, "1.21", "1.25", endpoint_slice.ENDPOINT_SLICE),
    _old("events.k8s.io/v1", r.EVENTS, conversion=event.EVENT),
    _old("events.k8s.io/v1beta1", r.EVENTS, "1.22", "1.25", event.EVENT, use="events.k8s.io/v1 Event"),
    _old("rbac.authorization.k8s.io/v1beta1", r.ROLES, "1.17", "1.22"),
    _old("rbac.authorization.k8s.io/v1beta1", r.CLUSTER_ROLES, "1.17", "1.22"),
    _old("rbac.authorization.k8s.io/v1beta1", r.ROLE_BINDINGS, "1.17", "1.22"),
    _old("rbac.authorization.k8s.io/v1beta1", r.CLUSTER_ROLE_BINDINGS, "1.17", "1.22"),
    _old("storage.k8s.io/v1beta1", r.STORAGE_CLASSES, "1.19", "1.22"),
    _old("storage.k8s.io/v1beta1", r.CSI_DRIVERS, "1.19", "1.22"),
    _old("storage.k8s.io/v1beta1", r.CSI_NODES, "1.17", "1.22"),
    _old("storage.k8s.io/v1beta1", r.VOLUME_ATTACHMENTS, "1.19", "1.22"),
    _old("storage.k8s.io/v1beta1", r.CSI_STORAGE_CAPACITIES, "1.24", "1.27"),
    _old("storage.k8s.io/v1beta1", r.VOLUME_ATTRIBUTES_CLASSES, "1.34", "1.37"),
    _old("scheduling.k8s.io/v1beta1", r.PRIORITY_CLASSES, "1.14", "1.22"),
    _old("coordination.k8s.io/v1beta1", r.LEASES, "1.19", "1.22"),
    _old("admissionregistration.k8s.io/v1beta1", r.MUTATING_WEBHOOK_CONFIGURATIONS, "1.16", "1.22", webhooks.WEBHOOKS),
    _old("admissionregistration.k8s.io/v1beta1", r.VALIDATING_WEBHOOK_CONFIGURATIONS, "1.16", "1.22", webhooks.WEBHOOKS),
    _old("admissionregistration.k8s.io/v1beta1", r.VALIDATING_ADMISSION_POLICIES, "1.31", "1.34"),
    _old("admissionregistration.k8s.io/v1beta1", r.VALIDATING_ADMISSION_POLICY_BINDINGS, "1.31", "1.34"),
    _old("certificates.k8s.io/v1beta1", r.CERTIFICATE_SIGNING_REQUESTS, "1.19", "1.22", certificates.CSR),
    _old("apiextensions.k8s.io/v1beta1", r.CUSTOM_RESOURCE_DEFINITIONS, "1.16", "1.22", definitions.DEFINITION),
    _old("apiregistration.k8s.io/v1beta1", r.API_SERVICES, "1.19", "1.22"),
    _old("flowcontrol.apiserver.k8s.io/v1beta1", r.FLOW_SCHEMAS, "1.23", "1.26"),
    _old("flowcontrol.apiserver.k8s.io/v1beta1", r.PRIORITY_LEVEL_CONFIGURATIONS, "1.23", "1.26", flow_control.PRIORITY_LEVEL),
    _old("flowcontrol.apiserver.k8s.io/v1beta2", r.FLOW_SCHEMAS, "1.26", "1.29"),
    _old("flowcontrol.apiserver.k8s.io/v1beta2", r.PRIORITY_LEVEL_CONFIGURATIONS, "1.26", "1.29", flow_control.PRIORITY_LEVEL),
    _old("flowcontrol.apiserver.k8s.io/v1beta3", r.FLOW_SCHEMAS, "1.29", "1.32"),
    _old("flowcontrol.apiserver.k8s.io/v1beta3", r.PRIORITY_LEVEL_CONFIGURATIONS, "1.29", "1.32"),
    _old("node.k8s.io/v1beta1", r.RUNTIME_CLASSES, "1.22", "1.25"),
)
# fmt: on
