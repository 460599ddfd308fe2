"""Service account tokens for projected volumes, requested from the API and renewed in time.

Follows https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken: a token
is renewed when 80 % of its life has passed, or after a day.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import SERVICE_ACCOUNTS
from wherry.kube.client.client import Client

log = logging.getLogger(__name__)

Object = dict[str, Any]
_DEFAULT_SECONDS = 3600
_DAY = 86400
_AGAIN = 5.0  # seconds after a renewal that failed, at the least


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    renew_at: float
    expires: float


class Tokens:
    """Tokens by pod and by what they are for.

    An API server that does not know TokenRequest (404 for the subresource itself) is asked once;
    volumes then come without the token, and pods that do not need it run.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tokens: dict[tuple[str, str, int], _Token] = {}
        self._supported = "token" in SERVICE_ACCOUNTS.subresources

    async def get(self, pod: Object, source: Object) -> str | None:
        """The token for a ``serviceAccountToken`` source of ``pod``; None: there are none.

        Raises:
            StatusError: the API refused (no such service account, not allowed).
            ConnectionError: it cannot be reached.
        """
        if not self._supported:
            return None
        audience = source.get("audience") or ""
        seconds = int(source.get("expirationSeconds") or _DEFAULT_SECONDS)
        key = (meta.uid(pod), audience, seconds)
        held = self._tokens.get(key)
        if held is not None and time.time() < held.renew_at:
            return held.text
        try:
            self._tokens[key] = await self._request(pod, audience, seconds)
        except (StatusError, ConnectionError, TimeoutError) as error:
            if held is None or time.time() >= held.expires:
                raise
            # There was time left for this; it is tried again before the token ends.
            log.warning("a token of pod %s was not renewed yet: %s", meta.name(pod), error)
            again = max(_AGAIN, (held.expires - time.time()) / 4)
            self._tokens[key] = _Token(held.text, time.time() + again, held.expires)
        return self._tokens[key].text

    def next_renewal(self, pod_uid: str) -> float | None:
        """When (seconds since the epoch) the first token of a pod is due."""
        return min((t.renew_at for k, t in self._tokens.items() if k[0] == pod_uid), default=None)

    def release(self, pod_uid: str) -> None:
        """Forget the tokens of a pod."""
        for key in [k for k in self._tokens if k[0] == pod_uid]:
            del self._tokens[key]

    async def _request(self, pod: Object, audience: str, seconds: int) -> _Token:
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta.name(pod), "uid": meta.uid(pod)}
        request: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": meta.namespace(pod)},
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": bound,
            },
        }
        answer = await self._client.create(
            SERVICE_ACCOUNTS,
            request,
            meta.namespace(pod),
            name=pod["spec"].get("serviceAccountName") or "default",
            subresource="token",
        )
        status = answer.get("status") or {}
        if not status.get("token"):
            raise StatusError(500, "InternalError", "the API server handed out an empty token")
        now = time.time()
        expires = meta.parse_time(status["expirationTimestamp"]).timestamp()
        return _Token(status["token"], now + min(0.8 * (expires - now), _DAY), expires)
