"""What a pod may not say, in upstream's words and at upstream's paths."""

from __future__ import annotations

from typing import Any

import pytest

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  volumes:
  - {name: v, emptyDir: {}}
  containers:
  - {name: web, image: hello:1}
"""
C = "spec.containers.0."

LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"spec.containers": []}, ["spec.containers: Required value"]),
        ({C + "name": ""}, ["spec.containers[0].name: Required value"]),
        ({C + "name": "A"}, [f'spec.containers[0].name: Invalid value: "A": {LABEL_RULE}']),
        ({C + "image": ""}, ["spec.containers[0].image: Required value"]),
        (
            {C + "image": " hello"},
            [
                'spec.containers[0].image: Invalid value: " hello": must not have leading or '
                "trailing whitespace"
            ],
        ),
        (
            {C + "imagePullPolicy": "Often"},
            [
                'spec.containers[0].imagePullPolicy: Unsupported value: "Often": supported '
                'values: "Always", "IfNotPresent", "Never"'
            ],
        ),
        (
            {"spec.containers.1": {"name": "web", "image": "b"}},
            ['spec.containers[1].name: Duplicate value: "web"'],
        ),
        (
            {"spec.initContainers": [{"name": "web", "image": "b"}]},
            ['spec.initContainers[0].name: Duplicate value: "web"'],
        ),
        (
            {C + "ports": [{"containerPort": 0}, {"containerPort": 65536, "name": "a--b"}]},
            [
                "spec.containers[0].ports[0].containerPort: Required value",
                'spec.containers[0].ports[1].name: Invalid value: "a--b": must not contain '
                "consecutive hyphens",
                "spec.containers[0].ports[1].containerPort: Invalid value: 65536: must be between "
                "1 and 65535, inclusive",
            ],
        ),
        (
            {
                C + "ports": [
                    {"containerPort": 80, "hostPort": 80},
                    {"containerPort": 81, "hostPort": 80},
                ]
            },
            ['spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"'],
        ),
        (
            {C + "env": [{"name": "a=b"}, {"name": ""}]},
            [
                'spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment '
                "variable name must consist only of printable ASCII characters other than '='",
                "spec.containers[0].env[1].name: Required value",
            ],
        ),
        (
            {
                C + "env": [
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.tolerations"}}}
                ]
            },
            [
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "
                '"spec.tolerations": error converting fieldPath: field label not supported: '
                "spec.tolerations"
            ],
        ),
        (
            {C + "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]},
            [
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "
                '"status.phase": supported values: "metadata.name", "metadata.namespace", '
                '"metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", '
                '"status.hostIPs", "status.podIP", "status.podIPs"'
            ],
        ),
        (
            {
                C + "env": [
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}
                ]
            },
            [],
        ),
        (
            {
                C + "env": [
                    {
                        "name": "A",
                        "value": "x",
                        "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
                    }
                ]
            },
            [
                'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified '
                "when `value` is not empty"
            ],
        ),
        (
            {C + "volumeMounts": [{"name": "x", "mountPath": "/x"}]},
            ['spec.containers[0].volumeMounts[0].name: Not found: "x"'],
        ),
        (
            {
                C + "volumeMounts": [
                    {"name": "v", "mountPath": "/x"},
                    {"name": "v", "mountPath": "/x"},
                ]
            },
            ['spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/x": must be unique'],
        ),
        (
            {C + "volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../y"}]},
            [
                'spec.containers[0].volumeMounts.subPath: Invalid value: "../y": must not '
                "contain '..'"
            ],
        ),
        (
            {
                C + "volumeMounts": [
                    {"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}
                ]
            },
            [
                "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount "
                "propagation is available only to privileged containers"
            ],
        ),
        (
            {"spec.volumes.1": {"name": "v", "emptyDir": {}}},
            ['spec.volumes[1].name: Duplicate value: "v"'],
        ),
        (
            {"spec.volumes.1": {"name": "w", "emptyDir": {}, "hostPath": {"path": "/"}}},
            ["spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            {"spec.volumes.1": {"name": "w", "hostPath": {"path": "/a/../b", "type": "Disk"}}},
            [
                "spec.volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                'spec.volumes[1].hostPath.type: Unsupported value: "Disk": supported values: "", '
                '"BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", '
                '"FileOrCreate", "Socket"',
            ],
        ),
        (
            {"spec.volumes.1": {"name": "w", "configMap": {"name": "c", "defaultMode": 512}}},
            [
                "spec.volumes[1].configMap.defaultMode: Invalid value: 512: must be a number "
                "between 0 and 0777 (octal), both inclusive"
            ],
        ),
        (
            {C + "livenessProbe": {"tcpSocket": {"port": 0}, "successThreshold": 2}},
            [
                "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be "
                "between 1 and 65535, inclusive",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
        (
            {C + "readinessProbe": {"exec": {"command": ["x"]}, "httpGet": {"port": 1}}},
            [
                "spec.containers[0].readinessProbe.httpGet: Forbidden: may not specify more than "
                "1 handler type"
            ],
        ),
        (
            {C + "startupProbe": {"periodSeconds": 1}},
            ["spec.containers[0].startupProbe: Required value: must specify a handler type"],
        ),
        (
            {C + "lifecycle": {"preStop": {"sleep": {"seconds": 60}}}},
            [
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be "
                "non-negative and less than terminationGracePeriodSeconds (30)"
            ],
        ),
        (
            {C + "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}}},
            [
                'spec.containers[0].resources.requests: Invalid value: "2": must be less than or '
                "equal to cpu limit of 500m"
            ],
        ),
        (
            {C + "resources": {"requests": {"memory": "-1"}}},
            [
                'spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be '
                "greater than or equal to 0"
            ],
        ),
        (
            {C + "resources": {"requests": {"tpu": "1"}}},
            [
                'spec.containers[0].resources.requests[tpu]: Invalid value: "tpu": must be a '
                "standard resource type or fully qualified",
                'spec.containers[0].resources.requests[tpu]: Invalid value: "tpu": must be a '
                "standard resource for containers",
            ],
        ),
        (
            {C + "resources": {"requests": {"x.io/gpu": "1"}}},
            [
                "spec.containers[0].resources.limits: Required value: Limit must be set for non "
                "overcommitable resources"
            ],
        ),
        (
            {C + "resources": {"limits": {"x.io/gpu": "500m"}}},
            [
                'spec.containers[0].resources.limits[x.io/gpu]: Invalid value: "500m": must be an '
                "integer",
                'spec.containers[0].resources.requests[x.io/gpu]: Invalid value: "500m": must be '
                "an integer",
            ],
        ),
        (
            {"spec.restartPolicy": "Sometimes"},
            [
                'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", '
                '"OnFailure", "Never"'
            ],
        ),
        (
            {"spec.dnsPolicy": "None"},
            ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        ({"spec.dnsConfig": {"searches": [".", "_sip._tcp.a_b.example", "a.example."]}}, []),
        (
            {"spec.dnsConfig": {"searches": ["a_.example"]}},
            [
                'spec.dnsConfig.searches[0]: Invalid value: "a_.example": a lowercase RFC 1123 '
                "subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
                "and must start and end with an alphanumeric character (e.g. 'example.com', regex "
                r"used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
                r"(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
            ],
        ),
        (
            {"spec.activeDeadlineSeconds": 0},
            [
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, "
                "inclusive"
            ],
        ),
        (
            {"spec.hostAliases": [{"ip": "nowhere", "hostnames": ["a"]}]},
            [
                'spec.hostAliases[0].ip: Invalid value: "nowhere": must be a valid IP address, '
                "(e.g. 10.9.8.7 or 2001:db8::ffff)"
            ],
        ),
        (
            {"spec.tolerations": [{"operator": "Equal", "value": "a"}]},
            [
                'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists '
                'when `key` is empty, which means "match all values and all keys"'
            ],
        ),
        (
            {"spec.tolerations": [{"key": "a", "operator": "Is", "effect": "Now"}]},
            [
                'spec.tolerations[0].operator: Unsupported value: "Is": supported values: '
                '"Equal", "Exists"',
                'spec.tolerations[0].effect: Unsupported value: "Now": supported values: '
                '"NoSchedule", "PreferNoSchedule", "NoExecute"',
            ],
        ),
        (
            {"spec.securityContext": {"runAsUser": -1, "sysctls": [{"name": "Bad", "value": "1"}]}},
            [
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and "
                "2147483647, inclusive",
                'spec.securityContext.sysctls[0].name: Invalid value: "Bad": must have at most '
                r"253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*"
                "[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ],
        ),
        (
            {C + "securityContext": {"seccompProfile": {"type": "Localhost"}}},
            [
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required "
                "value: must be set when seccomp type is Localhost"
            ],
        ),
        (
            {"spec.hostNetwork": True, C + "ports": [{"containerPort": 80, "hostPort": 81}]},
            [
                "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match "
                "`containerPort` when `hostNetwork` is true"
            ],
        ),
        (
            {
                "spec.initContainers": [
                    {"name": "i", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}
                ]
            },
            [
                "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init "
                "containers without restartPolicy=Always"
            ],
        ),
        (
            {"spec.ephemeralContainers": [{"name": "e", "image": "e"}]},
            ["spec.ephemeralContainers: Forbidden: cannot be set on create"],
        ),
        (
            {"spec.nodeName": "n", "spec.schedulingGates": [{"name": "x.io/g"}]},
            ["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
        ),
        (
            {"spec.nodeSelector": {"a": "b c"}},
            [
                'spec.nodeSelector: Invalid value: "b c": a valid label must be an empty string '
                "or consist of alphanumeric characters, '-', '_' or '.', and must start and end "
                "with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
                "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ],
        ),
        (
            {
                "spec.affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "a", "operator": "Has"}]}
                            ]
                        }
                    }
                }
            },
            [
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution."
                'nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: "Has": not a '
                "valid selector operator"
            ],
        ),
        (
            {"metadata.annotations": {"controller.kubernetes.io/pod-deletion-cost": "1.5"}},
            [
                "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "
                '"1.5": must be a 32bit integer'
            ],
        ),
        (
            {
                "spec.volumes.1": {
                    "name": "t",
                    "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]},
                }
            },
            [
                "spec.volumes[1].projected.sources[0].serviceAccountToken: Forbidden: must not be "
                "specified when serviceAccountName is not set"
            ],
        ),
    ],
)
def test_a_pod_with_a_fault_is_refused_with_its_path(
    api: Any, with_: Any, changes: dict[str, Any], expected: list[str]
) -> None:
    assert api.faults(with_(POD, **changes)) == expected


def test_a_pod_that_uses_much_is_fine(api: Any) -> None:
    assert (
        api.faults(
            """
            apiVersion: v1
            kind: Pod
            metadata: {name: a.b, annotations: {X.io/Y: z}}
            spec:
              serviceAccountName: robot
              hostname: h
              shareProcessNamespace: true
              securityContext: {runAsUser: 0, fsGroup: 1, sysctls: [{name: net.ipv4.x, value: "1"}]}
              tolerations: [{operator: Exists}, {key: a, effect: NoExecute, tolerationSeconds: 5}]
              topologySpreadConstraints:
              - {maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}
              affinity:
                podAntiAffinity:
                  preferredDuringSchedulingIgnoredDuringExecution:
                  - weight: 100
                    podAffinityTerm:
                      topologyKey: kubernetes.io/hostname
                      labelSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}
              volumes:
              - name: all
                projected: {sources: [{configMap: {name: c}}, {serviceAccountToken: {path: t}}]}
              - {name: claim, persistentVolumeClaim: {claimName: c}}
              - name: down
                downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}
              initContainers:
              - {name: one, image: i, restartPolicy: Always, startupProbe: {exec: {command: [x]}}}
              - {name: two, image: i}
              containers:
              - name: c
                image: c
                envFrom: [{prefix: P_, configMapRef: {name: c}}]
                resources: {requests: {cpu: 1, hugepages-2Mi: 4Mi}, limits: {hugepages-2Mi: 4Mi}}
                volumeMounts:
                - {name: all, mountPath: /a, readOnly: true, recursiveReadOnly: Enabled}
                volumeDevices: [{name: claim, devicePath: /dev/x}]
                securityContext: {privileged: true, capabilities: {add: [ALL]}}
            """
        )
        == []
    )


def test_a_missing_spec_is_many_faults_not_a_traceback(api: Any) -> None:
    o = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    assert api.faults(o) == ["spec.containers: Required value"]
