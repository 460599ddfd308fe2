"""Ingresses before networking.k8s.io/v1: a backend was a service's name and port in two fields.

Upstream: pkg/apis/networking/v1beta1/conversion.go, pkg/apis/extensions/v1beta1/conversion.go.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from wherry.kube.api.conversion.version import Conversion, Convert
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Object


def _default(o: Object) -> None:
    for rule in (o.get("spec") or {}).get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            path.setdefault("pathType", "ImplementationSpecific")


def to_stored(o: Object) -> Object:
    """From v1beta1."""
    return _with_backends(o, "backend", "defaultBackend", _to_service)


def from_stored(o: Object) -> Object:
    """To v1beta1."""
    return _with_backends(o, "defaultBackend", "backend", _from_service)


def _with_backends(o: Object, old: str, new: str, convert: Convert) -> Object:
    """With every backend converted, the default one moved from field ``old`` to ``new``."""
    if "spec" not in o:
        return o
    spec = {key: value for key, value in o["spec"].items() if key != old}
    if (backend := o["spec"].get(old)) is not None:
        spec[new] = convert(backend)
    if "rules" in spec:
        spec["rules"] = [_rule(rule, convert) for rule in spec["rules"]]
    return {**o, "spec": spec}


def _rule(rule: Object, convert: Convert) -> Object:
    http = rule.get("http")
    if http is None or "paths" not in http:
        return rule
    paths = [
        {**path, "backend": convert(path["backend"])} if "backend" in path else path
        for path in http["paths"]
    ]
    return {**rule, "http": {**http, "paths": paths}}


def _to_service(backend: Object) -> Object:
    out = {k: v for k, v in backend.items() if k not in ("serviceName", "servicePort")}
    name, port = backend.get("serviceName"), backend.get("servicePort")
    if name or isinstance(port, str) or port:
        service: Object = {}
        if name:
            service["name"] = name
        if port:
            service["port"] = {"name" if isinstance(port, str) else "number": port}
        out["service"] = service
    return out


def _from_service(backend: Object) -> Object:
    service = backend.get("service")
    if service is None:
        return backend
    port: Any = service.get("port") or {}
    out = {k: v for k, v in backend.items() if k != "service"}
    if name := service.get("name"):
        out["serviceName"] = name
    if (shown := port.get("name") or port.get("number")) is not None:
        out["servicePort"] = shown
    return out


_WORDS = (
    (re.compile(r"^spec\.defaultBackend\b"), "spec.backend"),
    (re.compile(r"\.service\.name$"), ".serviceName"),
    (re.compile(r"\.service\.port(\.name|\.number)?$"), ".servicePort"),
)


def _fault(fault: FieldError) -> FieldError:
    path = fault.field
    for pattern, old in _WORDS:
        path = pattern.sub(old, path)
    return replace(fault, field=path, detail=fault.detail.replace("`defaultBackend`", "`backend`"))


INGRESS = Conversion(to_stored, from_stored, _default, _fault)
