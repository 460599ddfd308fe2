"""What a Service may say, and what of it may change.

Upstream: ValidateService and ValidateServiceUpdate in pkg/apis/core/validation/validation.go. What
depends on the cluster's address families is in ``service_families``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.checks import Faults

Spec = Mapping[str, Any]

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITIES = ("ClientIP", "None")
_POLICIES = ("Cluster", "Local")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_AFFINITY_LIMIT: Final = 86400
_SOURCE_RANGES: Final = "service.beta.kubernetes.io/load-balancer-source-ranges"
_TOPOLOGY_HINTS: Final = "service.kubernetes.io/topology-aware-hints"
_TOPOLOGY_MODE: Final = "service.kubernetes.io/topology-mode"
_BALANCER_ONLY: Final = "may only be used when `type` is 'LoadBalancer'"
_ONCE: Final = "may not change once set"


def is_headless(spec: Spec) -> bool:
    """A service without an address of its own."""
    return spec.get("clusterIPs") == ["None"]


def needs_cluster_ip(spec: Spec) -> bool:
    return spec.get("type") in ("ClusterIP", "NodePort", "LoadBalancer")


def needs_node_port(spec: Spec) -> bool:
    balanced = spec.get("type") == "LoadBalancer"
    allocates = spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort" or (balanced and allocates)


def needs_health_check(spec: Spec) -> bool:
    balanced = spec.get("type") == "LoadBalancer"
    return balanced and spec.get("externalTrafficPolicy") == "Local"


def is_external(spec: Spec) -> bool:
    """Reachable from outside the cluster."""
    if spec.get("type") in ("LoadBalancer", "NodePort"):
        return True
    return spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs"))


def check(service: Spec, faults: Faults) -> None:
    """Faults of a service, new or changed."""
    spec = service.get("spec") or {}
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    kind = spec.get("type", "")
    mode, hints = annotations.get(_TOPOLOGY_MODE), annotations.get(_TOPOLOGY_HINTS)
    if mode is not None and hints is not None and mode != hints:
        why = f"must match annotations[{_TOPOLOGY_HINTS}] when both are specified"
        faults.append(fields.invalid(f"metadata.annotations[{_TOPOLOGY_MODE}]", mode, why))
    headless = is_headless(spec)
    if not spec.get("ports") and not headless and kind != "ExternalName":
        faults.append(fields.required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and headless:
        why = f"may not be set to 'None' for {kind} services"
        faults.append(fields.invalid("spec.clusterIPs[0]", "None", why))
    elif kind == "ExternalName":
        _check_external_name(spec, faults)
    _check_ports(spec, kind, faults)
    checks.labels(spec.get("selector") or {}, "spec.selector", faults)
    _check_affinity(spec, faults)
    if kind != "ExternalName":
        _check_addresses(spec, faults)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        path = f"spec.externalIPs[{index}]"
        if checks.ip(address, path, faults):
            checks.non_special_ip(address, path, faults)
    checks.one_of(kind, _TYPES, "spec.type", faults)
    _check_source_ranges(spec, annotations, kind, faults)
    _check_balancer(spec, kind, faults)
    _check_policies(spec, kind, faults)


def _check_external_name(spec: Spec, faults: Faults) -> None:
    for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(name):
            why = "may not be set for ExternalName services"
            faults.append(fields.forbidden(f"spec.{name}", why))
    name = spec.get("externalName", "").removesuffix(".")
    if name:
        checks.dns_subdomain(name, "spec.externalName", faults)
    else:
        faults.append(fields.required("spec.externalName"))


def _check_ports(spec: Spec, kind: str, faults: Faults) -> None:
    ports = spec.get("ports") or ()
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"spec.ports[{index}]", port.get("name", "")
        if not name:
            if len(ports) > 1:
                faults.append(fields.required(f"{path}.name"))
        else:
            checks.dns_label(name, f"{path}.name", faults)
            if name in seen:
                faults.append(fields.duplicate(f"{path}.name", name))
            seen.add(name)
        checks.port_number(port.get("port", 0), f"{path}.port", faults)
        checks.protocol(port.get("protocol"), f"{path}.protocol", faults)
        checks.port(port.get("targetPort", 0), f"{path}.targetPort", faults)
        if (protocol := port.get("appProtocol")) is not None:
            checks.qualified_name(protocol, f"{path}.appProtocol", faults)
    node_ports: set[tuple[str, int]] = set()
    numbers: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        path, protocol = f"spec.ports[{index}]", port.get("protocol", "")
        if node_port := port.get("nodePort"):
            if kind == "ClusterIP":
                why = "may not be used when `type` is 'ClusterIP'"
                faults.append(fields.forbidden(f"{path}.nodePort", why))
            if (protocol, node_port) in node_ports:
                faults.append(fields.duplicate(f"{path}.nodePort", node_port))
            node_ports.add((protocol, node_port))
        number = port.get("port", 0)
        if (protocol, number) in numbers:
            shown = fields.Struct(
                Name="",
                Protocol=protocol,
                AppProtocol=None,
                Port=number,
                TargetPort=0,
                NodePort=0,
            )
            faults.append(fields.duplicate(path, shown))
        numbers.add((protocol, number))


def _check_affinity(spec: Spec, faults: Faults) -> None:
    affinity, config = spec.get("sessionAffinity"), spec.get("sessionAffinityConfig")
    checks.one_of(affinity, _AFFINITIES, "spec.sessionAffinity", faults)
    path = "spec.sessionAffinityConfig"
    if affinity == "None" and config is not None:
        why = "must not be set when session affinity is None"
        faults.append(fields.forbidden(path, why))
    if affinity != "ClientIP":
        return
    why = "when session affinity type is ClientIP"
    if config is None:
        faults.append(fields.required(path, why))
    elif config.get("clientIP") is None:
        faults.append(fields.required(f"{path}.clientIP", why))
    elif (seconds := config["clientIP"].get("timeoutSeconds")) is None:
        faults.append(fields.required(f"{path}.clientIP.timeoutSeconds", why))
    elif not 0 < seconds <= _AFFINITY_LIMIT:
        why = f"must be greater than 0 and less than {_AFFINITY_LIMIT}"
        faults.append(fields.invalid(f"{path}.clientIP.timeoutSeconds", seconds, why))


def _check_addresses(spec: Spec, faults: Faults) -> None:
    first, listed = spec.get("clusterIP", ""), spec.get("clusterIPs") or []
    path = "spec.clusterIPs"
    if first and not listed:
        faults.append(fields.required(path))
    elif first and listed[0] != first:
        faults.append(fields.invalid(path, listed, "first value must match `clusterIP`"))
    elif listed and not first:
        why = "must be empty when `clusterIP` is not specified"
        faults.append(fields.invalid(path, listed, why))
    families = spec.get("ipFamilies") or []
    policy = spec.get("ipFamilyPolicy")
    for index, family in enumerate(families):
        where = f"spec.ipFamilies[{index}]"
        if family not in _FAMILIES:
            faults.append(fields.not_supported(where, family, _FAMILIES))
        if family in families[:index]:
            faults.append(fields.duplicate(where, family))
    if policy is not None and policy not in _FAMILY_POLICIES:
        where = "spec.ipFamilyPolicy"
        faults.append(fields.not_supported(where, policy, _FAMILY_POLICIES))
    if _check_listed(listed, faults):
        if not checks.one_per_family(listed[:2]):
            why = "may specify no more than one IP for each IP family"
            faults.append(fields.invalid(path, listed, why))
        if not is_headless(spec):
            for index, (address, family) in enumerate(zip(listed, families, strict=False)):
                if (":" in address) != (family == "IPv6"):
                    why = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
                    faults.append(fields.invalid(f"{path}[{index}]", address, why))


def _check_listed(listed: list[str], faults: Faults) -> bool:
    """Whether every one of the addresses is one."""
    path, valid = "spec.clusterIPs", True
    for index, address in enumerate(listed):
        if index == 0 and address == "None":
            if len(listed) > 1:
                why = "'None' must be the first and only value"
                faults.append(fields.invalid(path, listed, why))
                valid = False
            continue
        valid = checks.ip(address, f"{path}[{index}]", faults) and valid
    if len(listed) > 2:
        faults.append(fields.invalid(path, listed, "may only hold up to 2 values"))
    return valid


def _check_source_ranges(
    spec: Spec, annotations: Mapping[str, str], kind: str, faults: Faults
) -> None:
    if ranges := spec.get("loadBalancerSourceRanges"):
        path = "spec.LoadBalancerSourceRanges"
        if kind != "LoadBalancer":
            faults.append(fields.forbidden(path, _BALANCER_ONLY))
        for index, value in enumerate(ranges):
            checks.cidr(value.strip(), f"{path}[{index}]", faults)
    elif (text := annotations.get(_SOURCE_RANGES)) is not None:
        path = f"metadata.annotations[{_SOURCE_RANGES}]"
        if kind != "LoadBalancer":
            faults.append(fields.forbidden(path, _BALANCER_ONLY))
        if text.strip():
            for value in text.split(","):
                checks.cidr(value.strip(), path, faults)


def _check_balancer(spec: Spec, kind: str, faults: Faults) -> None:
    allocates = spec.get("allocateLoadBalancerNodePorts")
    if allocates is not None and kind != "LoadBalancer":
        path = "spec.allocateLoadBalancerNodePorts"
        faults.append(fields.forbidden(path, _BALANCER_ONLY))
    if allocates is None and kind == "LoadBalancer":
        faults.append(fields.required("allocateLoadBalancerNodePorts"))
    if (name := spec.get("loadBalancerClass")) is not None:
        if kind == "LoadBalancer":
            checks.qualified_name(name, "spec.loadBalancerClass", faults)
        else:
            faults.append(fields.forbidden("spec.loadBalancerClass", _BALANCER_ONLY))


def _check_policies(spec: Spec, kind: str, faults: Faults) -> None:
    path, policy = "spec.externalTrafficPolicy", spec.get("externalTrafficPolicy", "")
    if is_external(spec):
        checks.one_of(policy, _POLICIES, path, faults)
    elif policy:
        why = "may only be set for externally-accessible services"
        faults.append(fields.invalid(path, policy, why))
    path, number = "spec.healthCheckNodePort", spec.get("healthCheckNodePort", 0)
    if not needs_health_check(spec):
        if number:
            why = (
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` "
                "is 'Local'"
            )
            faults.append(fields.invalid(path, number, why))
    elif number:  # none yet: one is allocated
        checks.port_number(number, path, faults)
    path, internal = "spec.internalTrafficPolicy", spec.get("internalTrafficPolicy")
    checks.one_of(internal, _POLICIES, path, faults, needed=needs_cluster_ip(spec))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        path = "spec.trafficDistribution"
        faults.append(fields.not_supported(path, distribution, _DISTRIBUTIONS))


def check_change(new: Spec, old: Spec, faults: Faults) -> None:
    """Faults of the step from one service to the other."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    external = "ExternalName" in (spec.get("type"), before.get("type"))
    if not external:
        _check_same_addresses(spec, before, faults)
        _check_same_families(spec, before, faults)
    if spec.get("type") == before.get("type") == "LoadBalancer":
        name = spec.get("loadBalancerClass")
        if name != before.get("loadBalancerClass"):
            faults.append(fields.invalid("spec.loadBalancerClass", name, _ONCE))
    checked = needs_health_check(spec) and needs_health_check(before)
    if checked and spec.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
        faults.append(fields.forbidden("spec.healthCheckNodePort", fields.IMMUTABLE))


def _check_same_addresses(spec: Spec, before: Spec, faults: Faults) -> None:
    if is_headless(spec) and is_headless(before):
        return
    now, previous = spec.get("clusterIPs") or [], before.get("clusterIPs") or []
    path = "spec.clusterIPs"
    if len(now) == len(previous):
        for index, address in enumerate(previous):
            if address != now[index]:
                faults.append(fields.invalid(f"{path}[{index}]", now, _ONCE))
        return
    if previous and not now:
        why = "primary clusterIP can not be unset"
        faults.append(fields.invalid(f"{path}[0]", None, why))
    elif previous and now[0] != previous[0]:
        faults.append(fields.invalid(f"{path}[0]", now, _ONCE))
    if len(previous) > len(now) == 1:
        _check_single(spec, "cluster IP", faults)


def _check_same_families(spec: Spec, before: Spec, faults: Faults) -> None:
    if is_headless(spec) or is_headless(before):
        return
    now, previous = spec.get("ipFamilies") or [], before.get("ipFamilies") or []
    if previous and now and now[0] != previous[0]:
        faults.append(fields.invalid("spec.ipFamilies[0]", now, _ONCE))
    if len(previous) > len(now) == 1:
        _check_single(spec, "IP family", faults)


def _check_single(spec: Spec, what: str, faults: Faults) -> None:
    policy = spec.get("ipFamilyPolicy")
    if policy != "SingleStack":
        why = f"must be 'SingleStack' to release the secondary {what}"
        faults.append(fields.invalid("spec.ipFamilyPolicy", policy, why))


def check_status(service: Spec, faults: Faults) -> None:
    """Faults of a service's status."""
    status, spec = service.get("status") or {}, service.get("spec") or {}
    points = (status.get("loadBalancer") or {}).get("ingress") or ()
    path = "status.loadBalancer.ingress"
    if points and spec.get("type") != "LoadBalancer":
        why = "may only be used when `spec.type` is 'LoadBalancer'"
        faults.append(fields.forbidden(path, why))
        return
    for index, point in enumerate(points):
        where, mode = f"{path}[{index}]", point.get("ipMode")
        if address := point.get("ip"):
            checks.ip(address, f"{where}.ip", faults)
            if mode is None:
                why = "must be specified when `ip` is set"
                faults.append(fields.required(f"{where}.ipMode", why))
        elif mode is not None:
            why = "may not be specified when `ip` is not set"
            faults.append(fields.forbidden(f"{where}.ipMode", why))
        if mode is not None and mode not in ("Proxy", "VIP"):
            faults.append(fields.not_supported(f"{where}.ipMode", mode, ("Proxy", "VIP")))
        if hostname := point.get("hostname"):
            checks.check(names.is_dns1123_subdomain, hostname, f"{where}.hostname", faults)
            if checks.parse_ip(hostname) is not None:
                why = "must be a DNS name, not an IP address"
                faults.append(fields.invalid(f"{where}.hostname", hostname, why))
