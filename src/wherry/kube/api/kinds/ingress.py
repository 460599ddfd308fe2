"""Ingresses and their classes.

Upstream: pkg/apis/networking/v1/defaults.go, pkg/apis/networking/validation/validation.go and
pkg/registry/networking/ingress.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age

CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_PARTS = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDS = ("/..", "/.")
_SHOWN_HOSTS: Final = 3
_ADDRESS_WIDTH: Final = 16
_CONTROLLER_LIMIT: Final = 250


class Ingress(Kind):
    """What is reached from outside by host and path."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Class", description="Who implements it."),
        Column("Hosts", description="The names it answers to."),
        Column("Address", description="Where it is reached."),
        Column("Ports", description="The ports it is reached on."),
        AGE_COLUMN,
    )

    def initial_status(self, o: Object) -> Object:
        return {"loadBalancer": {}}

    def validate_body(self, o: Object) -> list[FieldError]:
        faults = self.validate_change(o, o)
        annotations = o["metadata"].get("annotations") or {}
        named = annotations.get(CLASS_ANNOTATION)
        if named is not None and (o.get("spec") or {}).get("ingressClassName") is not None:
            where = f"metadata.annotations[{CLASS_ANNOTATION}]"
            why = "can not be set when the class field is also set"
            faults.append(fields.invalid(where, named, why))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = new.get("spec") or {}
        rules, backend = spec.get("rules") or (), spec.get("defaultBackend")
        if not rules and backend is None:
            why = "either `defaultBackend` or `rules` must be specified"
            faults.append(fields.invalid("spec", None, why))
        if backend is not None:
            _check_backend(backend, "spec.defaultBackend", faults)
        for index, rule in enumerate(rules):
            _check_rule(rule, f"spec.rules[{index}]", faults)
        for index, tls in enumerate(spec.get("tls") or ()):
            _check_tls(tls, f"spec.tls[{index}]", faults)
        if (name := spec.get("ingressClassName")) is not None:
            checks.dns_subdomain(name, "spec.ingressClassName", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        named = (meta.get("annotations") or {}).get(CLASS_ANNOTATION)
        return [
            meta.get("name", ""),
            spec.get("ingressClassName") or named or "<none>",
            _hosts(spec.get("rules") or ()),
            _addresses((status.get("loadBalancer") or {}).get("ingress") or ()),
            "80, 443" if spec.get("tls") else "80",
            age(meta.get("creationTimestamp"), now),
        ]


class IngressClass(Kind):
    """Who implements Ingresses."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Controller", description="The controller that implements it."),
        Column("Parameters", description="Where that one finds more to know."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        if (parameters := o.setdefault("spec", {}).get("parameters")) is not None:
            parameters.setdefault("scope", "Cluster")

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        controller = spec.get("controller", "")
        if len(controller) > _CONTROLLER_LIMIT:
            faults.append(fields.too_long("spec.controller", _CONTROLLER_LIMIT))
        checks.domain_path(controller, "spec.controller", faults)
        if (parameters := spec.get("parameters")) is not None:
            _check_parameters(parameters, "spec.parameters", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        controller = (new.get("spec") or {}).get("controller", "")
        before = (old.get("spec") or {}).get("controller", "")
        return fields.immutable("spec.controller", controller, before) + self.validate_body(new)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        shown = "<none>"
        if parameters := spec.get("parameters"):
            group = parameters.get("apiGroup")
            shown = parameters.get("kind", "") + (f".{group}" if group else "")
            shown = f"{shown}/{parameters.get('name', '')}"
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), spec.get("controller", ""), shown, created]


def _check_rule(rule: Object, path: str, faults: Faults) -> None:
    if host := rule.get("host"):
        where = f"{path}.host"
        if checks.parse_ip(host) is not None:
            why = "must be a DNS name, not an IP address"
            faults.append(fields.invalid(where, host, why))
        _check_host(host, where, faults)
    if (http := rule.get("http")) is None:
        return
    paths = http.get("paths") or ()
    if not paths:
        faults.append(fields.required(f"{path}.http.paths"))
    for index, entry in enumerate(paths):
        _check_path(entry, f"{path}.http.paths[{index}]", faults)


def _check_host(host: str, path: str, faults: Faults) -> None:
    wild = "*" in host
    rule = names.is_wildcard_dns1123_subdomain if wild else names.is_dns1123_subdomain
    checks.check(rule, host, path, faults)


def _check_path(entry: Object, path: str, faults: Faults) -> None:
    kind, text = entry.get("pathType"), entry.get("path", "")
    where = f"{path}.path"
    if kind is None:
        faults.append(fields.required(f"{path}.pathType", "pathType must be specified"))
    elif kind not in _PATH_TYPES:
        faults.append(fields.not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            faults.append(fields.invalid(where, text, "must be an absolute path"))
    else:
        if not text.startswith("/"):
            faults.append(fields.invalid(where, text, "must be an absolute path"))
        for part in _BAD_PARTS:
            if part in text:
                faults.append(fields.invalid(where, text, f"must not contain '{part}'"))
        for end in _BAD_ENDS:
            if text.endswith(end):
                faults.append(fields.invalid(where, text, f"cannot end with '{end}'"))
    _check_backend(entry.get("backend") or {}, f"{path}.backend", faults)


def _check_backend(backend: Object, path: str, faults: Faults) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        why = "cannot set both resource and service backends"
        faults.append(fields.invalid(path, "", why))
    elif resource is not None:
        _check_reference(resource, f"{path}.resource", faults)
    elif service is None:
        faults.append(fields.invalid(path, "", "resource or service backend is required"))
    else:
        name, port = service.get("name", ""), service.get("port") or {}
        if not name:
            faults.append(fields.required(f"{path}.service.name"))
        else:
            checks.check(names.is_dns1123_label, name, f"{path}.service.name", faults)
        if port.get("name") and port.get("number"):
            why = "cannot set both port name & port number"
            faults.append(fields.invalid(path, "", why))
        elif port.get("name"):
            where = f"{path}.service.port.name"
            checks.check(names.is_port_name, port["name"], where, faults)
        elif port.get("number"):
            checks.port_number(port["number"], f"{path}.service.port.number", faults)
        else:
            faults.append(fields.required(path, "port name or number is required"))


def _check_reference(reference: Object, path: str, faults: Faults) -> None:
    if group := reference.get("apiGroup"):
        checks.dns_subdomain(group, f"{path}.apiGroup", faults)
    for name in ("kind", "name"):
        value = reference.get(name, "")
        if not value:
            faults.append(fields.required(f"{path}.{name}", f"{name} is required"))
        else:
            checks.check(names.is_path_segment, value, f"{path}.{name}", faults)


def _check_parameters(parameters: Object, path: str, faults: Faults) -> None:
    _check_reference(parameters, path, faults)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        faults.append(fields.required(f"{path}.scope"))
    elif scope not in ("Cluster", "Namespace"):
        faults.append(fields.not_supported(f"{path}.scope", scope, ("Cluster", "Namespace")))
    elif scope == "Namespace":
        if not namespace:
            why = "`parameters.scope` is set to 'Namespace'"
            faults.append(fields.required(f"{path}.namespace", why))
        else:
            checks.dns_label(namespace, f"{path}.namespace", faults)
    elif namespace is not None:
        why = "`parameters.scope` is set to 'Cluster'"
        faults.append(fields.forbidden(f"{path}.namespace", why))


def _check_tls(tls: Object, path: str, faults: Faults) -> None:
    for index, host in enumerate(tls.get("hosts") or ()):
        _check_host(host, f"{path}.hosts[{index}]", faults)
    if name := tls.get("secretName"):
        checks.dns_subdomain(name, f"{path}.secretName", faults)


def _hosts(rules: Any) -> str:
    hosts = [rule["host"] for rule in rules if rule.get("host")]
    text = ",".join(hosts[:_SHOWN_HOSTS])
    if len(hosts) > _SHOWN_HOSTS:
        return f"{text} + {len(hosts) - _SHOWN_HOSTS} more..."
    return text or "*"


def _addresses(ingress: Any) -> str:
    found = {entry.get("ip") or entry.get("hostname") or "" for entry in ingress}
    text = ",".join(sorted(found - {""}))
    return f"{text[: _ADDRESS_WIDTH - 3]}..." if len(text) > _ADDRESS_WIDTH else text
