"""Tokens in Secrets: who makes a Secret of the type for it finds a ServiceAccount's token in it.

The token has no end but the Secret's; the Secret ends with the account.
Upstream: pkg/controller/serviceaccount/tokens_controller.go.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from wherry.kube.api import meta
from wherry.kube.api.account_tokens import (
    NAME_ANNOTATION,
    SECRET_TYPE,
    UID_ANNOTATION,
    legacy_claims,
)
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import SECRETS, SERVICE_ACCOUNTS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, split_key

Sign = Callable[[Object], str]


def is_orphan(secret: Object, account: Object | None) -> bool:
    """Whether the account a token was for is gone (or another one has its name)."""
    if account is None:
        return True
    wanted = meta.annotations(secret).get(UID_ANNOTATION)
    return bool(wanted) and wanted != meta.uid(account)


def filled(secret: Object, account: Object, root_ca: str, sign: Sign) -> Object | None:
    """The Secret with what it lacks; None where it lacks nothing."""
    data: dict[str, str] = dict(secret.get("data") or {})
    if root_ca and data.get("ca.crt") != _encoded(root_ca):
        data["ca.crt"] = _encoded(root_ca)
    data.setdefault("namespace", _encoded(meta.namespace(secret)))
    if not data.get("token"):
        data["token"] = _encoded(sign(legacy_claims(secret, account)))
    annotations = {**meta.annotations(secret), UID_ANNOTATION: meta.uid(account)}
    if data == secret.get("data") and annotations == meta.annotations(secret):
        return None
    metadata = {**secret["metadata"], "annotations": annotations}
    return {**secret, "metadata": metadata, "data": data}


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class AccountTokenController(Controller):
    """Fills Secrets, and removes those of accounts that are gone. Keys are Secrets."""

    name = "serviceaccount-token-controller"
    account = None

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.sign = self.options.sign_token
        if self.sign is None:
            return
        self.secrets = self.watch(SECRETS)
        self.accounts = self.watch(SERVICE_ACCOUNTS)
        self.secrets.add_handlers(on_add=self._seen, on_update=lambda _, new: self._seen(new))
        self.accounts.add_handlers(on_delete=self._account_gone)

    def _seen(self, secret: Object) -> None:
        if secret.get("type") == SECRET_TYPE:
            self.enqueue(secret)

    def _account_gone(self, account: Object) -> None:
        name = meta.name(account)
        for secret in self.secrets.list(meta.namespace(account)):
            if meta.annotations(secret).get(NAME_ANNOTATION) == name:
                self._seen(secret)

    async def sync(self, key: str) -> None:
        namespace, name = split_key(key)
        secret = self.secrets.get(namespace, name)
        if secret is None or meta.is_deleting(secret) or self.sign is None:
            return
        account_name = meta.annotations(secret).get(NAME_ANNOTATION, "")
        account = self.accounts.get(namespace, account_name)
        try:
            if account is None:  # it may only just have been made
                account = await self._ask(namespace, account_name)
            if account is None or is_orphan(secret, account):
                await self.client.delete(SECRETS, name, namespace, uid=meta.uid(secret))
                return
            body = filled(secret, account, self.options.root_ca, self.sign)
            if body is not None:
                await self.seen(SECRETS, await self.client.update(SECRETS, body))
        except StatusError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise

    async def _ask(self, namespace: str, name: str) -> Object | None:
        if not name:
            return None
        try:
            return await self.client.get(SERVICE_ACCOUNTS, name, namespace)
        except StatusError as error:
            if error.reason == "NotFound":
                return None
            raise
