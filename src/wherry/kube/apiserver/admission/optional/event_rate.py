"""EventRateLimit: nobody floods the store with Events.

Configured by ``limits``: of a type (Server, Namespace, User, SourceAndObject), so many a second
(``qps``), and ``burst`` at once. https://kubernetes.io/docs/reference/config-api/
apiserver-eventratelimit.v1alpha1/
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_BUCKETS = 4096


def _source(attributes: Attributes) -> str:
    event = attributes.new
    source, about = event.get("source") or {}, event.get("involvedObject") or {}
    parts = [source.get("component", ""), source.get("host", "")]
    fields = ("kind", "namespace", "name", "uid", "apiVersion")
    return "".join([*parts, *(about.get(field, "") for field in fields)])


_KEYS: dict[str, Callable[[Attributes], str]] = {
    "Server": lambda attributes: "",
    "Namespace": lambda attributes: attributes.namespace,
    "User": lambda attributes: attributes.user.name,
    "SourceAndObject": _source,
}


class _Limit:
    """Buckets of tokens, the least recently used forgotten first."""

    def __init__(self, kind: str, rate: int, burst: int, buckets: int) -> None:
        self.kind = kind
        self._rate, self._burst, self._most = rate, burst, buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, when

    def take(self, key: str, now: float) -> bool:
        tokens, when = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - when) * self._rate)
        taken = tokens >= 1
        self._buckets[key] = (tokens - 1 if taken else tokens, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return taken


class Limits:
    """Those of one server.

    Raises:
        ValueError: there are none, or one is wrong.
    """

    def __init__(self, context: Context) -> None:
        given = context.configuration.get("EventRateLimit")
        limits = (given.get("limits") if isinstance(given, dict) else None) or ()
        if not limits:
            raise ValueError("EventRateLimit: limits: Invalid value: null: must not be empty")
        self.limits = []
        for index, limit in enumerate(limits):
            path, kind = f"EventRateLimit: limits[{index}]", limit.get("type", "")
            if kind not in _KEYS:
                known = ", ".join(f'"{name}"' for name in sorted(_KEYS))
                raise ValueError(
                    f'{path}.type: Unsupported value: "{kind}": supported values: {known}'
                )
            for field in ("burst", "qps"):
                if not isinstance(limit.get(field), int) or limit[field] <= 0:
                    value = limit.get(field, 0)
                    raise ValueError(f"{path}.{field}: Invalid value: {value}: must be positive")
            size = int(limit.get("cacheSize") or _BUCKETS)
            self.limits.append(_Limit(kind, limit["qps"], limit["burst"], size))


def validate(attributes: Attributes, context: Context) -> None:
    if attributes.dry_run:
        return
    now = context.clock()
    reached = []
    for limit in context.part(Limits).limits:
        key = _KEYS[limit.kind](attributes)
        if not limit.take(key, now):
            reached.append(f"limit reached on type {limit.kind} for key {key}")
    if reached:
        text = reached[0] if len(reached) == 1 else f"[{', '.join(reached)}]"
        raise StatusError(429, "TooManyRequests", text, details={})
