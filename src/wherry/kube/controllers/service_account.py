"""ServiceAccount: every namespace has an account called ``default``."""

from __future__ import annotations

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NAMESPACES, SERVICE_ACCOUNTS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, namespace_is_leaving


def missing(namespace: Object, present: Object | None) -> Object | None:
    """The account to create in ``namespace``, or None."""
    if present is not None or meta.is_deleting(namespace):
        return None
    return {
        "apiVersion": SERVICE_ACCOUNTS.api_version,
        "kind": SERVICE_ACCOUNTS.kind,
        "metadata": {"name": "default", "namespace": meta.name(namespace)},
    }


class ServiceAccountController(Controller):
    """Makes the account, and makes it again when it is deleted. Keys are namespaces."""

    name = "serviceaccount-controller"
    account = "service-account-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces = self.watch(NAMESPACES)
        self.accounts = self.watch(SERVICE_ACCOUNTS)
        self.namespaces.add_handlers(on_add=self.enqueue)
        self.accounts.add_handlers(on_delete=lambda a: self.queue.add(meta.namespace(a)))

    async def sync(self, key: str) -> None:
        namespace = self.namespaces.get(None, key)
        if namespace is None:
            return
        account = missing(namespace, self.accounts.get(key, "default"))
        if account is None:
            return
        try:
            await self.seen(SERVICE_ACCOUNTS, await self.client.create(SERVICE_ACCOUNTS, account))
        except StatusError as error:
            if error.reason != "AlreadyExists" and not namespace_is_leaving(error):
                raise
