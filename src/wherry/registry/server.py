"""The HTTP server: what a request needs, who may ask for it, and the answers.

Blobs and their uploads are in ``blobs``.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

import orjson
from aiohttp import web

from wherry.registry import blobs, manifests, names, search
from wherry.registry.access import TOKEN_PATH, Access, Open, Scope, basic, parse_scopes
from wherry.registry.errors import RegistryError
from wherry.registry.storage import Storage
from wherry.registry.tokens import Issuer

log = logging.getLogger(__name__)

_ACTIONS = {
    "GET": ("pull",),
    "HEAD": ("pull",),
    "POST": ("pull", "push"),
    "PUT": ("pull", "push"),
    "PATCH": ("pull", "push"),
    "DELETE": ("delete",),
}
_CATALOG = Scope("registry", "catalog", ("*",))

Handler = Callable[["Server", web.Request, str], Awaitable[web.StreamResponse]]


class Server:
    """Serves ``storage`` to those whom ``access`` lets; ``issuer`` makes tokens, if it is there."""

    def __init__(
        self, storage: Storage, access: Access | None = None, issuer: Issuer | None = None
    ) -> None:
        self.storage = storage
        self._access = access or Open()
        self._issuer = issuer
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._runner: web.AppRunner | None = None

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything."""
        return isinstance(self._access, Open)

    def lock(self, upload: str) -> asyncio.Lock:
        """Held by who changes an upload."""
        # Kept by who holds it or waits for it: one that nobody holds may have been promised.
        lock = self._locks.get(upload)
        if lock is None:
            lock = self._locks[upload] = asyncio.Lock()
        return lock

    async def judge(self, request: web.Request, *wanted: Scope) -> str:
        """Who asks, if they may.

        Raises:
            RegistryError: UNAUTHORIZED or DENIED.
        """
        base = f"{request.scheme}://{request.host}"
        authorization = request.headers.get("Authorization", "")
        return await self._access.judge(authorization, wanted, base)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Serve; returns the port, which the kernel chooses for 0."""
        self._runner = web.AppRunner(self.application(), access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls)
        await site.start()
        chosen: int = self._runner.addresses[0][1]
        return chosen

    async def close(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    def application(self) -> web.Application:
        """All routes."""
        app = web.Application(middlewares=[_middleware], client_max_size=manifests.SIZE_LIMIT + 1)
        app.router.add_get("/v2/", self._version)
        app.router.add_get("/v2/_catalog", self._catalog)
        app.router.add_get("/v1/_ping", search.ping)
        app.router.add_get("/v1/search", self._search)
        if self._issuer is not None:
            app.router.add_get(TOKEN_PATH, self._token)
            app.router.add_post(TOKEN_PATH, self._token_by_form)
        for method, path, handler in ROUTES:
            app.router.add_route(method, f"/v2/{{name:.+?}}{path}", self._bound(handler))
        return app

    def _bound(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def bound(request: web.Request) -> web.StreamResponse:
            repository = names.repository(request.match_info["name"])
            await self.judge(request, Scope("repository", repository, _ACTIONS[request.method]))
            return await handler(self, request, repository)

        return bound

    async def _version(self, request: web.Request) -> web.Response:
        await self.judge(request)
        return web.json_response({})

    async def _catalog(self, request: web.Request) -> web.Response:
        await self.judge(request, _CATALOG)
        found = await asyncio.to_thread(self.storage.repositories)
        page, headers = paginate(found, request)
        return web.json_response({"repositories": page}, headers=headers)

    async def _search(self, request: web.Request) -> web.Response:
        await self.judge(request, _CATALOG)
        query = request.query.get("q", "")
        limit, page = _number(request, "n", 25), _number(request, "page", 1)
        found = await asyncio.to_thread(search.search, self.storage, query)
        return web.json_response(search.answer(query, found, limit or 25, page or 1))

    async def _token(self, request: web.Request) -> web.Response:
        assert self._issuer is not None
        user = await self._known_user(request.headers.get("Authorization", ""))
        scopes = parse_scopes(request.query.getall("scope", []))
        answer = self._issuer.grant(user, scopes)
        if user and request.query.get("offline_token") == "true":
            answer["refresh_token"] = self._issuer.refresh_token(user)
        return web.json_response(answer)

    async def _token_by_form(self, request: web.Request) -> web.Response:
        """https://distribution.github.io/distribution/spec/auth/oauth/"""
        assert self._issuer is not None
        form = await request.post()
        given = {name: str(value) for name, value in form.items()}
        match given.get("grant_type"):
            case "password":
                user = given.get("username", "")
                if not await self._issuer.users.verify(user, given.get("password", "")):
                    raise RegistryError("UNAUTHORIZED")
            case "refresh_token":
                user = self._issuer.refreshed(given.get("refresh_token", ""))
                if not user or not self._issuer.users.known(user):
                    raise RegistryError("UNAUTHORIZED")
            case _:
                raise RegistryError("UNSUPPORTED", "grant_type is password or refresh_token")
        answer = self._issuer.grant(user, parse_scopes([given.get("scope", "")]))
        answer["scope"] = given.get("scope", "")
        if given.get("grant_type") == "refresh_token":
            answer["refresh_token"] = given["refresh_token"]
        elif given.get("access_type") == "offline":
            answer["refresh_token"] = self._issuer.refresh_token(user)
        return web.json_response(answer)

    async def _known_user(self, authorization: str) -> str:
        """The user of a request with a password; empty without one.

        Raises:
            RegistryError: UNAUTHORIZED, the password is wrong.
        """
        assert self._issuer is not None
        if not authorization:
            return ""
        given = basic(authorization)
        if given is None or not await self._issuer.users.verify(*given):
            error = RegistryError("UNAUTHORIZED")
            error.headers["WWW-Authenticate"] = f'Basic realm="{self._issuer.service}"'
            raise error
        return given[0]


async def get_manifest(server: Server, request: web.Request, repository: str) -> web.Response:
    """GET and HEAD of a manifest."""
    reference = _reference(request)
    found = await asyncio.to_thread(server.storage.manifest, repository, reference)
    headers = {"Docker-Content-Digest": found.digest, "Etag": f'"{found.digest}"'}
    if request.headers.get("If-None-Match", "").strip('"') == found.digest:
        return web.Response(status=304, headers=headers)
    response = web.Response(body=found.data, headers=headers)
    response.content_type = found.media_type
    return response


async def put_manifest(server: Server, request: web.Request, repository: str) -> web.Response:
    """PUT of a manifest."""
    reference = _reference(request)
    by_digest = names.is_digest(reference)
    storage = server.storage
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise RegistryError("SIZE_INVALID", f"over {manifests.SIZE_LIMIT} bytes") from None
    judged = manifests.judge(
        body, request.headers.get("Content-Type", ""), reference if by_digest else ""
    )

    def keep() -> None:
        manifests.check_references(
            judged,
            lambda digest: storage.has_blob(repository, digest),
            lambda digest: storage.has_manifest(repository, digest),
        )
        tag = "" if by_digest else reference
        storage.put_manifest(repository, judged.manifest, tag, judged.subject)

    await asyncio.to_thread(keep)
    digest = judged.manifest.digest
    headers = {
        "Location": f"/v2/{repository}/manifests/{digest}",
        "Docker-Content-Digest": digest,
    }
    if judged.subject:
        headers["OCI-Subject"] = judged.subject
    return web.Response(status=201, headers=headers)


async def delete_manifest(server: Server, request: web.Request, repository: str) -> web.Response:
    """DELETE of a tag, or of a manifest with all its tags."""
    reference = _reference(request)
    storage = server.storage

    def remove() -> None:
        if names.is_digest(reference):
            subject = manifests.subject_of(storage.manifest(repository, reference))
            storage.delete_manifest(repository, reference, subject)
        else:
            storage.delete_tag(repository, reference)

    await asyncio.to_thread(remove)
    return web.Response(status=202)


def _reference(request: web.Request) -> str:
    reference = request.match_info["reference"]
    if ":" in reference:
        return names.digest(reference)
    if not names.is_tag(reference):
        raise RegistryError("TAG_INVALID" if request.method == "PUT" else "MANIFEST_UNKNOWN")
    return reference


async def list_tags(server: Server, request: web.Request, repository: str) -> web.Response:
    """The tags of a repository."""
    tags = await asyncio.to_thread(server.storage.tags, repository)
    page, headers = paginate(tags, request)
    return web.json_response({"name": repository, "tags": page}, headers=headers)


async def list_referrers(server: Server, request: web.Request, repository: str) -> web.Response:
    """The manifests whose subject is a digest; one that nobody knows has none."""
    subject = names.digest(request.match_info["digest"])
    wanted = request.query.get("artifactType", "")

    def read() -> list[dict[str, Any]]:
        found = server.storage.referrers(repository, subject)
        descriptors = [manifests.as_referrer(manifest) for manifest in found]
        return [one for one in descriptors if not wanted or one.get("artifactType") == wanted]

    index = {
        "schemaVersion": 2,
        "mediaType": manifests.INDEX,
        "manifests": await asyncio.to_thread(read),
    }
    response = web.Response(body=orjson.dumps(index), content_type=manifests.INDEX)
    if wanted:
        response.headers["OCI-Filters-Applied"] = "artifactType"
    return response


def paginate(entries: Sequence[str], request: web.Request) -> tuple[list[str], dict[str, str]]:
    """The part of sorted ``entries`` that ``n`` and ``last`` ask for, and the link to the next."""
    last = request.query.get("last", "")
    following = [entry for entry in entries if entry > last] if last else list(entries)
    if "n" not in request.query:
        return following, {}
    count = _number(request, "n", 0)
    page = following[:count]
    if len(following) <= count or not page:
        return page, {}
    link = f"<{request.path}?n={count}&last={quote(page[-1], safe='')}>"
    return page, {"Link": f'{link}; rel="next"'}


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RegistryError("PAGINATION_NUMBER_INVALID", {name: text})
    return int(text)


@web.middleware
async def _middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors in the form of the specification."""
    try:
        response = await handler(request)
    except RegistryError as error:
        response = _refusal(error)
    except web.HTTPNotFound:
        response = web.Response(status=404, text="404 page not found\n")
    except web.HTTPMethodNotAllowed:
        response = _refusal(RegistryError("UNSUPPORTED"))
    except (ConnectionError, asyncio.CancelledError, web.HTTPException):
        raise
    except OSError as error:
        log.error("%s %s: %s", request.method, request.path, error)
        document = {"errors": [{"code": "UNKNOWN", "message": error.strerror or "unknown error"}]}
        response = web.json_response(document, status=500)
    if not response.prepared:
        response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    return response


def _refusal(error: RegistryError) -> web.Response:
    return web.json_response(error.document(), status=error.status, headers=error.headers)


# A repository's name may have slashes; so the longest paths come first.
ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/blobs/uploads/", blobs.begin),
    ("GET", "/blobs/uploads/{upload}", blobs.status),
    ("PATCH", "/blobs/uploads/{upload}", blobs.append),
    ("PUT", "/blobs/uploads/{upload}", blobs.finish),
    ("DELETE", "/blobs/uploads/{upload}", blobs.cancel),
    ("GET", "/blobs/{digest}", blobs.get),
    ("HEAD", "/blobs/{digest}", blobs.get),
    ("DELETE", "/blobs/{digest}", blobs.delete),
    ("GET", "/manifests/{reference}", get_manifest),
    ("HEAD", "/manifests/{reference}", get_manifest),
    ("PUT", "/manifests/{reference}", put_manifest),
    ("DELETE", "/manifests/{reference}", delete_manifest),
    ("GET", "/tags/list", list_tags),
    ("GET", "/referrers/{digest}", list_referrers),
)
