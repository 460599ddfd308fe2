"""Validating webhooks: all webhooks are asked at once, and none may object.

Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/validating.
"""

from __future__ import annotations

import asyncio

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission import versions
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.expressions import Environment
from wherry.kube.apiserver.admission.webhooks.asking import ask, is_wanted
from wherry.kube.apiserver.admission.webhooks.index import Webhook


async def ask_all(
    meant: list[tuple[Webhook, Resource]],
    attributes: Attributes,
    context: Context,
    asked: Resource,
) -> None:
    """Ask those that are meant, each with the version it sees. Raises StatusError."""
    environment = Environment(attributes, context, asked)
    wanted = [each for each in meant if is_wanted(each[0], attributes, context, environment)]

    async def one(webhook: Webhook, version: Resource) -> StatusError | None:
        try:
            shown = await versions.shown(attributes, context, asked, version)
            await ask(webhook, version, attributes, context, asked, shown, mutating=False)
        except StatusError as error:
            return error
        return None

    for failure in await asyncio.gather(*(one(*each) for each in wanted)):
        if failure is not None:
            raise failure
