"""Token cleaner: a bootstrap token is removed when its time is over.

Upstream: pkg/controller/bootstrap/tokencleaner.go.
"""

from __future__ import annotations

from wherry.kube.api import bootstrap, meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import SECRETS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, now, split_key


class TokenCleanerController(Controller):
    """Keys are tokens' Secrets."""

    name = "token-cleaner-controller"
    account = "token-cleaner"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.secrets = self.watch(SECRETS)
        self.secrets.add_handlers(on_add=self._token, on_update=lambda _, new: self._token(new))

    def _token(self, secret: Object) -> None:
        if bootstrap.is_token(secret):
            self.enqueue(secret)

    async def sync(self, key: str) -> None:
        secret = self.secrets.get(*split_key(key))
        if secret is None or meta.is_deleting(secret):
            return
        ends = bootstrap.expiry(secret)
        if ends is None:
            return
        left = (ends - now()).total_seconds()
        if left > 0:
            self.queue.add_after(key, left)
            return
        try:
            await self.client.delete(
                SECRETS, meta.name(secret), meta.namespace(secret), uid=meta.uid(secret)
            )
        except StatusError as error:
            if error.reason not in ("NotFound", "Conflict"):  # gone, or another by now
                raise
