"""Every pod runs as a ServiceAccount: ``default`` unless it says otherwise, and one that exists.

A new namespace gets its default account from a controller a moment after it was made; a pod that
comes in that moment waits for it, as upstream's plugin does.
"""

from __future__ import annotations

import asyncio

from wherry.kube.api.meta import clone
from wherry.kube.api.resources import SERVICE_ACCOUNTS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object

MIRROR = "kubernetes.io/config.mirror"
_PATIENCE = 1.0  # seconds


async def admit(attributes: Attributes, context: Context) -> None:
    pod = attributes.new
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return
    spec = pod["spec"]
    name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = await _account(context.cache, attributes.namespace, name)
    if account is None:
        raise attributes.forbidden(
            f"error looking up service account {attributes.namespace}/{name}: "
            f'serviceaccount "{name}" not found'
        )
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = clone(account["imagePullSecrets"])


async def _account(cache: Cache, namespace: str, name: str) -> Object | None:
    accounts = cache.of(SERVICE_ACCOUNTS)
    found = accounts.get(namespace, name)
    if found is None and name == "default":
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await accounts.appears(namespace, name)
        except TimeoutError:
            return None
    return found.object if found else None
