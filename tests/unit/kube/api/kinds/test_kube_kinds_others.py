"""Namespaces, nodes, configuration, endpoints, events, leases."""

from __future__ import annotations

import base64
from typing import Any

import pytest

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}}
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
ENDPOINTS = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}}
SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "web-1"},
    "addressType": "IPv4",
}
EVENT = {
    "apiVersion": "v1",
    "kind": "Event",
    "metadata": {"name": "web.17a"},
    "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
}
LEASE = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}}


def test_a_namespace_carries_its_name_and_its_finalizer(api: Any) -> None:
    o = api.create(NAMESPACE)
    assert o["metadata"]["labels"] == {"kubernetes.io/metadata.name": "demo"}
    assert o["spec"] == {"finalizers": ["kubernetes"]}
    assert o["status"] == {"phase": "Active"}
    assert api.faults(NAMESPACE) == []
    (fault,) = api.faults({**NAMESPACE, "metadata": {"name": "a.b"}})
    assert fault == 'metadata.name: Invalid value: "a.b": must not contain dots'


def test_a_namespaces_finalizers_change_only_by_finalize(api: Any) -> None:
    old = api.create(NAMESPACE)
    new, faults = api.update(old, lambda o: o["spec"].update(finalizers=[]))
    assert (new["spec"], faults) == ({"finalizers": ["kubernetes"]}, [])
    kind = api.kind_of(old)
    new = {**old, "metadata": dict(old["metadata"]), "spec": {"finalizers": ["bad"]}}
    kind.prepare_finalize_update(new, old)
    assert [str(f) for f in kind.validate_finalize_update(new, old)] == [
        'spec.finalizers[0]: Invalid value: "bad": name is neither a standard finalizer name nor '
        "is it fully qualified"
    ]


def test_a_namespaces_phase_follows_its_deletion(api: Any) -> None:
    old = api.create(NAMESPACE)
    _, faults = api.update_status(old, lambda o: o["status"].update(phase="Terminating"))
    assert faults == [
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` "
        "is empty"
    ]


def test_a_node_is_created_with_what_its_kubelet_reports(api: Any) -> None:
    o = api.create({**NODE, "spec": {"podCIDR": "10.0.0.0/24"}, "status": {"capacity": {"cpu": 2}}})
    assert o["spec"] == {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}
    assert o["status"] == {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}


def test_a_node_keeps_its_range_and_its_provider(api: Any) -> None:
    old = api.create({**NODE, "spec": {"podCIDR": "10.0.0.0/24", "providerID": "a"}})

    def change(o: Any) -> None:
        o["spec"] = {"podCIDR": "10.0.1.0/24", "providerID": "b"}

    assert api.update(old, change)[1] == [
        'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid',
        'spec.providerID: Forbidden: node updates may not change providerID except from "" to '
        "valid",
    ]


def test_taints_are_unique_by_key_and_effect(api: Any) -> None:
    taint = {"key": "a", "effect": "NoSchedule"}
    faults = api.faults({**NODE, "spec": {"taints": [taint, taint, {"key": "b", "effect": "No"}]}})
    assert faults == [
        'metadata.taints[1]: Duplicate value: {"Key":"a","Value":"","Effect":"NoSchedule",'
        '"TimeAdded":null}: taints must be unique by key and effect pair',
        'metadata.taints[2].effect: Unsupported value: "No": supported values: "NoSchedule", '
        '"PreferNoSchedule", "NoExecute"',
    ]


def test_a_config_map_has_proper_keys_and_bounded_size(api: Any) -> None:
    binary = base64.b64encode(b"x").decode()
    faults = api.faults({**CONFIG, "data": {"a/b": "", "k": ""}, "binaryData": {"k": binary}})
    assert faults == [
        'data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric '
        "characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used "
        "for validation is '[-._a-zA-Z0-9]+')",
        'data[k]: Invalid value: "k": duplicate of key present in binaryData',
    ]
    size = 1024 * 1024
    assert api.faults({**CONFIG, "data": {"k": "x" * size}}) == []
    assert api.faults({**CONFIG, "data": {"k": "x" * size}, "binaryData": {"l": binary}}) == [
        "[]: Too long: may not be more than 1048576 bytes"
    ]


@pytest.mark.parametrize("manifest", [CONFIG, SECRET])
def test_what_was_made_immutable_stays_so(api: Any, manifest: Any) -> None:
    value = base64.b64encode(b"1").decode()
    old = api.create({**manifest, "immutable": True, "data": {"a": value}})
    assert api.update(old, lambda o: o["metadata"].update(labels={"a": "b"}))[1] == []

    def change(o: Any) -> None:
        o["data"] = {}
        o["immutable"] = False

    assert api.update(old, change)[1] == [
        "immutable: Forbidden: field is immutable when `immutable` is set",
        "data: Forbidden: field is immutable when `immutable` is set",
    ]


def test_a_secrets_texts_become_data(api: Any) -> None:
    o = api.create({**SECRET, "data": {"a": "MQ==", "b": "MQ=="}, "stringData": {"b": "é"}})
    assert o["type"] == "Opaque"
    assert o["data"] == {"a": "MQ==", "b": base64.b64encode("é".encode()).decode()}
    assert "stringData" not in o


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (
            "kubernetes.io/tls",
            {},
            ["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        ),
        ("kubernetes.io/ssh-auth", {}, ["data[ssh-privatekey]: Required value"]),
        (
            "kubernetes.io/basic-auth",
            {},
            ["data[username]: Required value", "data[password]: Required value"],
        ),
        ("kubernetes.io/basic-auth", {"username": ""}, []),
        ("kubernetes.io/dockerconfigjson", {}, ["data[.dockerconfigjson]: Required value"]),
        (
            "kubernetes.io/dockerconfigjson",
            {".dockerconfigjson": "e"},
            ['data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid JSON'],
        ),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": "{}"}, []),
        (
            "kubernetes.io/service-account-token",
            {},
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
        ("example.com/mine", {}, []),
    ],
)
def test_a_secrets_type_asks_for_its_keys(
    api: Any, kind: str, data: dict[str, str], expected: list[str]
) -> None:
    assert api.faults({**SECRET, "type": kind, "stringData": data}) == expected


def test_a_secrets_type_is_immutable(api: Any) -> None:
    _, faults = api.update(api.create(SECRET), lambda o: o.update(type="x.io/y"))
    assert faults == ['type: Invalid value: "x.io/y": field is immutable']


def test_a_service_account_keeps_names_of_secrets_alone(api: Any) -> None:
    o = api.create(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "robot"},
            "secrets": [{"name": "s", "namespace": "n", "kind": "Secret"}],
        }
    )
    assert o["secrets"] == [{"name": "s"}]


def test_endpoints_have_addresses_that_can_be_reached(api: Any) -> None:
    subsets = [
        {"addresses": [{"ip": "127.0.0.1"}, {"ip": "169.254.1.1"}], "ports": [{"port": 80}]},
        {"ports": [{"port": 1}, {"port": 2}]},
    ]
    assert api.faults({**ENDPOINTS, "subsets": subsets}) == [
        'subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range '
        "(127.0.0.0/8, ::1/128)",
        'subsets[0].addresses[1].ip: Invalid value: "169.254.1.1": may not be in the link-local '
        "range (169.254.0.0/16, fe80::/10)",
        "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
        "subsets[1].ports[0].name: Required value",
        "subsets[1].ports[1].name: Required value",
    ]


def test_a_slice_holds_addresses_of_its_type(api: Any) -> None:
    endpoints = [{"addresses": ["fd00::1"]}, {"addresses": []}]
    ports = [{"port": 80}, {"port": 81}]
    assert api.faults({**SLICE, "endpoints": endpoints, "ports": ports}) == [
        'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address',
        "endpoints[1].addresses: Required value: must contain at least 1 address",
        'ports[1].name: Duplicate value: ""',
    ]
    assert api.faults({**SLICE, "addressType": "IP"}) == [
        'addressType: Unsupported value: "IP": supported values: "FQDN", "IPv4", "IPv6"'
    ]
    o = api.create({**SLICE, "ports": [{"port": 80}]})
    assert o["ports"] == [{"port": 80, "name": "", "protocol": "TCP"}]
    assert o["endpoints"] == []


def test_a_slices_generation_counts_its_endpoints(api: Any) -> None:
    old = api.create(SLICE)
    new, _ = api.update(old, lambda o: o.update(endpoints=[{"addresses": ["10.0.0.1"]}]))
    assert (old["metadata"]["generation"], new["metadata"]["generation"]) == (1, 2)
    _, faults = api.update(old, lambda o: o.update(addressType="IPv6"))
    assert faults == ['addressType: Invalid value: "IPv6": field is immutable']


def test_an_event_lies_beside_what_it_is_about(api: Any) -> None:
    assert api.faults(EVENT) == []
    elsewhere = {"involvedObject": {"kind": "Pod", "name": "web", "namespace": "other"}}
    assert api.faults({**EVENT, **elsewhere}) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]
    newer = {"eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "x"}
    assert api.faults({**EVENT, **newer}) == [
        "reportingInstance: Required value",
        "action: Required value",
        "reason: Required value",
    ]


def test_a_lease_lasts_longer_than_nothing(api: Any) -> None:
    spec = {"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "a"}
    assert api.faults({**LEASE, "spec": spec}) == [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
    ]
    kind = api.kind_of(LEASE)
    assert (kind.create_on_update, kind.unconditional_update) == (True, False)
