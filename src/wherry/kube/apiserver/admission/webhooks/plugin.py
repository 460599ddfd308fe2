"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook, as steps of the chain.

What asks is loaded when there is somebody to be asked.
"""

from __future__ import annotations

from collections.abc import Awaitable

from wherry.kube.apiserver.admission import versions
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.webhooks import index


def admit(attributes: Attributes, context: Context) -> Awaitable[None] | None:
    asked = versions.asked(attributes)
    meant = context.part(index.mutating).meant(attributes, asked)
    if not meant:
        return None
    from wherry.kube.apiserver.admission.webhooks import mutating

    return mutating.ask_all(meant, attributes, context, asked)


def validate(attributes: Attributes, context: Context) -> Awaitable[None] | None:
    asked = versions.asked(attributes)
    meant = context.part(index.validating).meant(attributes, asked)
    if not meant:
        return None
    from wherry.kube.apiserver.admission.webhooks import validating

    return validating.ask_all(meant, attributes, context, asked)
