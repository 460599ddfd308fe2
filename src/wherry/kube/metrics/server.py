"""The aggregated API server ``metrics.k8s.io``: who comes in by the API server is believed to be
whom that one names, and may what a SubjectAccessReview says.

https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import orjson
from aiohttp import web

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES, PODS, Resource
from wherry.kube.client.client import Client
from wherry.kube.client.transport import Object
from wherry.kube.metrics import answers
from wherry.kube.metrics.answers import BASE, GROUP, KINDS, VERSION
from wherry.kube.metrics.scraper import Kubelets, Scraper
from wherry.kube.metrics.usage import Usages

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_REVIEW = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_RESOURCES = {"nodes": NODES, "pods": PODS}


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """What a metrics server is told.

    ``certificate`` and ``key`` are what it shows; ``front_proxy`` is the authority of those who may
    say in whose name they ask, ``proxy_names`` which of them (empty: all). ``resolution`` is the
    time between samples, in seconds.
    """

    certificate: Path
    key: Path
    front_proxy: Path
    proxy_names: Sequence[str] = ()
    kubelets: Kubelets = field(default_factory=Kubelets)
    resolution: float = 15.0


class MetricsServer:
    """``listen`` opens the port, ``run`` keeps the figures until cancelled, ``close`` ends it."""

    def __init__(self, client: Client, config: MetricsConfig) -> None:
        self._client = client
        self._config = config
        self.usages = Usages(config.resolution)
        self._scraper = Scraper(client, self.usages, config.kubelets, config.resolution)
        self._runner: web.AppRunner | None = None
        self._documents: dict[str, Callable[[], Object]] = {
            "/apis": answers.groups,
            f"/apis/{GROUP}": answers.group,
            BASE: answers.resources,
            "/openapi/v2": answers.openapi,
        }

    async def listen(self, host: str, port: int) -> int:
        """Begin to serve; the port, which was free if 0 was given. Raises OSError."""
        app = web.Application(middlewares=[self._guard])
        add = app.router.add_get
        for path in self._documents:
            add(path, self._document)
        for path in ("/healthz", "/livez", "/readyz"):
            add(path, self._healthy)
        add(f"{BASE}/{{resource:nodes|pods}}", self._list)
        add(f"{BASE}/{{resource:nodes}}/{{name}}", self._get)
        add(f"{BASE}/namespaces/{{namespace}}/{{resource:pods}}", self._list)
        add(f"{BASE}/namespaces/{{namespace}}/{{resource:pods}}/{{name}}", self._get)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._context())
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(self._config.front_proxy)
        )
        context.load_cert_chain(self._config.certificate, self._config.key)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    async def run(self) -> None:
        """Keep the figures until cancelled."""
        await self._scraper.run()

    async def close(self) -> None:
        """Close the port and the connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    # --- who asks --------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not self._is_proxy(request):
                raise StatusError(401, "Unauthorized", "Unauthorized")
            if (resource := request.match_info.get("resource")) is not None:
                await self._authorize(request, resource)
            return await handler(request)
        except StatusError as error:
            return web.Response(
                body=orjson.dumps(error.status()),
                status=error.code,
                content_type="application/json",
            )
        except web.HTTPNotFound:
            return web.Response(text="404 page not found\n", status=404)
        except (ConnectionError, TimeoutError) as error:
            said = StatusError(500, "InternalError", f"Internal error occurred: {error}")
            return web.Response(
                body=orjson.dumps(said.status()), status=500, content_type="application/json"
            )

    def _is_proxy(self, request: web.Request) -> bool:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if not certificate:
            return False
        names = self._config.proxy_names
        subject = {k: v for part in certificate.get("subject", ()) for k, v in part}
        return not names or subject.get("commonName") in names

    async def _authorize(self, request: web.Request, resource: str) -> None:
        """Raises StatusError 403."""
        headers, name = request.headers, request.match_info.get("name", "")
        user = headers.get("X-Remote-User", "")
        verb = "get" if name else "list"
        prefix = "x-remote-extra-"
        extra: dict[str, list[str]] = {}
        for key, value in headers.items():
            if key.lower().startswith(prefix):
                extra.setdefault(unquote(key[len(prefix) :]).lower(), []).append(value)
        spec: Object = {
            "user": user,
            "groups": headers.getall("X-Remote-Group", []),
            "extra": extra,
            "resourceAttributes": {
                "group": GROUP,
                "version": VERSION,
                "resource": resource,
                "verb": verb,
                "namespace": request.match_info.get("namespace", ""),
                "name": name,
            },
        }
        if uid := headers.get("X-Remote-Uid"):
            spec["uid"] = uid
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        told = await self._client.transport.request("POST", _REVIEW, body={**review, "spec": spec})
        if not told["status"].get("allowed"):
            where = request.match_info.get("namespace")
            scope = f'in the namespace "{where}"' if where else "at the cluster scope"
            what = f'{resource}.{GROUP} "{name}"' if name else f"{resource}.{GROUP}"
            raise StatusError(
                403,
                "Forbidden",
                f'{what} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API '
                f'group "{GROUP}" {scope}',
                details={"group": GROUP, "kind": resource, **({"name": name} if name else {})},
            )

    # --- answers ---------------------------------------------------------------------------------

    async def _healthy(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _document(self, request: web.Request) -> web.Response:
        return _json(self._documents[request.path.rstrip("/") or "/"]())

    async def _get(self, request: web.Request) -> web.Response:
        plural, namespace = request.match_info["resource"], request.match_info.get("namespace")
        name = request.match_info["name"]
        found = await self._client.get(_RESOURCES[plural], name, namespace)
        made = self._made(plural, found, meta.now())
        if made is None:
            kind = KINDS[plural].lower()
            named = f"{namespace}/{name}" if namespace else name
            raise StatusError(
                404,
                "NotFound",
                f'{kind}.{GROUP} "{named}" not found',
                details={"name": named, "group": GROUP, "kind": kind},
            )
        form = _table_version(request)
        if form:
            return _json(answers.table([made], _include(request), form))
        return _json(made)

    async def _list(self, request: web.Request) -> web.Response:
        plural, namespace = request.match_info["resource"], request.match_info.get("namespace")
        if request.query.get("watch") in ("true", "1"):
            raise StatusError(
                405, "MethodNotAllowed", "the server does not allow this method on the requested "
                "resource",
            )  # fmt: skip
        found = await self._found(_RESOURCES[plural], namespace, request)
        now = meta.now()
        made = [self._made(plural, each, now) for each in found]
        items = [each for each in made if each is not None]
        form = _table_version(request)
        if form:
            return _json(answers.table(items, _include(request), form))
        return _json(answers.list_of(KINDS[plural], items))

    async def _found(
        self, resource: Resource, namespace: str | None, request: web.Request
    ) -> Sequence[Object]:
        fields = [request.query.get("fieldSelector", "")]
        if resource is PODS:
            fields.append("status.phase=Running")
        listed = await self._client.list(
            resource,
            namespace,
            label_selector=request.query.get("labelSelector", ""),
            field_selector=",".join(each for each in fields if each),
        )
        return listed.get("items") or ()

    def _made(self, plural: str, of: Object, now: str) -> Object | None:
        if plural == "nodes":
            usage = self.usages.node(meta.name(of))
            return None if usage is None else answers.node_metrics(of, usage, now)
        usages = self.usages.pod(meta.namespace(of), meta.name(of))
        return answers.pod_metrics(of, usages, now) if usages else None


def _json(value: Object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _table_version(request: web.Request) -> str:
    """Which version of Table the client asks for first; empty where it asks for none."""
    for accepted in request.headers.get("Accept", "").split(","):
        parts = dict(p.strip().partition("=")[::2] for p in accepted.split(";")[1:])
        if parts.get("as") == "Table" and parts.get("g", "meta.k8s.io") == "meta.k8s.io":
            return parts.get("v") or "v1"
        if not parts.get("as") and accepted.strip().startswith("application/json"):
            return ""
    return ""


def _include(request: web.Request) -> str:
    return request.query.get("includeObject") or "Metadata"
