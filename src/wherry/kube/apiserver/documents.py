"""What is not about objects: discovery, OpenAPI, version, health.

A path has one handler in `PATHS`; those that end in ``/`` also have all paths below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING

import orjson

from wherry.kube.api import discovery
from wherry.kube.api.catalogue import Catalogue
from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver import health
from wherry.kube.apiserver.answers import Document
from wherry.kube.apiserver.health import Check
from wherry.kube.apiserver.metrics import CONTENT_TYPE, Metrics
from wherry.kube.apiserver.request import Query, RequestInfo, no_such_path

if TYPE_CHECKING:
    from wherry.kube.apiserver.aggregation.documents import Fetched


class Documents:
    """Answers to paths that are about the server itself.

    Args:
        catalogue: what is served.
        address: ``host:port`` where clients find this server.
        checks: what health asks.
        published: what else there is to read, by path.
        elsewhere: what aggregated servers tell of themselves.
        metrics: what is counted.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        address: str,
        checks: Sequence[Check],
        published: Mapping[str, Callable[[], Document]] = MappingProxyType({}),
        elsewhere: Fetched | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._elsewhere = elsewhere
        self._metrics = metrics
        self._address = address
        self._checks = checks
        self._documents = published

    def answer(self, info: RequestInfo, query: Query, headers: dict[str, str]) -> Document:
        """The document at a path.

        Args:
            headers: of the request, with lower-case names: accept, if-none-match.

        Raises:
            StatusError: 404, there is none; 405.
        """
        if info.method not in ("GET", "HEAD"):
            raise no_such_path()
        accept = headers.get("accept", "")
        match info.path.strip("/").split("/"):
            case [""]:
                return _json({"paths": self._paths()})
            case ["version"]:
                return _json(discovery.version())
            case ["api" | "apis" as root]:
                return self._root(root, accept, headers)
            case ["api", "v1"]:
                return _found(self._discovery.resource_list("v1"))
            case ["apis", group]:
                return _found(self._discovery.api_group(group))
            case ["apis", group, version]:
                return _found(self._discovery.resource_list(f"{group}/{version}"))
            case ["openapi", *rest]:
                return self._openapi(rest, query, headers)
            case ["openid", "v1", "jwks"] | [".well-known", "openid-configuration"]:
                return self._published(info.path)
            case ["healthz" | "livez" | "readyz" as kind, *rest]:
                return health.report(kind, "/".join(rest), query, self._checks)
            case ["metrics"] if self._metrics is not None:
                return Document(self._metrics.render(), CONTENT_TYPE)
        raise no_such_path()

    def _published(self, path: str) -> Document:
        document = self._documents.get(path)
        if document is None:
            raise no_such_path()
        return document()

    @property
    def _discovery(self) -> discovery.Discovery:
        local = self._catalogue.served.discovery
        if self._elsewhere is not None and self._elsewhere.active:
            return self._elsewhere.discovery(local)
        return local

    def _paths(self) -> list[str]:
        groups = self._discovery.groups
        paths = ["/api", "/api/v1", "/apis"]
        for group, versions in groups.items():
            paths.append(f"/apis/{group}")
            paths += [f"/apis/{group}/{version}" for version in versions]
        for endpoint in health.ENDPOINTS:
            paths.append(f"/{endpoint}")
            paths += [
                f"/{endpoint}/{check.name}"
                for check in self._checks
                if endpoint == "readyz" or not check.ready_only
            ]
        paths += ["/metrics", "/openapi/v2", "/openapi/v3", "/version", *self._documents]
        return paths

    def _root(self, root: str, accept: str, headers: dict[str, str]) -> Document:
        version = discovery.aggregated_version(accept)
        if version is not None:
            data, tag = self._discovery.aggregated_json(root, version)
            return _tagged(data, tag, headers, discovery.MEDIA_TYPES[version])
        if root == "api":
            return _json(discovery.api_versions(self._address))
        return _json(self._discovery.api_groups())

    def _openapi(self, rest: list[str], query: Query, headers: dict[str, str]) -> Document:
        openapi = self._catalogue.served.openapi
        match rest:
            case ["v2"]:
                return self._openapi_v2(headers)
            case ["v3"]:
                paths = openapi.v3_paths()
                if self._elsewhere is not None:
                    paths["paths"] |= self._elsewhere.v3_paths()
                return _json(paths)
            case ["v3", "api", "v1"]:
                group_version = "v1"
            case ["v3", "apis", group, version]:
                group_version = f"{group}/{version}"
            case _:
                raise no_such_path()
        if group_version not in self._catalogue.served.discovery.group_versions:
            raise no_such_path()
        tag = openapi.v3_hash(group_version)
        answer = _tagged(openapi.v3_gzip(group_version), tag, headers, compressed=True)
        if query.get("hash") == tag:  # this very text, for ever
            answer.headers["Cache-Control"] = "public, immutable"
        return answer

    def _openapi_v2(self, headers: dict[str, str]) -> Document:
        from wherry.kube.apiserver import openapi_protobuf

        served = self._catalogue.served
        elsewhere = self._elsewhere if self._elsewhere and self._elsewhere.active else None
        accept = headers.get("accept", "")
        if accept.startswith(openapi_protobuf.ASKED_FOR):
            media_type = openapi_protobuf.MEDIA_TYPE
            if elsewhere:
                data = openapi_protobuf.gzip_of(elsewhere.v2(served))
            else:
                data = openapi_protobuf.v2_gzip(served.openapi)
        elif not accept or "json" in accept or "*/*" in accept:
            media_type = "application/json"
            data = elsewhere.v2_gzip(served) if elsewhere else served.openapi.v2_gzip
        else:
            raise StatusError(
                406,
                "NotAcceptable",
                "only the following media types are accepted: application/json, "
                + openapi_protobuf.MEDIA_TYPE,
            )
        return _tagged(data, sha256(data).hexdigest(), headers, media_type, compressed=True)


def _json(value: object) -> Document:
    return Document(orjson.dumps(value))


def _found(value: object | None) -> Document:
    if value is None:
        raise no_such_path()
    return _json(value)


def _tagged(
    data: bytes,
    tag: str,
    headers: dict[str, str],
    media_type: str = "application/json",
    *,
    compressed: bool = False,
) -> Document:
    """With an ETag, so that clients who have it already need not fetch it again."""
    quoted = f'"{tag}"'
    if headers.get("if-none-match") == quoted:
        return Document(b"", media_type, 304, {"ETag": quoted})
    return Document(
        data, media_type, 200, {"ETag": quoted, "Vary": "Accept"}, compressed=compressed
    )
