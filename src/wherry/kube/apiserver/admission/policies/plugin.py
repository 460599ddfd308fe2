"""MutatingAdmissionPolicy and ValidatingAdmissionPolicy, as steps of the chain.

What evaluates is loaded when there is something to be evaluated.
"""

from __future__ import annotations

from collections.abc import Awaitable

from wherry.kube.apiserver.admission import versions
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.policies import index


def admit(attributes: Attributes, context: Context) -> Awaitable[None] | None:
    asked = versions.asked(attributes)
    meant = context.part(index.mutating).meant(attributes, asked)
    if not meant:
        return None
    from wherry.kube.apiserver.admission.policies import mutating

    return mutating.change(meant, attributes, context, asked)


def validate(attributes: Attributes, context: Context) -> Awaitable[None] | None:
    asked = versions.asked(attributes)
    meant = context.part(index.validating).meant(attributes, asked)
    if not meant:
        return None
    from wherry.kube.apiserver.admission.policies import validating

    return validating.judge(meant, attributes, context, asked)
