"""What a cluster must hold so that the metrics server is reached and may do its work.

The names and rules are those of metrics-server's own manifests. There is no Deployment, and no
Service unless it runs apart: in the API server's process it is found without one.
"""

from __future__ import annotations

import base64

from wherry.kube.api.endpoint_slices import SERVICE_NAME
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    API_SERVICES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ENDPOINT_SLICES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from wherry.kube.client.client import Client
from wherry.kube.client.transport import Object
from wherry.kube.metrics.answers import GROUP, VERSION

NAMESPACE, NAME = "kube-system", "metrics-server"
_LABELS = {"k8s-app": NAME}
_AGGREGATE = {
    f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("admin", "edit", "view")
}
_READ = ["get", "list", "watch"]
_RBAC = "rbac.authorization.k8s.io"


def objects(authority: bytes) -> list[tuple[Resource, Object]]:
    """All of it, in the order in which it is made.

    Args:
        authority: what the server's certificate comes from, PEM; without, any is believed.
    """
    trust: Object = {"insecureSkipTLSVerify": True}
    if authority:
        trust = {"caBundle": base64.b64encode(authority).decode()}
    reader = {"apiGroups": [GROUP], "resources": ["pods", "nodes"], "verbs": _READ}
    own = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": _READ},
    ]
    aggregated = _object(CLUSTER_ROLES, "system:aggregated-metrics-reader", rules=[reader])
    aggregated["metadata"]["labels"] = {**_LABELS, **_AGGREGATE}
    return [
        (SERVICE_ACCOUNTS, _object(SERVICE_ACCOUNTS, NAME, NAMESPACE)),
        (CLUSTER_ROLES, aggregated),
        (CLUSTER_ROLES, _object(CLUSTER_ROLES, "system:metrics-server", rules=own)),
        (
            ROLE_BINDINGS,
            _binding(
                ROLE_BINDINGS,
                "metrics-server-auth-reader",
                ("Role", "extension-apiserver-authentication-reader"),
                NAMESPACE,
            ),
        ),
        *(
            (CLUSTER_ROLE_BINDINGS, _binding(CLUSTER_ROLE_BINDINGS, name, ("ClusterRole", role)))
            for name, role in (
                ("metrics-server:system:auth-delegator", "system:auth-delegator"),
                ("system:metrics-server", "system:metrics-server"),
            )
        ),
        (
            API_SERVICES,
            _object(
                API_SERVICES,
                f"{VERSION}.{GROUP}",
                spec={
                    "group": GROUP,
                    "version": VERSION,
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "service": {"name": NAME, "namespace": NAMESPACE, "port": 443},
                    **trust,
                },
            ),
        ),
    ]


def service(address: str, port: int) -> list[tuple[Resource, Object]]:
    """The Service of a server that runs apart, at that address."""
    piece = _object(ENDPOINT_SLICES, NAME, NAMESPACE)
    piece["metadata"]["labels"][SERVICE_NAME] = NAME
    piece |= {
        "addressType": "IPv6" if ":" in address else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
    return [
        (SERVICES, _object(SERVICES, NAME, NAMESPACE, spec={"ports": ports})),
        (ENDPOINT_SLICES, piece),
    ]


async def install(client: Client, wanted: list[tuple[Resource, Object]]) -> None:
    """Make what is not there; what is there is somebody's and stays. Raises StatusError."""
    for resource, o in wanted:
        try:
            await client.create(resource, o)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise


def _object(resource: Resource, name: str, namespace: str = "", **body: object) -> Object:
    metadata: Object = {"name": name, "labels": dict(_LABELS)}
    if namespace:
        metadata["namespace"] = namespace
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        **body,
    }


def _binding(resource: Resource, name: str, role: tuple[str, str], namespace: str = "") -> Object:
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    reference = {"apiGroup": _RBAC, "kind": role[0], "name": role[1]}
    return _object(resource, name, namespace, roleRef=reference, subjects=[subject])
