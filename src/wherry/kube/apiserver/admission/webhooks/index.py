"""The webhooks that are configured, ready for use: found for a request without looking at all.

What is made of a configuration follows the cache, within the event that tells of it. Where nothing
is configured a write costs one look at an empty list.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api.catalogue import Served
from wherry.kube.api.resources import (
    MUTATING_WEBHOOK_CONFIGURATIONS,
    VALIDATING_WEBHOOK_CONFIGURATIONS,
    Resource,
)
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.matching import Selection
from wherry.kube.apiserver.cache import Event

Object = dict[str, Any]

EXEMPT = (MUTATING_WEBHOOK_CONFIGURATIONS, VALIDATING_WEBHOOK_CONFIGURATIONS)
"""No webhook is asked about these: a broken one could not be removed any more."""
_MOST = 4096


class Webhook:
    """One webhook of a configuration."""

    def __init__(self, configuration: str, index: int, webhook: Object) -> None:
        self.configuration = configuration
        self.name: str = webhook.get("name", "")
        self.uid = f"{configuration}/{self.name}/{index}"
        self.client: Object = webhook.get("clientConfig") or {}
        self.selection = Selection(webhook, webhook.get("rules") or ())
        self.conditions: list[Object] = webhook.get("matchConditions") or []
        self.fails: bool = webhook.get("failurePolicy", "Fail") != "Ignore"
        self.seconds: int = webhook.get("timeoutSeconds") or 10
        self.side_effects: str | None = webhook.get("sideEffects")
        self.reviews: list[str] = webhook.get("admissionReviewVersions") or []
        self.again: bool = webhook.get("reinvocationPolicy") == "IfNeeded"


class Index:
    """The webhooks of one kind of configuration, in the order in which they are asked."""

    def __init__(self, context: Context, resource: Resource) -> None:
        self._catalogue = context.catalogue
        self._cache = context.cache.of(resource)
        self._cache.listen(self._changed)
        self._webhooks: list[Webhook] | None = None
        self._served: Served | None = None
        self._meant: dict[object, list[tuple[Webhook, Resource]]] = {}
        context.backend.asked_outside.append(self.concerns)

    def _changed(self, event: Event) -> None:
        self._webhooks = None

    def meant(self, attributes: Attributes, asked: Resource) -> list[tuple[Webhook, Resource]]:
        """Those whose rules name the request, each with the version in which it is shown."""
        if self._webhooks is None:
            self._rebuild()
        if not self._webhooks or asked in EXEMPT:
            return []
        served = self._catalogue.served
        if served is not self._served:
            self._served = served
            self._meant.clear()
        sort = (asked, attributes.operation, attributes.subresource, bool(attributes.namespace))
        found = self._meant.get(sort)
        if found is None:
            if len(self._meant) > _MOST:
                self._meant.clear()
            found = self._meant[sort] = [
                (webhook, version)
                for webhook in self._webhooks
                if (version := webhook.selection.version(served, attributes, asked)) is not None
            ]
        return found

    def concerns(self, resource: Resource) -> bool:
        """Whether any webhook may be asked about objects of ``resource``."""
        if self._webhooks is None:
            self._rebuild()
        return bool(self._webhooks) and resource not in EXEMPT

    def _rebuild(self) -> None:
        self._webhooks = []
        self._meant.clear()
        for stored in self._cache.list():  # in order of their names
            seen: dict[str, int] = {}
            for webhook in stored.object.get("webhooks") or ():
                index = seen[webhook["name"]] = seen.get(webhook["name"], -1) + 1
                self._webhooks.append(Webhook(stored.key, index, webhook))


def mutating(context: Context) -> Index:
    """The mutating webhooks of a server: one `Context.part`."""
    return Index(context, MUTATING_WEBHOOK_CONFIGURATIONS)


def validating(context: Context) -> Index:
    """The validating webhooks of a server: one `Context.part`."""
    return Index(context, VALIDATING_WEBHOOK_CONFIGURATIONS)
