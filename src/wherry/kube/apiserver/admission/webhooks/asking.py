"""Putting a question to one webhook."""

from __future__ import annotations

import logging
from typing import Any

from wherry.kube.api.errors import bad_request
from wherry.kube.api.meta import new_uid
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission import conditions
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.expressions import Environment
from wherry.kube.apiserver.admission.webhooks import review
from wherry.kube.apiserver.admission.webhooks.index import Webhook
from wherry.kube.apiserver.extensions.callout import CalloutFailed

log = logging.getLogger(__name__)

Object = dict[str, Any]


def is_wanted(
    webhook: Webhook,
    attributes: Attributes,
    context: Context,
    environment: Environment,
) -> bool:
    """Whether selectors and conditions let the webhook be asked.

    Raises:
        StatusError: 403, a condition cannot be evaluated; 404, the namespace is not there.
    """
    if not webhook.selection.selects(attributes, context.cache):
        return False
    if not webhook.conditions:
        return True
    try:
        return conditions.hold(webhook.conditions, environment, strict=webhook.fails)
    except conditions.Undecided as error:
        raise attributes.forbidden(str(error)) from None


async def ask(
    webhook: Webhook,
    version: Resource,
    attributes: Attributes,
    context: Context,
    asked: Resource,
    shown: tuple[Object | None, Object | None],
    *,
    mutating: bool,
) -> review.Verdict | None:
    """What the webhook says of the request; None where it cannot be asked and need not be.

    Args:
        version: in which the webhook sees the objects, ``shown``: new and old.

    Raises:
        StatusError: it cannot be asked and must be; or it refuses.
    """
    if attributes.dry_run and webhook.side_effects not in ("None", "NoneOnDryRun"):
        raise bad_request(f'admission webhook "{webhook.name}" does not support dry run')
    uid = new_uid()
    try:
        kind = review.version_for(webhook.reviews)
        request = review.request_of(attributes, uid, asked, version, *shown)
        answer = await context.backend.callouts.ask(
            webhook.client, review.review_of(kind, request), webhook.seconds
        )
        verdict = review.read(answer, kind, uid, mutating=mutating)
    except CalloutFailed as error:
        _failed(webhook, f"failed to call webhook: {error}", attributes)
        return None
    except review.BadAnswer as error:
        _failed(webhook, str(error), attributes)
        return None
    for key, value in verdict.annotations.items():
        attributes.annotations[f"{webhook.name}/{key}"] = value
    attributes.warnings += verdict.warnings
    if not verdict.allowed:
        raise review.denied(webhook.name, verdict.result)
    return verdict


def _failed(webhook: Webhook, why: str, attributes: Attributes) -> None:
    """By the failure policy: nothing, or StatusError 500."""
    said = f'failed calling webhook "{webhook.name}": {why}'
    if webhook.fails:
        log.warning("%s: failing closed", said)
        raise review.internal(said)
    log.warning("%s: failing open", said)
