"""The IPAddress that goes with each address of a Service.

It is made and removed in the transaction of the Service itself, so neither is ever there without
the other, and of two servers on one store one alone can give an address. Nobody else's are touched.
Upstream: pkg/registry/core/service/ipallocator/ipallocator.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from wherry.kube.api import meta
from wherry.kube.api.families import family_of, normal
from wherry.kube.api.resources import IP_ADDRESSES
from wherry.kube.apiserver.cache import ResourceCache
from wherry.kube.apiserver.objects import Object, encode
from wherry.kube.store.types import Beside

FAMILY: Final = "ipaddress.kubernetes.io/ip-family"
MANAGED_BY: Final = "ipaddress.kubernetes.io/managed-by"
ALLOCATOR: Final = "ipallocator.k8s.io"

_OWNED: Final[dict[str, Any]] = {
    "f:metadata": {"f:labels": {".": {}, f"f:{FAMILY}": {}, f"f:{MANAGED_BY}": {}}},
    "f:spec": {
        "f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}},
    },
}


def cluster_addresses(service: Object) -> set[str]:
    """The addresses of a Service, in their one way of writing."""
    spec = service.get("spec", {})
    found = {spec.get("clusterIP"), *(spec.get("clusterIPs") or ())}
    return {normal(address) for address in found if address and address != "None"}


def labels(address: str) -> dict[str, str]:
    """Those of an IPAddress of ours."""
    return {FAMILY: family_of(address), MANAGED_BY: ALLOCATOR}


def parent(service: Object) -> dict[str, str]:
    """The reference to a Service."""
    return {
        "resource": "services",
        "namespace": meta.namespace(service),
        "name": meta.name(service),
    }


def ip_address(address: str, service: Object) -> Object:
    """The IPAddress of an address of that Service, as it is stored."""
    now = meta.now()
    return {
        "kind": IP_ADDRESSES.kind,
        "apiVersion": IP_ADDRESSES.api_version,
        "metadata": {
            "name": address,
            "uid": meta.new_uid(),
            "generation": 1,
            "creationTimestamp": now,
            "labels": labels(address),
            "managedFields": [
                {
                    "manager": "kube-apiserver",
                    "operation": "Update",
                    "apiVersion": IP_ADDRESSES.api_version,
                    "time": now,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": _OWNED,
                }
            ],
        },
        "spec": {"parentRef": parent(service)},
    }


def beside(
    new: Object | None, old: Object | None, present: ResourceCache | None
) -> Sequence[Beside]:
    """What is written beside a Service that becomes ``new`` from ``old`` (None: there is none).

    ``present`` are the IPAddresses there are: of what the Service gives up goes what refers to it.
    """
    before = cluster_addresses(old) if old else set()
    after = cluster_addresses(new) if new else set()
    if before == after:
        return ()
    writes = []
    for address in sorted(after - before):
        assert new is not None
        value = encode(ip_address(address, new))
        writes.append(Beside(IP_ADDRESSES.key("", address), value))
    for address in sorted(before - after):
        assert old is not None
        found = present.find(address) if present is not None else None
        if found is not None and (found.object.get("spec") or {}).get("parentRef") == parent(old):
            writes.append(Beside(IP_ADDRESSES.key("", address), None))
    return writes
