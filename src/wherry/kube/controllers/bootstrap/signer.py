"""Bootstrap signer: ``cluster-info`` bears a signature by each token that may sign it.

Upstream: pkg/controller/bootstrap/bootstrapsigner.go.
"""

from __future__ import annotations

from wherry.kube.api import bootstrap, meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CONFIG_MAPS, SECRETS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller

_KEY = f"{bootstrap.INFO_NAMESPACE}/{bootstrap.INFO_NAME}"


class BootstrapSignerController(Controller):
    """It has one key. Where there is no ``cluster-info``, nothing is said to anybody."""

    name = "bootstrap-signer-controller"
    account = "bootstrap-signer"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.secrets = self.watch(SECRETS)
        self.secrets.add_handlers(
            on_add=self._token, on_update=lambda _, new: self._token(new), on_delete=self._token
        )
        self.config_maps = self.watch(CONFIG_MAPS)
        self.config_maps.add_handlers(on_add=self._info, on_update=lambda _, new: self._info(new))

    def _token(self, secret: Object) -> None:
        if bootstrap.is_token(secret):
            self.queue.add(_KEY)

    def _info(self, config_map: Object) -> None:
        if meta.key(config_map) == _KEY:
            self.queue.add(_KEY)

    async def sync(self, key: str) -> None:
        info = self.config_maps.get(bootstrap.INFO_NAMESPACE, bootstrap.INFO_NAME)
        if info is None or meta.is_deleting(info):
            return
        tokens = [secret for secret in self.secrets.list() if bootstrap.is_token(secret)]
        data = bootstrap.signed(info.get("data") or {}, tokens)
        if data == info.get("data"):
            return
        try:
            written = await self.client.update(CONFIG_MAPS, {**info, "data": data})
        except StatusError as error:
            if error.reason == "Conflict":  # what it is now, is looked at next
                return
            raise
        await self.seen(CONFIG_MAPS, written)
