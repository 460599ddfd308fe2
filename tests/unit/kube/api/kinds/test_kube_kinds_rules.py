"""Faults of the kinds beyond pods and what keeps them: each as upstream words it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]
Edit = Callable[[Object], Any]

POD = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
ONCE = {"spec": {**POD["spec"], "restartPolicy": "Never"}}
SETS = {"selector": {"matchLabels": {"app": "a"}}, "template": POD}
BACKEND = {"service": {"name": "1s", "port": {"number": 80}}}
BLOCK = {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}
HOOK = {
    "name": "a.b.c",
    "clientConfig": {"url": "https://h/p"},
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
}


def o(api_version: str, kind: str, **rest: Any) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "it"}, **rest}


STATEFUL_SET = o("apps/v1", "StatefulSet", spec=SETS)
DAEMON_SET = o("apps/v1", "DaemonSet", spec=SETS)
JOB = o("batch/v1", "Job", spec={"template": ONCE})
CRON_JOB = o(
    "batch/v1",
    "CronJob",
    spec={"schedule": "* * * * *", "jobTemplate": {"spec": {"template": ONCE}}},
)
CLAIM = o(
    "v1",
    "PersistentVolumeClaim",
    spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
)
VOLUME = o(
    "v1",
    "PersistentVolume",
    spec={
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "2Gi"},
        "hostPath": {"path": "/x"},
    },
)
MOUNTING = {"name": "c", "image": "x", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}
CLAIMING = o(
    "apps/v1",
    "StatefulSet",
    spec={
        **SETS,
        "template": {**POD, "spec": {"containers": [MOUNTING]}},
        "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": CLAIM["spec"]}],
    },
)
BUDGET = o("policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1})
SCALER = o(
    "autoscaling/v2",
    "HorizontalPodAutoscaler",
    spec={"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}},
)
RANGE = o("v1", "LimitRange", spec={"limits": [{"type": "Container", "max": {"cpu": "1"}}]})
QUOTA = o("v1", "ResourceQuota", spec={"hard": {"pods": "3"}})
INGRESS = o("networking.k8s.io/v1", "Ingress", spec={"defaultBackend": BACKEND})
POLICY = o("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": {}})
RBAC = "rbac.authorization.k8s.io"
ROLE = o(f"{RBAC}/v1", "Role", rules=[{"verbs": ["get"], "apiGroups": [""], "resources": ["x"]}])
GRANT = o(f"{RBAC}/v1", "RoleBinding", roleRef={"kind": "Role", "name": "r"}, subjects=[])
STORAGE = o("storage.k8s.io/v1", "StorageClass", provisioner="example.com/it")
PRIORITY = o("scheduling.k8s.io/v1", "PriorityClass", value=5)
WEBHOOKS = o("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", webhooks=[HOOK])
VALID = [
    *(
        STATEFUL_SET,
        CLAIMING,
        DAEMON_SET,
        JOB,
        CRON_JOB,
        CLAIM,
        VOLUME,
        BUDGET,
        SCALER,
        RANGE,
        QUOTA,
    ),
    *(INGRESS, POLICY, ROLE, GRANT, STORAGE, PRIORITY, WEBHOOKS),
]


def at(path: str, value: Any) -> Edit:
    """Puts a value at ``spec.limits.0.type``; None takes away what is there."""

    def edit(target: Any) -> None:
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        for part in way:
            target = target[part] if isinstance(part, int) else target.setdefault(part, {})
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value

    return edit


@pytest.mark.parametrize("manifest", VALID, ids=lambda m: m["kind"])
def test_what_is_well_is_taken(api: Any, manifest: Object) -> None:
    made = api.read(manifest)
    made["metadata"]["uid"] = "u"
    kind = api.kind_of(made)
    kind.prepare_create(made)
    assert [str(f) for f in kind.validate(made)] == []


CASES: list[tuple[Object, Edit, str]] = [
    (
        STATEFUL_SET,
        at("spec.podManagementPolicy", "Any"),
        "spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'",
    ),
    (
        STATEFUL_SET,
        at("spec.selector", {}),
        "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
    ),
    (
        STATEFUL_SET,
        at("spec.ordinals", {"start": -1}),
        "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
    ),
    (
        DAEMON_SET,
        at("spec.updateStrategy", {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}),
        "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: "
        "cannot be 0 when maxSurge is 0",
    ),
    (
        DAEMON_SET,
        at("spec.template.spec.restartPolicy", "Never"),
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ),
    (
        JOB,
        at("spec.template.spec.restartPolicy", "Always"),
        'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
    ),
    (
        JOB,
        at("spec", {"completionMode": "Indexed", "parallelism": 2, "template": ONCE}),
        "spec.completions: Required value: when completion mode is Indexed",
    ),
    (
        JOB,
        at("spec.backoffLimit", -1),
        "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
    ),
    (
        CRON_JOB,
        at("spec.schedule", "x"),
        'spec.schedule: Invalid value: "x": expected exactly 5 fields, found 1: [x]',
    ),
    (CRON_JOB, at("spec.schedule", None), "spec.schedule: Required value"),
    (
        CRON_JOB,
        at("spec.concurrencyPolicy", "Maybe"),
        'spec.concurrencyPolicy: Unsupported value: "Maybe": '
        'supported values: "Allow", "Forbid", "Replace"',
    ),
    (
        CRON_JOB,
        at("metadata.name", "n" * 53),
        f'metadata.name: Invalid value: "{"n" * 53}": must be no more than 52 characters',
    ),
    (
        CLAIM,
        at("spec.accessModes", None),
        "spec.accessModes: Required value: at least 1 access mode is required",
    ),
    (CLAIM, at("spec.resources", None), "spec.resources[storage]: Required value"),
    (
        VOLUME,
        at("spec.accessModes", ["Any"]),
        'spec.accessModes: Unsupported value: "Any": supported values: "ReadOnlyMany", '
        '"ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"',
    ),
    (VOLUME, at("spec.hostPath", None), "spec: Required value: must specify a volume type"),
    (
        BUDGET,
        at("spec.minAvailable", "101%"),
        'spec.minAvailable: Invalid value: "101%": must not be greater than 100%',
    ),
    (
        SCALER,
        at("spec.maxReplicas", 0),
        "spec.maxReplicas: Invalid value: 0: must be greater than 0",
    ),
    (SCALER, at("spec.scaleTargetRef", {}), "spec.scaleTargetRef.kind: Required value"),
    (
        RANGE,
        at("spec.limits.0.min", {"cpu": "2"}),
        'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1',
    ),
    (
        QUOTA,
        at("spec.hard", {"apples": "1"}),
        'spec.hard[apples]: Invalid value: "apples": '
        "must be a standard resource type or fully qualified",
    ),
    (
        INGRESS,
        at("spec.defaultBackend", None),
        "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
    ),
    (
        INGRESS,
        at("spec.rules", [{"host": "1.2.3.4"}]),
        'spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address',
    ),
    (
        INGRESS,
        at("spec.rules", [{"http": {"paths": [{"path": "/", "backend": BACKEND}]}}]),
        "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
    ),
    (
        INGRESS,
        at(
            "spec.rules",
            [{"http": {"paths": [{"path": "a", "pathType": "Prefix", "backend": BACKEND}]}}],
        ),
        'spec.rules[0].http.paths[0].path: Invalid value: "a": must be an absolute path',
    ),
    (
        POLICY,
        at("spec.ingress", [{"from": [{}]}]),
        "spec.ingress[0].from[0]: Required value: must specify a peer",
    ),
    (
        POLICY,
        at("spec.egress", [{"to": [{"ipBlock": BLOCK}]}]),
        'spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "11.0.0.0/8": '
        'must be a strict subset of "10.0.0.0/8"',
    ),
    (
        POLICY,
        at("spec.egress", [{"to": [{"ipBlock": {"cidr": "10.0.0.0/255.0.0.0"}}]}]),
        'spec.egress[0].to[0].ipBlock.cidr: Invalid value: "10.0.0.0/255.0.0.0": '
        "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
    ),
    (
        POLICY,
        at("spec.egress", [{"to": [{"ipBlock": {"cidr": "fd00::1%eth0/64"}}]}]),
        'spec.egress[0].to[0].ipBlock.cidr: Invalid value: "fd00::1%eth0/64": '
        "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
    ),
    (
        ROLE,
        at("rules.0.verbs", []),
        "rules[0].verbs: Required value: verbs must contain at least one value",
    ),
    (
        ROLE,
        at("rules.0", {"verbs": ["get"], "nonResourceURLs": ["/x"]}),
        'rules[0].nonResourceURLs: Invalid value: ["/x"]: '
        "namespaced rules cannot apply to non-resource URLs",
    ),
    (
        GRANT,
        at("roleRef", {"kind": "Thing", "name": "r"}),
        'roleRef.kind: Unsupported value: "Thing": supported values: "Role", "ClusterRole"',
    ),
    (STORAGE, at("provisioner", ""), "provisioner: Required value"),
    (
        STORAGE,
        at("volumeBindingMode", "Later"),
        'volumeBindingMode: Unsupported value: "Later": '
        'supported values: "Immediate", "WaitForFirstConsumer"',
    ),
    (
        PRIORITY,
        at("value", 1_000_000_001),
        "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
    ),
    (
        PRIORITY,
        at("metadata.name", "system-mine"),
        "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for "
        "system use only. error: system-mine is not a known system priority class",
    ),
    (
        WEBHOOKS,
        at("webhooks.0.name", "a.b"),
        'webhooks[0].name: Invalid value: "a.b": '
        "should be a domain with at least three segments separated by dots",
    ),
    (
        WEBHOOKS,
        at("webhooks.0.timeoutSeconds", 31),
        "webhooks[0].timeoutSeconds: Invalid value: 31: "
        "the timeout value must be between 1 and 30 seconds",
    ),
    (
        WEBHOOKS,
        at("webhooks.0.sideEffects", None),
        "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
    ),
]


@pytest.mark.parametrize(
    ("manifest", "edit", "fault"), CASES, ids=lambda v: "" if callable(v) else str(v)[:60]
)
def test_what_is_wrong_is_named(api: Any, manifest: Object, edit: Edit, fault: str) -> None:
    bad = copy.deepcopy(manifest)
    edit(bad)
    assert fault in api.faults(bad)


CHANGES: list[tuple[Object, Edit, str]] = [
    (
        STATEFUL_SET,
        at("spec.serviceName", "other"),
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', "
        "'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', "
        "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
    ),
    (JOB, at("spec.completions", 5), "spec.completions: Invalid value: 5: field is immutable"),
    (
        CLAIM,
        at("spec.accessModes", ["ReadWriteMany"]),
        "spec: Forbidden: spec is immutable after creation except resources.requests and "
        "volumeAttributesClassName for bound claims",
    ),
    (
        VOLUME,
        at("spec.hostPath.path", "/y"),
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after "
        "creation",
    ),
    (
        GRANT,
        at("roleRef.name", "other"),
        'roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role",'
        '"Name":"other"}: cannot change roleRef',
    ),
    (
        STORAGE,
        at("provisioner", "other"),
        "provisioner: Forbidden: updates to provisioner are forbidden.",
    ),
    (PRIORITY, at("value", 6), "value: Forbidden: may not be changed in an update."),
]


@pytest.mark.parametrize(
    ("manifest", "edit", "fault"), CHANGES, ids=lambda v: "" if callable(v) else str(v)[:60]
)
def test_what_must_stay_stays(api: Any, manifest: Object, edit: Edit, fault: str) -> None:
    old = api.create(manifest)
    _, faults = api.update(old, edit)
    assert any(text.startswith(fault) for text in faults), faults


def test_a_bound_claim_may_grow_and_not_shrink(api: Any) -> None:
    old = api.create(CLAIM)
    old["status"] = {"phase": "Bound", "capacity": {"storage": "2Gi"}}
    grow, shrink = (at("spec.resources.requests.storage", size) for size in ("3Gi", "1Gi"))
    assert api.update(old, grow)[1] == []
    assert api.update(old, shrink)[1] == [
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    ]


def test_a_suspended_job_that_has_not_started_may_go_elsewhere(api: Any) -> None:
    old = api.create(JOB)
    moved = at("spec.template.spec.nodeSelector", {"a": "b"})
    assert any(f.endswith("field is immutable") for f in api.update(old, moved)[1])
    old["spec"]["suspend"] = True
    assert api.update(old, moved)[1] == []


def test_a_job_selects_the_pods_of_its_own_uid(api: Any) -> None:
    made = api.read(JOB)
    made["metadata"]["uid"] = "u"
    api.kind_of(made).prepare_create(made)
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
    assert made["spec"]["template"]["metadata"]["labels"] == {
        "controller-uid": "u",
        "job-name": "it",
        "batch.kubernetes.io/controller-uid": "u",
        "batch.kubernetes.io/job-name": "it",
    }


def test_a_daemon_set_counts_the_changes_of_its_template(api: Any) -> None:
    old = api.create(DAEMON_SET)
    key = "deprecated.daemonset.template.generation"
    assert old["metadata"]["annotations"][key] == "1"
    new, _ = api.update(old, at("spec.template.spec.nodeSelector", {"a": "b"}))
    assert new["metadata"]["annotations"][key] == "2"
    assert new["metadata"]["generation"] == 2


def test_limits_fill_each_other_in(api: Any) -> None:
    (item,) = api.create(RANGE)["spec"]["limits"]
    assert item["default"] == item["defaultRequest"] == {"cpu": "1"}


def test_an_autoscaler_looks_at_the_processor_where_nothing_else_is_said(api: Any) -> None:
    spec = api.create(SCALER)["spec"]
    assert spec["minReplicas"] == 1
    target = {"type": "Utilization", "averageUtilization": 80}
    assert spec["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
