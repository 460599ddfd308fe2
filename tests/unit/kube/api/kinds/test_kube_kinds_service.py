"""Services: what is filled in, kept, dropped and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
"""


def allocated(api: Any, with_: Any, **changes: Any) -> Any:
    """A service as it is stored: with an address, and a node port where it needs one."""
    o = api.create(with_(SERVICE, **changes))
    o["spec"] |= {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}
    if o["spec"]["type"] in ("NodePort", "LoadBalancer"):
        o["spec"]["ports"][0]["nodePort"] = 30080
    return o


def test_a_bare_service_is_filled_in(api: Any) -> None:
    o = api.create(SERVICE)
    assert o["spec"] == {
        "selector": {"app": "web"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
    }
    assert o["status"] == {"loadBalancer": {}}
    assert api.faults(SERVICE) == []


def test_each_type_has_its_own_defaults(api: Any, with_: Any) -> None:
    spec = api.create(with_(SERVICE, **{"spec.type": "NodePort"}))["spec"]
    assert spec["externalTrafficPolicy"] == "Cluster"
    spec = api.create(with_(SERVICE, **{"spec.type": "LoadBalancer"}))["spec"]
    assert spec["allocateLoadBalancerNodePorts"] is True
    external = {"spec.type": "ExternalName", "spec.externalName": "example.com."}
    spec = api.create(with_(SERVICE, **external))["spec"]
    assert not spec.keys() & {"ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"}
    assert api.faults(with_(SERVICE, **external)) == []


def test_client_affinity_lasts_three_hours(api: Any, with_: Any) -> None:
    spec = api.create(with_(SERVICE, **{"spec.sessionAffinity": "ClientIP"}))["spec"]
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


def test_a_headless_service_needs_no_ports(api: Any, with_: Any) -> None:
    changes = {"spec.clusterIP": "None", "spec.ports": None}
    o = api.create(with_(SERVICE, **changes))
    assert o["spec"]["clusterIPs"] == ["None"]
    assert api.faults(with_(SERVICE, **changes)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"spec.ports": []}, ["spec.ports: Required value"]),
        (
            {"spec.ports": [{"port": 80}, {"port": 81}]},
            ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
        ),
        (
            {"spec.ports": [{"port": 0, "protocol": "tcp", "targetPort": "not a port"}]},
            [
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                'spec.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", '
                '"TCP", "UDP"',
                'spec.ports[0].targetPort: Invalid value: "not a port": must contain only '
                "alphanumeric characters (a-z, 0-9), and hyphens (-)",
            ],
        ),
        (
            {"spec.ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
            [
                'spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,'
                '"Port":80,"TargetPort":0,"NodePort":0}'
            ],
        ),
        (
            {"spec.ports": [{"port": 80, "nodePort": 30000}]},
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            {"spec.type": "Cluster"},
            [
                'spec.type: Unsupported value: "Cluster": supported values: "ClusterIP", '
                '"ExternalName", "LoadBalancer", "NodePort"'
            ],
        ),
        (
            {"spec.type": "ExternalName"},
            ["spec.externalName: Required value"],
        ),
        (
            {"spec.clusterIP": "10.96.0"},
            [
                'spec.clusterIPs[0]: Invalid value: "10.96.0": must be a valid IP address, (e.g. '
                "10.9.8.7 or 2001:db8::ffff)"
            ],
        ),
        (
            {"spec.clusterIP": "fd00::1", "spec.ipFamilies": ["IPv4"]},
            [
                'spec.clusterIPs[0]: Invalid value: "fd00::1": expected an IPv4 value as indicated '
                "by `ipFamilies[0]`"
            ],
        ),
        (
            {"spec.externalIPs": ["127.0.0.1"]},
            [
                'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback '
                "range (127.0.0.0/8, ::1/128)"
            ],
        ),
        (
            {"spec.sessionAffinity": "Sticky"},
            [
                'spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", '
                '"None"'
            ],
        ),
        (
            {"spec.externalTrafficPolicy": "Local"},
            [
                'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for '
                "externally-accessible services"
            ],
        ),
        (
            {"spec.loadBalancerSourceRanges": ["10.0.0.0"]},
            [
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is "
                "'LoadBalancer'",
                'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0": must be a valid '
                "CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        ),
    ],
)
def test_a_service_with_a_fault_is_refused_with_its_path(
    api: Any, with_: Any, changes: dict[str, Any], expected: list[str]
) -> None:
    assert api.faults(with_(SERVICE, **changes)) == expected


def test_a_services_name_is_a_label_and_may_start_with_a_digit(api: Any, with_: Any) -> None:
    assert api.faults(with_(SERVICE, **{"metadata.name": "1web"})) == []
    assert api.faults(with_(SERVICE, **{"metadata.name": "-web"})) == [
        'metadata.name: Invalid value: "-web": a lowercase RFC 1123 label must consist of lower '
        "case alphanumeric characters or '-', and must start and end with an alphanumeric "
        "character (e.g. 'my-name',  or '123-abc', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    ]


def test_an_update_without_the_allocated_values_keeps_them(api: Any, with_: Any) -> None:
    old = allocated(api, with_, **{"spec.type": "NodePort"})
    new, faults = api.update(
        old, lambda o: o.update(spec=with_(SERVICE)["spec"] | {"type": "NodePort"})
    )
    assert faults == []
    assert new["spec"]["clusterIP"] == "10.96.0.9"
    assert new["spec"]["clusterIPs"] == ["10.96.0.9"]
    assert new["spec"]["ports"][0]["nodePort"] == 30080


def test_the_address_may_not_change(api: Any, with_: Any) -> None:
    old = allocated(api, with_)
    _, faults = api.update(old, lambda o: o["spec"].update(clusterIP="10.96.0.10"))
    assert faults == ['spec.clusterIPs[0]: Invalid value: ["10.96.0.10"]: may not change once set']


@pytest.mark.parametrize(
    ("before", "change", "gone"),
    [
        (
            "ClusterIP",
            lambda o: o["spec"].update(type="ExternalName", externalName="example.com"),
            {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"},
        ),
        ("NodePort", lambda o: o["spec"].update(type="ClusterIP"), {"externalTrafficPolicy"}),
        (
            "LoadBalancer",
            lambda o: o["spec"].update(type="ClusterIP"),
            {"externalTrafficPolicy", "allocateLoadBalancerNodePorts"},
        ),
    ],
)
def test_a_change_of_type_drops_what_the_new_type_cannot_have(
    api: Any, with_: Any, before: str, change: Callable[[Any], Any], gone: set[str]
) -> None:
    old = allocated(api, with_, **{"spec.type": before})
    new, faults = api.update(old, change)
    assert faults == []
    assert not new["spec"].keys() & gone
    assert "nodePort" not in new["spec"]["ports"][0]


def test_back_from_external_name_the_service_is_ready_for_an_address(api: Any, with_: Any) -> None:
    external = {"spec.type": "ExternalName", "spec.externalName": "example.com"}
    old = api.create(with_(SERVICE, **external))
    new, faults = api.update(old, lambda o: o["spec"].update(type="ClusterIP"))
    assert faults == []
    assert not new["spec"].keys() & {"clusterIP", "clusterIPs", "ipFamilies"}


def test_only_a_load_balancer_has_ingress_points(api: Any, with_: Any) -> None:
    points = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    old = allocated(api, with_)
    _, faults = api.update_status(old, lambda o: o.update(status=points))
    assert faults == [
        "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is "
        "'LoadBalancer'"
    ]
    old = allocated(api, with_, **{"spec.type": "LoadBalancer"})
    new, faults = api.update_status(old, lambda o: o.update(status=points))
    assert faults == []
    assert new["status"]["loadBalancer"]["ingress"] == [{"ip": "192.0.2.1", "ipMode": "VIP"}]


def test_a_health_check_port_may_still_be_missing(api: Any, with_: Any) -> None:
    changes = {"spec.type": "LoadBalancer", "spec.externalTrafficPolicy": "Local"}
    assert api.faults(with_(SERVICE, **changes)) == []
    assert api.faults(with_(SERVICE, **changes, **{"spec.healthCheckNodePort": 70000})) == [
        "spec.healthCheckNodePort: Invalid value: 70000: must be between 1 and 65535, inclusive"
    ]
