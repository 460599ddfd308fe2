"""``…/proxy``: a node's kubelet, a pod or a service as if the client stood beside it.

Upstream: pkg/registry/core/{node,pod,service}/…/rest, k8s.io/apimachinery/pkg/util/proxy.
"""

from __future__ import annotations

import posixpath
import re
import ssl
from functools import cached_property
from urllib.parse import unquote

from aiohttp import web
from aiohttp.web_request import BaseRequest

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES, PODS
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.proxying import places
from wherry.kube.apiserver.proxying.carrier import Carrier, Errand, wants_upgrade
from wherry.kube.apiserver.proxying.places import Kubelets, unavailable
from wherry.kube.apiserver.proxying.raw import Target, Unreachable
from wherry.kube.apiserver.proxying.rewriting import rewrite_url
from wherry.kube.apiserver.request import RequestInfo

_PLACE = re.compile(r"(/+api/+v1/+(?:namespaces/+[^/]+/+)?[^/]+/+[^/]+/+proxy)(/.*)?")
METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))


def below(path: str) -> tuple[str, str]:
    """The part of a path up to ``/proxy``, and the path behind it, without detours; as sent."""
    found = _PLACE.fullmatch(path)
    assert found is not None, path
    prefix, rest = found[1], found[2] or ""
    if any(unquote(part) in (".", "..") for part in rest.split("/")):
        straight = posixpath.normpath("/".join(_plain(part) for part in rest.split("/")))
        rest = "/" + straight.lstrip("/") + ("/" if rest.endswith("/") and straight != "/" else "")
    return prefix, rest


def _plain(part: str) -> str:
    return unquote(part) if unquote(part) in (".", "..") else part


class Proxies:
    """Answers requests to ``…/proxy``."""

    def __init__(self, cache: Cache, kubelets: Kubelets, carrier: Carrier) -> None:
        self._cache = cache
        self._kubelets = kubelets
        self._carrier = carrier

    def concerns(self, info: RequestInfo) -> bool:
        return info.subresource == "proxy" and info.resource is not None

    @cached_property
    def _any(self) -> ssl.SSLContext:
        """Pods are reached by address: there is no name that a certificate could be for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    async def handle(self, request: BaseRequest, info: RequestInfo) -> web.StreamResponse:
        """Answer with what is there.

        Raises:
            StatusError: 404, 400, 503: there is nobody, or nobody answers.
        """
        if request.method not in METHODS:
            raise StatusError(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
                details={},
            )
        path, sign, query = request.raw_path.partition("?")
        prefix, rest = below(path)
        scheme, host, port, context = self._place(info)
        if not rest:
            if request.method in ("GET", "HEAD") and not wants_upgrade(request):
                return web.Response(status=301, headers={"Location": f"{path}/{sign}{query}"})
            rest = "/"
        target = Target(host, port, f"{rest}{sign}{query}", scheme)
        asked = request.headers.get("Host", "")
        errand = Errand(
            target,
            context if scheme == "https" else None,
            (("X-Forwarded-Uri", f"{prefix}{rest}"),),
            asked,
            lambda url: rewrite_url(url, prefix, target.authority, asked),
        )
        try:
            return await self._carrier.carry(request, errand)
        except Unreachable as error:
            raise unavailable(f"error trying to reach service: {error}") from error

    def _place(self, info: RequestInfo) -> tuple[str, str, int, ssl.SSLContext]:
        if info.resource is NODES:
            return self._node(info.name)
        if info.resource is PODS:
            return (*places.of_pod(self._cache, info.namespace, info.name), self._any)
        return (*places.of_service(self._cache, info.namespace, info.name), self._any)

    def _node(self, identity: str) -> tuple[str, str, int, ssl.SSLContext]:
        scheme, name, port = places.split(identity, "node")
        host, kubelet = self._kubelets.of(name)
        if port in ("", str(kubelet)):
            return "https", host, kubelet, self._kubelets.context
        places.check_address(host)
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise unavailable(f"error trying to reach service: dial tcp: unknown port tcp/{port}")
        return scheme or "http", host, int(port), self._any
