"""A conversation with one registry about one repository, authentication included.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md;
https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/ for tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import orjson

from wherry.engine.errors import EngineError, NotFound, Unauthorized
from wherry.engine.image.distribution import http
from wherry.engine.image.distribution.credentials import Credentials
from wherry.engine.image.distribution.endpoints import Endpoint
from wherry.engine.image.distribution.http import Unreachable
from wherry.engine.image.manifest import DOCUMENT_LIMIT, INDEXES, MANIFESTS, digest_of

if TYPE_CHECKING:
    import aiohttp

ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
# How often a request is made again that failed through no fault of its own, and how long to wait
# before, in seconds; the wait doubles.
ATTEMPTS = 5
FIRST_WAIT = 0.5
_PASSING = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_CLIENT = "wherry"


class Denied(EngineError):
    """The registry knows who we are, or that we are nobody, and says no."""


class NoCredentials(Denied):
    """It wants a user and a password, and there are none."""


class Missing(NotFound):
    """The registry does not have it."""


class Passing(EngineError):
    """The registry has a difficulty that may pass."""


class Registry:
    """One registry, for one repository. An asynchronous context manager.

    ``path`` is empty for one about the registry as such. ``actions`` are what tokens are asked for
    (``pull``, ``pull,push``); ``sources`` are other repositories that blobs may be mounted from.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        path: str,
        credentials: Credentials,
        *,
        actions: str = "pull",
        sources: tuple[str, ...] = (),
    ) -> None:
        self.endpoint = endpoint
        self.path = path
        self._credentials = credentials
        # To log in one asks for nothing in particular.
        self._scopes = [f"repository:{path}:{actions}"] if path else []
        self._scopes += [f"repository:{source}:pull" for source in sources]
        self._authorization: dict[str, str] = {}
        self._authorizing = asyncio.Lock()
        self._client: aiohttp.ClientSession

    async def __aenter__(self) -> Registry:
        self._client = http.session(self.endpoint.trust())
        try:
            await self._ping()
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def _ping(self) -> None:
        """See that it is there, and how it wants to know who we are.

        Raises:
            Unreachable: it is not.
        """
        url = f"{self.endpoint.url}/v2/"
        async with http.explained(url), self._client.get(url) as answer:
            if answer.status == HTTPStatus.UNAUTHORIZED:
                await self._authorize(answer.headers.get("WWW-Authenticate", ""), url, "Get")

    # ---- requests

    def url(self, rest: str) -> str:
        """The address of something of the repository."""
        return f"{self.endpoint.url}/v2/{self.path}/{rest}"

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask once, with what authorization there is, and again where that has run out.

        Raises:
            Unreachable: there was no answer.
            Denied: we may not.
        """
        word = method.capitalize()
        for attempt in (1, 2):
            used = self._authorization
            # A token is for the registry, not for wherever it sends us.
            sent = {**(headers or {}), **(used if self._is_ours(url) else {})}
            async with http.explained(url, word):
                answer = await self._client.request(method, url, headers=sent, data=data)
            try:
                if answer.status == HTTPStatus.UNAUTHORIZED and attempt == 1 and data is None:
                    challenge = answer.headers.get("WWW-Authenticate", "")
                    async with self._authorizing:
                        if self._authorization is used:
                            await self._authorize(challenge, url, word)
                    continue
                if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    raise Denied(await complaint(answer))
                async with http.explained(url, word):
                    yield answer
                return
            finally:
                answer.release()

    def _is_ours(self, url: str) -> bool:
        return url.startswith(self.endpoint.url + "/")

    async def _authorize(self, challenge: str, url: str, word: str) -> None:
        """Find out what to show.

        Raises:
            Denied: there is nothing to show, or the token service says no.
        """
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "bearer":
            token = await self._token(dict(re.findall(r'(\w+)="([^"]*)"', rest)))
            self._authorization = {"Authorization": f"Bearer {token}"}
            return
        basic = self._credentials.basic()
        if scheme.lower() != "basic" or not basic:
            raise NoCredentials(f'{word} "{url}": no basic auth credentials')
        if self._authorization == basic:
            raise Denied(f'{word} "{url}": unauthorized: authentication required')
        self._authorization = basic

    async def _token(self, fields: Mapping[str, str]) -> str:
        realm = fields.get("realm", "")
        if not realm.startswith("https://") and not self._may_be_plain(realm):
            raise Denied(f"the token service {realm} would have the password on an open line")
        scopes = self._scopes
        given = self._credentials
        service = fields.get("service", "")
        if given.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": given.identity_token,
                "service": service,
                "client_id": _CLIENT,
                "scope": " ".join(scopes),
            }
            request = self._client.post(realm, data=form)
        else:
            query = [("service", service), *(("scope", scope) for scope in scopes)]
            if given.username:
                query.append(("account", given.username))
            request = self._client.get(realm, params=query, headers=given.basic())
        async with http.explained(realm), request as answer:
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise Denied(await complaint(answer))
            document = await answer.json(content_type=None)
        return str(document.get("token") or document.get("access_token") or "")

    def _may_be_plain(self, realm: str) -> bool:
        """A registry that we speak to in plain HTTP may have its token service do so, too."""
        return realm.startswith("http://") and not self.endpoint.verify

    # ---- what one asks for

    async def manifest(self, reference: str) -> tuple[bytes, str, str]:
        """A manifest or an index: its bytes, its media type and its digest, verified.

        Raises:
            Missing: there is none.
            EngineError: it is not what its digest says, or the registry fails.
        """
        url = self.url(f"manifests/{reference}")
        async with self.request("GET", url, headers={"Accept": ACCEPT}) as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                raise Missing(await complaint(answer))
            check(answer)
            data = await answer.content.read(DOCUMENT_LIMIT)
            while more := await answer.content.read(DOCUMENT_LIMIT):
                data += more
                if len(data) > DOCUMENT_LIMIT:
                    raise EngineError(f"manifest {reference} is over {DOCUMENT_LIMIT} bytes")
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        digest = digest_of(data)
        if ":" in reference and digest != reference:
            raise EngineError(
                f"manifest verification failed for digest {reference}: it is {digest}"
            )
        return data, kind, digest

    async def tags(self) -> list[str]:
        """All tags of the repository.

        Raises:
            Missing: there is no such repository.
        """
        found: list[str] = []
        url = self.url("tags/list")
        while url:
            async with self.request("GET", url) as answer:
                if answer.status == HTTPStatus.NOT_FOUND:
                    raise Missing(await complaint(answer))
                check(answer)
                document = await answer.json(content_type=None)
                following = answer.links["next"]["url"] if "next" in answer.links else None
                url = urljoin(url, str(following)) if following else ""
            found += [str(tag) for tag in document.get("tags") or []]
        return found

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has the blob."""
        async with self.request("HEAD", self.url(f"blobs/{digest}")) as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                return False
            check(answer)
            return True


def check(answer: aiohttp.ClientResponse) -> None:
    """Raise EngineError where the answer is neither a success nor one of the known refusals."""
    if answer.status >= HTTPStatus.BAD_REQUEST:
        phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else ""
        text = f"received unexpected HTTP status: {answer.status} {phrase}".rstrip()
        raise (Passing if answer.status in _PASSING else EngineError)(text)


async def patiently(attempt: int) -> None:
    """Wait before the next ``attempt`` (the first is 1)."""
    await asyncio.sleep(FIRST_WAIT * 2 ** (attempt - 1))


async def complaint(answer: aiohttp.ClientResponse) -> str:
    """What a refusal says: ``manifest unknown: manifest unknown``."""
    data = await answer.content.read(1 << 16)
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        document = orjson.loads(data)
        errors = document.get("errors") or []
        if errors:
            return "; ".join(
                f"{str(one.get('code', '')).replace('_', ' ').lower()}: {one.get('message', '')}"
                for one in errors
            )
        if document.get("details"):
            return f"unauthorized: {document['details']}"
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "unauthorized: authentication required"
    return f"unexpected status code {answer.status}"


async def log_in(endpoints: list[Endpoint], credentials: Credentials) -> None:
    """Return when the registry takes the credentials.

    Raises:
        Unauthorized: it does not.
        EngineError: it cannot be reached.
    """
    failure: Unreachable | None = None
    for endpoint in endpoints:
        if endpoint.is_mirror:
            continue
        try:
            async with Registry(endpoint, "", credentials) as registry:
                async with registry.request("GET", f"{endpoint.url}/v2/") as answer:
                    check(answer)
                return
        except Unreachable as error:
            failure = failure or error
        except Denied as error:
            url = f"{endpoint.url}/v2/"
            text = error.message
            if not text.startswith(("Get ", "Head ")):
                text = f"login attempt to {url} failed with status: 401 Unauthorized"
            raise Unauthorized(text) from None
    assert failure is not None
    raise failure
