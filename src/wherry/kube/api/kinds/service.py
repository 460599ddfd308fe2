"""Services.

Address families, addresses and ports on the nodes that are still missing here are given by the API
server when it stores the service: they depend on the cluster.
Upstream: pkg/registry/core/service/{strategy,storage/storage}.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import label_selectors, metadata, service_families, service_rules
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.label_selectors import NONE
from wherry.kube.api.kinds.service_rules import (
    is_external,
    needs_cluster_ip,
    needs_health_check,
    needs_node_port,
)

_AFFINITY_SECONDS: Final = 10800


class Service(Kind):
    """One stable address for many pods."""

    columns = (
        NAME_COLUMN,
        Column("Type", description="How the service is reached."),
        Column("Cluster-IP", description="Its address inside the cluster."),
        Column("External-IP", description="Its addresses outside."),
        Column("Port(s)", description="Its ports, with those on the nodes behind the colon."),
        AGE_COLUMN,
        Column("Selector", description="The selector of its pods.", priority=1),
    )
    create_on_update = True
    field_names = frozenset({"spec.clusterIP", "spec.type"})

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        return metadata.dns_label(name, prefix)

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        if not spec.get("sessionAffinity"):
            spec["sessionAffinity"] = "None"
        if spec["sessionAffinity"] == "None":
            spec.pop("sessionAffinityConfig", None)
        elif spec["sessionAffinity"] == "ClientIP":
            client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
            if client.get("timeoutSeconds") is None:
                spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": _AFFINITY_SECONDS}}
        if not spec.get("type"):
            spec["type"] = "ClusterIP"
        for port in spec.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"
            if not port.get("targetPort"):
                port["targetPort"] = port.get("port", 0)
        if is_external(spec) and not spec.get("externalTrafficPolicy"):
            spec["externalTrafficPolicy"] = "Cluster"
        if spec["type"] in ("ClusterIP", "NodePort", "LoadBalancer"):
            spec.setdefault("internalTrafficPolicy", "Cluster")
        if spec["type"] == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
            ingress = ((o.get("status") or {}).get("loadBalancer") or {}).get("ingress")
            for point in ingress or ():
                if point.get("ip"):
                    point.setdefault("ipMode", "VIP")

    def initial_status(self, o: Object) -> Object:
        return {"loadBalancer": {}}

    def prepare_create(self, o: Object) -> None:
        super().prepare_create(o)
        spec = o.setdefault("spec", {})
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        spec, before = new.setdefault("spec", {}), old.get("spec") or {}
        _keep_allocated(spec, before)
        _pair_cluster_ips(spec, before)
        _drop_unneeded(spec, before)
        if needs_cluster_ip(spec) and needs_cluster_ip(before):
            for name in ("ipFamilies", "ipFamilyPolicy"):
                if name in before:
                    spec.setdefault(name, before[name])
            service_families.release(spec, before)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        service_rules.check(o, faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        service_rules.check_change(new, old, faults)
        service_rules.check(new, faults)
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        service_rules.check_status(new, faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or NONE]
        return [
            meta.get("name", ""),
            spec.get("type", ""),
            addresses[0],
            _external_address(o),
            ",".join(map(_port_text, spec.get("ports") or ())) or NONE,
            age(meta.get("creationTimestamp"), now),
            label_selectors.labels_text(spec.get("selector")),
        ]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        spec = o.get("spec") or {}
        values["spec.clusterIP"] = spec.get("clusterIP", "")
        values["spec.type"] = spec.get("type", "")
        return values


def _keep_allocated(spec: Object, before: Object) -> None:
    """An update that leaves out what was allocated keeps it."""
    if needs_cluster_ip(spec) and needs_cluster_ip(before):
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        same = spec.get("clusterIP") == before.get("clusterIP")
        if not spec.get("clusterIPs") and same and before.get("clusterIPs"):
            spec["clusterIPs"] = list(before["clusterIPs"])
    if needs_node_port(spec) and needs_node_port(before):
        _keep_node_ports(spec, before)
    checked = needs_health_check(spec) and needs_health_check(before)
    if checked and not spec.get("healthCheckNodePort") and "healthCheckNodePort" in before:
        spec["healthCheckNodePort"] = before["healthCheckNodePort"]


def _keep_node_ports(spec: Object, before: Object) -> None:
    ports, previous = spec.get("ports") or (), before.get("ports") or ()
    taken = {port["nodePort"] for port in ports if port.get("nodePort")}
    by_name = {p.get("name", ""): p.get("nodePort", 0) for p in previous}
    by_port = {(p.get("protocol"), p.get("port")): p.get("nodePort", 0) for p in previous}
    for port in ports:
        if port.get("nodePort"):
            continue
        number = by_port.get((port.get("protocol"), port.get("port")))
        number = number or by_name.get(port.get("name", ""), 0)
        if number and number not in taken:
            port["nodePort"] = number
            taken.add(number)


def _pair_cluster_ips(spec: Object, before: Object) -> None:
    """``clusterIP`` is the first of ``clusterIPs``; who changes only the one means both."""
    if before.get("clusterIP") and not spec.get("clusterIP"):
        spec.pop("clusterIPs", None)
    elif spec.get("clusterIP") and spec["clusterIP"] != before.get("clusterIP"):
        listed = spec.get("clusterIPs") or []
        if listed == (before.get("clusterIPs") or []):
            spec["clusterIPs"] = [spec["clusterIP"], *listed[1:]]


def _drop_unneeded(spec: Object, before: Object) -> None:
    """A change of type drops what the old type had and the new one cannot, unless it was changed in
    the same request (then validation refuses it)."""

    def drop(*names: str) -> None:
        if all(spec.get(name) == before.get(name) for name in names):
            for name in names:
                spec.pop(name, None)

    if needs_cluster_ip(before) and not needs_cluster_ip(spec):
        drop("clusterIP", "clusterIPs")
        drop("ipFamilies")
        drop("ipFamilyPolicy")
    if needs_node_port(before) and not needs_node_port(spec):
        ports, previous = spec.get("ports") or (), before.get("ports") or ()
        numbers = {port.get("nodePort", 0) for port in ports}
        if numbers <= {port.get("nodePort", 0) for port in previous} | {0}:
            for port in ports:
                port.pop("nodePort", None)
    if needs_health_check(before) and not needs_health_check(spec):
        drop("healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and spec.get("type") != "LoadBalancer":
        drop("allocateLoadBalancerNodePorts")
        drop("loadBalancerClass")
    if is_external(before) and not is_external(spec):
        drop("externalTrafficPolicy")


def _external_address(o: Object) -> str:
    spec = o.get("spec") or {}
    outside = spec.get("externalIPs") or []
    match spec.get("type"):
        case "ClusterIP" | "NodePort":
            return ",".join(outside) or NONE
        case "LoadBalancer":
            ingress = ((o.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
            points = {point.get("ip") or point.get("hostname") or "" for point in ingress} - {""}
            return ",".join([*sorted(points), *outside]) or "<pending>"
        case "ExternalName":
            return str(spec.get("externalName", ""))
    return "<unknown>"


def _port_text(port: Object) -> str:
    number, protocol = port.get("port", 0), port.get("protocol", "")
    if node_port := port.get("nodePort"):
        return f"{number}:{node_port}/{protocol}"
    return f"{number}/{protocol}"
