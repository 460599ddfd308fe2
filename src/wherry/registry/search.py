"""Docker's search, as its index once had it: ``GET /v1/search?q=…``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from wherry.registry import manifests
from wherry.registry.errors import RegistryError
from wherry.registry.storage import Storage

DESCRIPTION = "org.opencontainers.image.description"


async def ping(request: web.Request) -> web.Response:
    """A client asks first whether there is a registry that can be searched."""
    return web.json_response(True, headers={"X-Docker-Registry-Standalone": "true"})


def search(storage: Storage, query: str) -> list[dict[str, Any]]:
    """The repositories whose name or description has ``query``."""
    wanted = query.lower()
    found = []
    for repository in storage.repositories():
        description = describe(storage, repository)
        if wanted in repository or wanted in description.lower():
            found.append(
                {
                    "name": repository,
                    "description": description,
                    "star_count": 0,
                    "is_official": False,
                    "is_automated": False,
                }
            )
    return found


def describe(storage: Storage, repository: str) -> str:
    """What the annotation or the label of its newest image says, ``latest`` before others."""
    try:
        tags = storage.tags(repository)
        tag = "latest" if "latest" in tags else tags[-1]
        manifest = storage.manifest(repository, tag, touch=False)
        document = manifests.document_of(manifest)
        if text := (document.get("annotations") or {}).get(DESCRIPTION):
            return str(text)
        config = storage.blob_path(document["config"]["digest"]).read_bytes()
        labels = (orjson.loads(config).get("config") or {}).get("Labels") or {}
    except (RegistryError, LookupError, OSError, ValueError, AttributeError):
        return ""  # it has no image that could say anything
    return str(labels.get(DESCRIPTION, ""))


def answer(query: str, found: Sequence[Any], limit: int, page: int) -> dict[str, Any]:
    """One page of the answer."""
    pages = -(-len(found) // limit)
    return {
        "query": query,
        "num_pages": pages,
        "num_results": len(found),
        "page": page,
        "page_size": limit,
        "results": list(found[(page - 1) * limit : page * limit]),
    }
