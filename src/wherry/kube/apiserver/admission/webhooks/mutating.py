"""Mutating webhooks: one webhook after the other changes the object by a JSON patch.

A webhook with reinvocationPolicy IfNeeded that has been asked is asked once more when another one,
or a plugin of the second round, has changed the object since.
Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/mutating.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import clone
from wherry.kube.api.patch import apply_operations
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission import versions
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.expressions import Environment
from wherry.kube.apiserver.admission.webhooks.asking import ask, is_wanted
from wherry.kube.apiserver.admission.webhooks.index import Webhook
from wherry.kube.apiserver.admission.webhooks.review import internal

Object = dict[str, Any]

_NOTES = "MutatingAdmissionWebhook"


@dataclass(slots=True)
class _Rounds:
    """What is to be known of one round in the next."""

    asked: set[str] = field(default_factory=set)  # that may be asked again
    again: set[str] = field(default_factory=set)  # that are to be
    left: Object | None = None  # as the webhooks left the object

    def changed(self) -> None:
        self.again |= self.asked
        self.asked = set()


async def ask_all(
    meant: list[tuple[Webhook, Resource]],
    attributes: Attributes,
    context: Context,
    asked: Resource,
) -> None:
    """Ask those that are meant, each with the version it sees. Raises StatusError."""
    rounds: _Rounds = attributes.notes.setdefault(_NOTES, _Rounds())
    if attributes.reinvoking and rounds.left != attributes.object:
        rounds.changed()
    environment = Environment(attributes, context, asked)
    for place, (webhook, version) in enumerate(meant):
        if not is_wanted(webhook, attributes, context, environment):
            continue
        if attributes.reinvoking and webhook.uid not in rounds.again:
            continue
        shown = await versions.shown(attributes, context, asked, version)
        verdict = await ask(webhook, version, attributes, context, asked, shown, mutating=True)
        changed = bool(verdict and verdict.patch) and await _change(
            webhook, version, attributes, context, asked, shown[0], verdict.patch if verdict else []
        )
        _annotate(attributes, webhook, place, verdict.patch if verdict else [], changed=changed)
        if changed:
            environment = Environment(attributes, context, asked)
            rounds.changed()
            attributes.reinvoke = True
        if webhook.again:
            rounds.asked.add(webhook.uid)
    rounds.left = clone(attributes.object)


async def _change(
    webhook: Webhook,
    version: Resource,
    attributes: Attributes,
    context: Context,
    asked: Resource,
    shown: Object | None,
    patch: list[Any],
) -> bool:
    """Apply the patch. Whether the object is another one now. Raises StatusError 500."""
    if shown is None:
        raise internal(
            f'admission webhook "{webhook.name}" attempted to modify the object, which is not '
            "supported for this operation"
        )
    try:
        patched = apply_operations(shown, patch)
    except ValueError as error:
        raise internal(str(error)) from None
    try:
        return await versions.replace(attributes, context, asked, version, patched)
    except StatusError as error:
        raise error if error.code >= 500 else internal(error.message) from None


def _annotate(
    attributes: Attributes, webhook: Webhook, place: int, patch: list[Any], *, changed: bool
) -> None:
    """What the audit log is told of it."""
    round_ = 1 if attributes.reinvoking else 0
    told: Object = {"configuration": webhook.configuration, "webhook": webhook.name}
    said = orjson.dumps({**told, "mutated": changed}).decode()
    where = f"webhook.admission.k8s.io/round_{round_}_index_{place}"
    attributes.annotations[f"mutation.{where}"] = said
    if changed:
        said = orjson.dumps({**told, "patch": patch, "patchType": "JSONPatch"}).decode()
        attributes.annotations[f"patch.{where}"] = said
