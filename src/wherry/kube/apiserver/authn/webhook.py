"""A service of the user's says whom a token stands for: it is sent a TokenReview.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from typing import Any

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn.config import Webhook
from wherry.kube.apiserver.authn.users import known
from wherry.kube.apiserver.authn.ways import Audiences, Authenticated, Refused, shared
from wherry.kube.client.https import from_kubeconfig

_PATIENCE = 30.0  # seconds
_REMEMBERED = 4096
_Answer = tuple[float, Authenticated | None, str]


class WebhookTokens:
    """Asks the server of a kubeconfig; what it says is remembered for a while.

    Raises:
        OSError, ValueError: the kubeconfig cannot be read.
    """

    def __init__(self, told: Webhook, audiences: Audiences) -> None:
        self._transport = from_kubeconfig(told.config_file)
        self._version = f"authentication.k8s.io/{told.version}"
        self._ttl = told.cache_ttl
        self._audiences = audiences
        self._remembered: OrderedDict[bytes, _Answer] = OrderedDict()

    async def authenticate(self, token: str, audiences: Audiences) -> Authenticated | None:
        text = "\0".join((token, *audiences))
        key = hashlib.sha256(text.encode()).digest()
        held = self._remembered.get(key)
        if held is None or held[0] <= time.monotonic():
            found, why = await self._ask(token, audiences)
            held = (time.monotonic() + self._ttl, found, why)
            self._remembered[key] = held
            self._remembered.move_to_end(key)
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        if held[2]:
            raise Refused(held[2])
        return held[1]

    async def close(self) -> None:
        await self._transport.close()

    async def _ask(self, token: str, audiences: Audiences) -> tuple[Authenticated | None, str]:
        """Whom it stands for, or why for nobody. Raises Refused where there is no answer."""
        review = {
            "apiVersion": self._version,
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": list(audiences)},
        }
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await self._transport.request("POST", "", body=review)
        except (StatusError, OSError, TimeoutError, ValueError) as error:
            raise Refused(f"the token webhook did not answer: {error}") from None
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, dict) or status.get("authenticated") is not True:
            why = status.get("error") if isinstance(status, dict) else None
            return None, str(why or "")
        given = status.get("audiences")
        held = tuple(map(str, given)) if isinstance(given, list) and given else self._audiences
        common = shared(audiences, held)
        user = status.get("user")
        if not common or not isinstance(user, dict) or not user.get("username"):
            return None, ""
        return Authenticated(_user(user), common), ""


def _user(told: dict[str, Any]) -> Any:
    extra = told.get("extra")
    return known(
        str(told["username"]),
        [str(group) for group in told.get("groups") or ()],
        str(told.get("uid") or ""),
        {str(key): [str(v) for v in values] for key, values in (extra or {}).items()},
    )
