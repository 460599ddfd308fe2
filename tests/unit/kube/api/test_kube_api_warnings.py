"""What clients are told beside the answer, in upstream's words."""
# Upstream's texts stand best in one line each.
# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api.resources import RESOURCES
from wherry.kube.api.warnings import ON_WRITE
from wherry.kube.api.warnings.network import address_warnings, block_warnings

_KINDS = {resource.kind: resource for resource in RESOURCES}


def _told(kind: str, old: dict[str, Any] | None = None, name: str = "n", **parts: Any) -> list[str]:
    metadata = {"name": name, **parts.pop("metadata", {})}
    return ON_WRITE[_KINDS[kind].schema]({"metadata": metadata, **parts}, old)


def test_a_plain_pod_gives_no_reason_for_a_warning() -> None:
    spec = {
        "containers": [
            {
                "name": "c",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}],
                "resources": {"limits": {"memory": "1Gi", "cpu": "100m"}},
            }
        ],
        "volumes": [
            {
                "name": "token",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "token"}},
                        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    ]
                },
            }
        ],
        "terminationGracePeriodSeconds": 30,
    }
    assert _told("Pod", spec=spec) == []


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"nodeSelector": {"beta.kubernetes.io/os": "linux"}},
         'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'),
        ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone"}]}]}}}},
         'spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "topology.kubernetes.io/zone" instead'),
        ({"topologySpreadConstraints": [{"topologyKey": "zone"}]},
         "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"),
        ({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {}}]}}},
         "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod"),
        ({"volumes": [{"name": "v", "gitRepo": {}}]}, "spec.volumes[0].gitRepo: deprecated in v1.11"),
        ({"volumes": [{"name": "v", "storageos": {}}]},
         "spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+"),
        ({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"secret": {"items": [{"path": "t"}]}}]}}]},
         'spec.volumes[0].projected.sources.secrets[0]: has duplicated path with ServiceAccountToken "t"'),
        ({"hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}]}, 'spec.hostAliases[1].ip: duplicate ip "1.2.3.4"'),
        ({"imagePullSecrets": [{}]}, 'spec.imagePullSecrets[0].name: invalid empty name ""'),
        ({"containers": [{"name": "c", "resources": {"limits": {"memory": "100m"}}}]},
         'spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer'),
        ({"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]},
         'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'),
        ({"containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "d", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
         "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]"),
        ({"containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP", "hostIP": "1.2.3.4"}]}]},
         "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.2.3.4}"),
        ({"terminationGracePeriodSeconds": -1},
         "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"),
    ],
)  # fmt: skip
def test_a_pod_and_a_template_are_warned_of(spec: dict[str, Any], text: str) -> None:
    assert _told("Pod", spec=spec) == [text]
    template = {"template": {"spec": spec}}
    (told,) = _told("Deployment", spec=template)
    # every path in the text is that of the template
    assert told == text.replace("spec.", "spec.template.spec.", 1).replace(
        "with spec.", "with spec.template.spec."
    )


def test_a_value_that_uses_the_one_before_hides_nothing() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]
    assert _told("Pod", spec={"containers": [{"name": "c", "env": env}]}) == []


def test_annotations_that_fields_replaced() -> None:
    metadata = {
        "annotations": {
            "seccomp.security.alpha.kubernetes.io/pod": "x",
            "container.apparmor.security.beta.kubernetes.io/c": "unconfined",
            "scheduler.alpha.kubernetes.io/critical-pod": "",
        }
    }
    told = _told("Pod", metadata=metadata, spec={"containers": [{"name": "c"}]})
    assert [text.partition("]")[0].partition("[")[2] for text in told] == [
        "scheduler.alpha.kubernetes.io/critical-pod",
        "seccomp.security.alpha.kubernetes.io/pod",
        "container.apparmor.security.beta.kubernetes.io/c",
    ]
    profiled = {"appArmorProfile": {"type": "Unconfined"}, "seccompProfile": {"type": "Unconfined"}}
    spec = {"securityContext": profiled, "containers": [{"name": "c"}]}
    assert len(_told("Pod", metadata=metadata, spec=spec)) == 1


def test_pods_are_not_looked_at_again() -> None:
    assert _told("Pod", {"metadata": {}}, spec={"volumes": [{"gitRepo": {}}]}) == []


def test_a_template_is_looked_at_again_when_it_changed() -> None:
    spec = {"template": {"spec": {"volumes": [{"gitRepo": {}}]}}}
    same = {"metadata": {"generation": 1}}
    assert _told("Deployment", same, metadata={"generation": 1}, spec=spec) == []
    assert len(_told("Deployment", same, metadata={"generation": 2}, spec=spec)) == 1


def test_names_that_go_into_hostnames() -> None:
    text = (
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising "
        "behavior; a DNS label is recommended: [must not contain dots]"
    )
    for kind in ("Deployment", "ReplicaSet", "Job", "CronJob", "ReplicationController"):
        assert _told(kind, name="a.b") == [text], kind
    assert _told("DaemonSet", name="a.b") == []


@pytest.mark.parametrize(
    ("kind", "parts", "text"),
    [
        ("Service", {"spec": {"externalName": "x", "type": "ClusterIP"}},
         'spec.externalName is ignored when spec.type is not "ExternalName"'),
        ("Service", {"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP"}},
         "spec.SessionAffinity is ignored for headless services"),
        ("Service", {"metadata": {"annotations": {"service.kubernetes.io/topology-aware-hints": "Auto"}}},
         "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead"),
        ("Ingress", {"metadata": {"annotations": {"kubernetes.io/ingress.class": "nginx"}}},
         """annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead"""),
        ("PersistentVolume", {"spec": {"persistentVolumeReclaimPolicy": "Recycle"}},
         "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."),
        ("PersistentVolume", {"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "x"}}},
         'metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "storageClassName" attribute instead'),
        ("PersistentVolumeClaim", {"spec": {"resources": {"requests": {"storage": "1500m"}}}},
         'spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer'),
        ("StorageClass", {"allowedTopologies": [{"matchLabelExpressions": [{"key": "failure-domain.beta.kubernetes.io/region"}]}]},
         'allowedTopologies[0].matchLabelExpressions[0].key: failure-domain.beta.kubernetes.io/region is deprecated since v1.17; use "topology.kubernetes.io/region" instead'),
        ("StatefulSet", {"spec": {"revisionHistoryLimit": -1}},
         "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"),
        ("Node", {"spec": {"externalID": "x"}},
         "spec.externalID: this field is deprecated, and is unused by Kubernetes"),
        ("RuntimeClass", {"scheduling": {"nodeSelector": {"beta.kubernetes.io/arch": "x"}}},
         'scheduling.nodeSelector: deprecated since v1.14; use "kubernetes.io/arch" instead'),
    ],
)  # fmt: skip
def test_other_kinds_are_warned_of(kind: str, parts: dict[str, Any], text: str) -> None:
    assert _told(kind, **parts) == [text]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.1", None),
        ("010.0.0.1", 'non-standard IP address "010.0.0.1" will be considered invalid in a future Kubernetes release: use "10.0.0.1"'),
        ("::ffff:1.2.3.4", 'non-standard IP address "::ffff:1.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4"'),
        ("2001:DB8::1", 'IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")'),
    ],
)  # fmt: skip
def test_unusual_addresses(text: str, why: str | None) -> None:
    assert address_warnings(text, "f") == ([] if why is None else [f"f: {why}"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.0/8", None),
        ("10.0.0.1/8", 'CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)'),
        ("010.0.0.0/8", 'non-standard CIDR value "010.0.0.0/8" will be considered invalid in a future Kubernetes release: use "10.0.0.0/8"'),
        ("2001:DB8::/32", 'IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical format ("2001:db8::/32")'),
        ("nonsense", None),
    ],
)  # fmt: skip
def test_unusual_blocks(text: str, why: str | None) -> None:
    assert block_warnings(text, "f") == ([] if why is None else [f"f: {why}"])
