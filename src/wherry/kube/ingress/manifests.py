"""What a cluster needs to have the controller in pods, in the three usual shapes.

- ``loadbalancer``: a Deployment behind a Service of type LoadBalancer
- ``nodeport``: the same behind one of type NodePort
- ``daemonset``: on every node that the selector chooses, in its own network
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wherry.kube.ingress.world import CONTROLLER

Object = dict[str, Any]

KINDS: Final = ("loadbalancer", "nodeport", "daemonset")
NAMESPACE: Final = "ingress-nginx"
NAME: Final = "ingress-nginx-controller"
LEASE: Final = "ingress-nginx-leader"
_ACCOUNT: Final = "ingress-nginx"
_LABELS: Final = {
    "app.kubernetes.io/name": "ingress-nginx",
    "app.kubernetes.io/component": "controller",
}
_WATCH: Final = ["get", "list", "watch"]


def manifests(
    kind: str,
    image: str,
    *,
    http: int = 80,
    https: int = 443,
    selector: Mapping[str, str] | None = None,
) -> list[Object]:
    """The objects, in the order in which they are to be made.

    Args:
        kind: one of ``KINDS``.
        image: of the controller.
        http: where it listens; on the machines' own addresses as a DaemonSet.
        https: likewise.
        selector: the labels of the nodes it may run on.
    """
    labels = dict(_LABELS)
    result = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _own(_ACCOUNT)},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _own(NAME)},
        {**_rbac("ClusterRole"), "metadata": {"name": _ACCOUNT}, "rules": _rules()},
        {**_binding("ClusterRole"), "metadata": {"name": _ACCOUNT}},
        {**_rbac("Role"), "metadata": _own(_ACCOUNT), "rules": _leading()},
        {**_binding("Role"), "metadata": _own(_ACCOUNT)},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {
                "name": "nginx",
                "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
            },
            "spec": {"controller": CONTROLLER},
        },
    ]
    alone = kind == "daemonset"
    pod = _pod(image, http, https, alone=alone)
    pod["nodeSelector"] = {"kubernetes.io/os": "linux", **(selector or {})}
    spec = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    result.append(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet" if alone else "Deployment",
            "metadata": _own(NAME),
            "spec": spec if alone else {"replicas": 1, **spec},
        }
    )
    if not alone:
        ports = [
            {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
            for name, port in (("http", 80), ("https", 443))
        ]
        service: Object = {"selector": labels, "ports": ports}
        # The clients' own addresses arrive, for the log and for lists of who may come.
        service["externalTrafficPolicy"] = "Local"
        service["type"] = "LoadBalancer" if kind == "loadbalancer" else "NodePort"
        result.append(
            {"apiVersion": "v1", "kind": "Service", "metadata": _own(NAME), "spec": service}
        )
    return result


def _own(name: str) -> Object:
    return {"name": name, "namespace": NAMESPACE, "labels": dict(_LABELS)}


def _rbac(kind: str) -> Object:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind}


def _binding(role: str) -> Object:
    """Of our account to a role that is called as it is."""
    return {
        **_rbac(f"{role}Binding"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": _ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": NAMESPACE}],
    }


def _rule(group: str, resources: list[str], verbs: list[str]) -> Object:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _leading() -> list[Object]:
    """To be the one that writes statuses."""
    lease = _rule("coordination.k8s.io", ["leases"], [*_WATCH, "update"])
    return [
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        {**lease, "resourceNames": [LEASE]},
    ]


def _rules() -> list[Object]:
    return [
        _rule("networking.k8s.io", ["ingresses", "ingressclasses"], _WATCH),
        _rule("networking.k8s.io", ["ingresses/status"], ["update"]),
        _rule("", ["configmaps", "services", "secrets", "pods", "nodes"], _WATCH),
        # Whether others serve on where one ends.
        _rule("", ["namespaces"], ["get"]),
        _rule("apps", ["daemonsets", "replicasets"], ["get"]),
        _rule("discovery.k8s.io", ["endpointslices"], _WATCH),
        _rule("", ["events"], ["create", "patch"]),
        _rule("events.k8s.io", ["events"], ["create", "patch"]),
    ]


def _pod(image: str, http: int, https: int, *, alone: bool) -> Object:
    args = [f"--election-id={LEASE}", f"--http-port={http}", f"--https-port={https}"]
    if not alone:  # else it is reached at the nodes on which it runs
        args.insert(0, f"--publish-service={NAMESPACE}/{NAME}")
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
    probe = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2}
    container = {
        "name": "controller",
        "image": image,
        "args": args,
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ],
        "ports": [
            {"name": name, "containerPort": port}
            for name, port in (("http", http), ("https", https))
        ],
        "readinessProbe": probe,
        "livenessProbe": {**probe, "initialDelaySeconds": 10, "periodSeconds": 10},
    }
    pod: Object = {"serviceAccountName": _ACCOUNT, "containers": [container]}
    if alone:
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return pod
