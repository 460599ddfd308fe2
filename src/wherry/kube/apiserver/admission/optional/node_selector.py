"""PodNodeSelector: the pods of a namespace go to the nodes that its annotation selects.

Configured by ``podNodeSelectorPluginConfig``: ``clusterDefaultNodeSelector`` for namespaces without
the annotation, and by namespace what pods there may select at most.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api.resources import NAMESPACES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_ANNOTATION = "scheduler.alpha.kubernetes.io/node-selector"
_DEFAULT = "clusterDefaultNodeSelector"


def _config(context: Context) -> dict[str, Any]:
    given = context.configuration.get("PodNodeSelector")
    found = given.get("podNodeSelectorPluginConfig") if isinstance(given, dict) else None
    return found if isinstance(found, dict) else {}


def _labels(attributes: Attributes, text: str) -> dict[str, str]:
    """``a=b,c=d``. Raises StatusError for anything else."""
    labels = {}
    for part in text.split(",") if text else ():
        key, sign, value = part.partition("=")
        if not sign or "=" in value:
            raise attributes.forbidden(f"invalid selector: {text}")
        labels[key.strip()] = value.strip()
    return labels


def _selector(attributes: Attributes, context: Context) -> dict[str, str]:
    found = context.cache.of(NAMESPACES).get("", attributes.namespace)
    annotations = {} if found is None else found.object["metadata"].get("annotations") or {}
    text = annotations.get(_ANNOTATION, _config(context).get(_DEFAULT) or "")
    return _labels(attributes, str(text))


def admit(attributes: Attributes, context: Context) -> None:
    wanted = _selector(attributes, context)
    own = attributes.new["spec"].get("nodeSelector") or {}
    _check_conflicts(attributes, wanted, own)
    if merged := {**wanted, **own}:
        attributes.new["spec"]["nodeSelector"] = merged


def validate(attributes: Attributes, context: Context) -> None:
    own = attributes.new["spec"].get("nodeSelector") or {}
    _check_conflicts(attributes, _selector(attributes, context), own)
    allowed = _labels(attributes, str(_config(context).get(attributes.namespace) or ""))
    if allowed and any(allowed.get(key) != value for key, value in own.items()):
        raise attributes.forbidden(
            "pod node label selector labels conflict with its namespace whitelist"
        )


def _check_conflicts(attributes: Attributes, wanted: dict[str, str], own: dict[str, str]) -> None:
    if any(own.get(key, value) != value for key, value in wanted.items()):
        raise attributes.forbidden(
            "pod node label selector conflicts with its namespace node label selector"
        )
