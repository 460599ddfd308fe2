"""What an EndpointSlice says, where all who read it must understand it alike.

https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

from typing import Any, Final

from wherry.kube.api import meta

Object = dict[str, Any]

SERVICE_NAME: Final = "kubernetes.io/service-name"
"""The label with the name of the Service that a slice is of."""


def service_key(slice_: Object) -> str:
    """``namespace/name`` of the Service that a slice is of; no name where it is of none."""
    return f"{meta.namespace(slice_)}/{meta.labels(slice_).get(SERVICE_NAME, '')}"


def is_ready(endpoint: Object) -> bool:
    """Whether it takes new connections; so it is where nothing is said."""
    return (endpoint.get("conditions") or {}).get("ready") is not False


def still_serves(endpoint: Object) -> bool:
    """Whether it ends, but answers until then: the last choice where none is ready. It answers
    where nothing is said of that."""
    conditions = endpoint.get("conditions") or {}
    return bool(conditions.get("terminating")) and conditions.get("serving") is not False
