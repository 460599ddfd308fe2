"""An API server in memory: the whole chain on a store in a temporary directory, no network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from wherry.kube.apiserver.local import LocalTransport
from wherry.kube.apiserver.server import SELF, APIServer, APIServerConfig
from wherry.kube.store.sqlite import SQLiteStore

Object = dict[str, Any]


def config(directory: Path, **changes: Any) -> APIServerConfig:
    defaults: dict[str, Any] = {
        "advertise_address": "192.0.2.1",
        "port": 6443,
        "service_cidr": "10.96.0.0/24",
        "tls_cert": directory / "none",
        "tls_key": directory / "none",
    }
    return APIServerConfig(**{**defaults, **changes})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    opened = await SQLiteStore.open(tmp_path / "state.db")
    yield opened
    await opened.close()


@pytest.fixture
async def server(store: SQLiteStore, tmp_path: Path) -> AsyncIterator[APIServer]:
    opened = APIServer(config(tmp_path), store)
    await opened.open()
    await opened.transport(SELF).request(
        "POST", "/api/v1/namespaces/default/serviceaccounts", body={"metadata": {"name": "default"}}
    )
    yield opened
    await opened.close()


async def settled(server: APIServer) -> None:
    """Wait until the server has written what it writes of its own accord after its start: from then
    on every revision is the test's."""
    async with asyncio.timeout(60):
        while (  # noqa: ASYNC110 - nobody is told of it
            server._aggregator.registration_fault() or server._dangling._wrong()
        ):
            await asyncio.sleep(0.01)


@pytest.fixture
def api(server: APIServer) -> API:
    return API(server.transport(SELF))


class API:
    """Requests as the administrator, by short paths: ``pods/web`` is in namespace default."""

    def __init__(self, transport: LocalTransport) -> None:
        self.transport = transport

    async def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        **query: str,
    ) -> Object:
        return await self.transport.request(
            method,
            full(path),
            query=tuple(query.items()),
            body=body,
            content_type=content_type,
        )

    async def merge(self, path: str, patch: Object, **query: str) -> Object:
        return await self(
            "PATCH", path, patch, content_type="application/merge-patch+json", **query
        )


def full(path: str) -> str:
    """``deployments/web`` → ``/apis/apps/v1/namespaces/default/deployments/web``."""
    if path.startswith("/"):
        return path
    plural = path.split("/")[0]
    if plural in ("namespaces", "nodes"):
        return f"/api/v1/{path}"
    if plural in ("deployments", "replicasets"):
        return f"/apis/apps/v1/namespaces/default/{path}"
    return f"/api/v1/namespaces/default/{path}"


def pod(name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}], **spec},
    }


def config_map(name: str = "c", **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str = "web", replicas: int = 1) -> Object:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "busybox"}]},
            },
        },
    }


def service(name: str = "web", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}], **spec},
    }
