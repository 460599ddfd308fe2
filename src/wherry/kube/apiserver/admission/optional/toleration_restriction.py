"""PodTolerationRestriction: what the pods of a namespace tolerate, and may tolerate at most.

Annotations of the namespace say it, else the plugin's configuration (``default``, ``whitelist``).
"""

from __future__ import annotations

from typing import Any

import orjson

from wherry.kube.api.kinds.podspec.resources import qos_class
from wherry.kube.api.resources import NAMESPACES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.tolerations import Toleration, merge, within

_DEFAULT = "scheduler.alpha.kubernetes.io/defaultTolerations"
_ALLOWED = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
_MEMORY = {
    "key": "node.kubernetes.io/memory-pressure",
    "operator": "Exists",
    "effect": "NoSchedule",
}


def _noted(attributes: Attributes, context: Context, annotation: str) -> list[Toleration] | None:
    """What the namespace says. Raises StatusError where that is no list of tolerations."""
    found = context.cache.of(NAMESPACES).get("", attributes.namespace)
    annotations = {} if found is None else found.object["metadata"].get("annotations") or {}
    if annotation not in annotations:
        return None
    try:
        noted = orjson.loads(annotations[annotation] or "[]")
    except orjson.JSONDecodeError as error:
        raise attributes.forbidden(f"invalid annotation {annotation}: {error}") from error
    if not isinstance(noted, list) or not all(isinstance(each, dict) for each in noted):
        raise attributes.forbidden(f"invalid annotation {annotation}: a list is wanted")
    return noted


def _configured(context: Context, name: str) -> list[Toleration]:
    given: Any = context.configuration.get("PodTolerationRestriction") or {}
    return list(given.get(name) or ())


def admit(attributes: Attributes, context: Context) -> None:
    spec = attributes.new["spec"]
    extra: list[Toleration] = []
    if attributes.operation == "CREATE":
        noted = _noted(attributes, context, _DEFAULT)
        extra += _configured(context, "default") if noted is None else noted
    if qos_class(spec) != "BestEffort":
        extra.append(_MEMORY)
    if extra:
        spec["tolerations"] = merge(spec.get("tolerations") or (), extra)


def validate(attributes: Attributes, context: Context) -> None:
    given = attributes.new["spec"].get("tolerations") or ()
    allowed, scope = _noted(attributes, context, _ALLOWED), "namespace"
    if allowed is None:
        allowed, scope = _configured(context, "whitelist"), "cluster"
    if not within(given, allowed):
        raise attributes.forbidden(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with "
            f"its {scope} whitelist"
        )
