"""One object of each kind that can be created."""

from __future__ import annotations

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wherry.kube.api.resources import RESOURCES, Resource

Object = dict[str, Any]

LABELS = {"app": "web"}
CONTAINERS = [{"name": "c", "image": "busybox"}]
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": CONTAINERS}}
ONCE = {"spec": {"containers": CONTAINERS, "restartPolicy": "Never"}}
SELECTOR = {"matchLabels": LABELS}
REPLICATED = {"selector": SELECTOR, "template": TEMPLATE}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
VOLUME = {
    "accessModes": ["ReadWriteOnce"],
    "capacity": {"storage": "1Gi"},
    "hostPath": {"path": "/tmp"},
}
RULES = {
    "apiGroups": [""],
    "apiVersions": ["v1"],
    "operations": ["CREATE"],
    "resources": ["configmaps"],
}
MATCH = {"resourceRules": [RULES]}
PATCH = {"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}


def request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


def webhook() -> Object:
    return {
        "name": "a.b.example",
        "clientConfig": {"service": {"name": "s", "namespace": "default"}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "rules": [{**RULES, "resources": ["nothings"]}],
    }


BODIES: dict[str, Object] = {
    "CertificateSigningRequest": {
        "spec": {
            "request": request(),
            "signerName": "example.com/test",
            "usages": ["client auth"],
        }
    },
    "ClusterRoleBinding": {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    },
    "ControllerRevision": {"data": {"a": 1}, "revision": 1},
    "CronJob": {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": ONCE}}}},
    "CSIStorageCapacity": {"storageClassName": "fast"},
    "APIService": {
        "spec": {
            "group": "example.com",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 10,
        }
    },
    "CustomResourceDefinition": {
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "its", "kind": "It"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }
            ],
        }
    },
    "DaemonSet": {"spec": REPLICATED},
    "Deployment": {"spec": REPLICATED},
    "EndpointSlice": {"addressType": "IPv4", "endpoints": []},
    "Event": {"involvedObject": {"namespace": "default"}},
    "FlowSchema": {"spec": {"priorityLevelConfiguration": {"name": "p"}}},
    "HorizontalPodAutoscaler": {
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}
    },
    "Ingress": {"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}},
    "IngressClass": {"spec": {"controller": "example.com/it"}},
    "IPAddress": {
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "s"}}
    },
    "Job": {"spec": {"template": ONCE}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}},
    "MutatingAdmissionPolicy": {
        "spec": {"matchConstraints": MATCH, "mutations": [PATCH], "failurePolicy": "Ignore"}
    },
    "MutatingAdmissionPolicyBinding": {"spec": {"policyName": "nothing"}},
    "MutatingWebhookConfiguration": {"webhooks": [webhook()]},
    "PersistentVolume": {"spec": VOLUME},
    "PersistentVolumeClaim": {"spec": CLAIM},
    "Pod": {"spec": {"containers": CONTAINERS}},
    "PodDisruptionBudget": {"spec": {"minAvailable": 1, "selector": SELECTOR}},
    "PodTemplate": {"template": TEMPLATE},
    "PriorityClass": {"value": 5},
    "PriorityLevelConfiguration": {
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}
    },
    "ReplicaSet": {"spec": REPLICATED},
    "ReplicationController": {"spec": {"template": TEMPLATE}},
    "ResourceQuota": {"spec": {"hard": {"pods": "10"}}},
    "RoleBinding": {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    },
    "RuntimeClass": {"handler": "crun"},
    "Service": {"spec": {"ports": [{"port": 80}]}},
    "ServiceCIDR": {"spec": {"cidrs": ["10.99.0.0/24"]}},
    "StatefulSet": {"spec": REPLICATED},
    "StorageClass": {"provisioner": "example.com/it"},
    "ValidatingAdmissionPolicy": {
        "spec": {"matchConstraints": MATCH, "validations": [{"expression": "true"}]}
    },
    "ValidatingAdmissionPolicyBinding": {
        "spec": {"policyName": "nothing", "validationActions": ["Audit"]}
    },
    "ValidatingWebhookConfiguration": {"webhooks": [webhook()]},
    "VolumeAttachment": {
        "spec": {
            "attacher": "example.com",
            "nodeName": "n",
            "source": {"persistentVolumeName": "v"},
        }
    },
    "VolumeAttributesClass": {"driverName": "example.com", "parameters": {"a": "b"}},
}
NAMES = {
    "APIService": "v1.example.com",
    "CustomResourceDefinition": "its.example.com",
    "IPAddress": "10.96.0.77",
    "CSIDriver": "example.com",
}
WRITABLE = [r for r in RESOURCES if {"create", "delete", "patch"} <= set(r.verbs)]


def minimal(resource: Resource) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": NAMES.get(resource.kind, "it")},
        **BODIES.get(resource.kind, {}),
    }
