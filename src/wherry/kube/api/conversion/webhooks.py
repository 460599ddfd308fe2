"""Webhook configurations of admissionregistration.k8s.io/v1beta1: more could be left out.

Upstream: pkg/apis/admissionregistration/v1beta1/defaults.go, .../validation/validation.go.
"""

from __future__ import annotations

import re

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Object

_DEFAULTS = {
    "failurePolicy": "Ignore",
    "matchPolicy": "Exact",
    "sideEffects": "Unknown",
    "timeoutSeconds": 30,
}


def _default(o: Object) -> None:
    for webhook in o.get("webhooks") or ():
        for name, value in _DEFAULTS.items():
            webhook.setdefault(name, value)
        if not webhook.get("admissionReviewVersions"):
            webhook["admissionReviewVersions"] = ["v1beta1"]


_FREE = re.compile(r"webhooks\[\d+\]\.(sideEffects|admissionReviewVersions|name)$")


def _fault(fault: FieldError) -> FieldError | None:
    match = _FREE.match(fault.field)
    if match is None:
        return fault
    match match[1], fault.reason:
        case ("sideEffects", "FieldValueNotSupported") if '"Unknown"' in fault.detail[:40]:
            return None
        case ("sideEffects", "FieldValueNotSupported") if '"Some"' in fault.detail[:40]:
            return None
        case ("name", "FieldValueDuplicate"):
            return None
    return fault


WEBHOOKS = Conversion(default=_default, fault=_fault)
