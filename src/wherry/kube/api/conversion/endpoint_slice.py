"""EndpointSlices of discovery.k8s.io/v1beta1: where an endpoint is was said by a map of labels.

Upstream: pkg/apis/discovery/v1beta1/conversion.go.
"""

from __future__ import annotations

from collections.abc import Callable

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.kinds.base import Object

_ZONE = "topology.kubernetes.io/zone"
_HOSTNAME = "kubernetes.io/hostname"


def to_stored(o: Object) -> Object:
    """From v1beta1."""
    return _each(o, _to_fields)


def from_stored(o: Object) -> Object:
    """To v1beta1."""
    return _each(o, _to_topology)


def _each(o: Object, convert: Callable[[Object], Object]) -> Object:
    if not o.get("endpoints"):
        return o
    return {**o, "endpoints": [convert(endpoint) for endpoint in o["endpoints"]]}


def _to_fields(endpoint: Object) -> Object:
    topology = endpoint.get("topology")
    if topology is None:
        return endpoint
    out = {key: value for key, value in endpoint.items() if key != "topology"}
    rest = dict(topology)
    if (zone := rest.pop(_ZONE, None)) is not None:
        out["zone"] = zone
    if rest.get(_HOSTNAME) == endpoint.get("nodeName", ""):
        rest.pop(_HOSTNAME, None)
    if rest:
        out["deprecatedTopology"] = rest
    return out


def _to_topology(endpoint: Object) -> Object:
    topology = dict(endpoint.get("deprecatedTopology") or ())
    if "zone" in endpoint:
        topology[_ZONE] = endpoint["zone"]
    if "nodeName" in endpoint:
        topology[_HOSTNAME] = endpoint["nodeName"]
    out = {k: v for k, v in endpoint.items() if k not in ("deprecatedTopology", "zone")}
    if topology:
        out["topology"] = topology
    return out


ENDPOINT_SLICE = Conversion(to_stored, from_stored)
