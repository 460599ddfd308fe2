"""What there is in the cluster, and which Ingresses of it are ours."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wherry.kube.api import meta

Object = dict[str, Any]

CONTROLLER: Final = "k8s.io/ingress-nginx"
"""Of IngressClasses that are ours: manifests of many tutorials name it."""
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
_DEFAULT_CLASS: Final = "ingressclass.kubernetes.io/is-default-class"


@dataclass(frozen=True, slots=True)
class World:
    """What there is; each function takes a namespace and a name."""

    ingresses: Sequence[Object]
    service: Callable[[str, str], Object | None]
    slices: Callable[[str, str], Iterable[Object]]
    secret: Callable[[str, str], Object | None]
    default_certificate: str = ""
    """``namespace/name`` of the Secret for hosts that have none."""
    default_backend: str = ""
    """``namespace/name`` of the Service for what no rule has."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The data of the controller's ConfigMap."""


def is_ours(ingress: Object, classes: Iterable[Object], annotation: str = "nginx") -> bool:
    """Whether the Ingress is for us: by its class, by the old annotation, or as the default."""
    named = (ingress.get("spec") or {}).get("ingressClassName")
    ours = {c["metadata"]["name"]: c for c in classes if _controller(c) == CONTROLLER}
    if named is not None:
        return named in ours
    old = meta.annotations(ingress).get(CLASS_ANNOTATION)
    if old is not None:
        return old == annotation or old in ours
    return any(meta.annotations(c).get(_DEFAULT_CLASS) == "true" for c in ours.values())


def _controller(ingress_class: Object) -> str:
    return (ingress_class.get("spec") or {}).get("controller") or ""


def by_age(ingresses: Iterable[Object]) -> list[Object]:
    """The oldest first: what is later must bear what is there."""
    return sorted(ingresses, key=_age)


def _age(ingress: Object) -> tuple[str, str]:
    return ingress["metadata"].get("creationTimestamp") or "", meta.key(ingress)


def without(world: World, refused: Iterable[str]) -> World:
    """The world without some Ingresses."""
    left = set(refused)
    return replace(world, ingresses=[i for i in world.ingresses if meta.key(i) not in left])


def data(secret: Object, key: str) -> bytes:
    """What a Secret holds; empty where that is nothing, or cannot be read."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "", validate=True)
    except (binascii.Error, ValueError):
        return b""
