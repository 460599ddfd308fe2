"""``docker search``: asking Docker Hub, or the registry that the term names."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.image.distribution.credentials import Credentials
from wherry.engine.image.distribution.endpoints import Settings, endpoints
from wherry.engine.image.distribution.http import Unreachable, explained, session
from wherry.engine.image.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN


async def search(
    term: str, limit: int, credentials: Credentials, settings: Settings
) -> list[dict[str, Any]]:
    """The repositories that match, as ``GET /images/search`` answers.

    Raises:
        BadParameter: the term is none.
        EngineError: the registry cannot be reached, or answers with something else.
    """
    if "://" in term:
        raise BadParameter(f"invalid repository name ({term}), it should not contain a scheme")
    domain, slash, rest = term.partition("/")
    if slash and ("." in domain or ":" in domain or domain == "localhost"):
        addresses = endpoints(domain, settings)
    else:
        domain, rest = DEFAULT_DOMAIN, term
        addresses = [one.at(LEGACY_DOMAIN) for one in endpoints(domain, Settings())]
    failure: Unreachable | None = None
    for endpoint in addresses:
        url = f"{endpoint.url}/v1/search?q={quote(rest, safe='')}&n={limit or 25}"
        try:
            async with (
                session(endpoint.trust()) as client,
                explained(url),
                client.get(url, headers=credentials.basic()) as answer,
            ):
                if answer.status != HTTPStatus.OK:
                    raise EngineError(f"Unexpected status code {answer.status}")
                document = await answer.json(content_type=None)
        except Unreachable as error:
            failure = failure or error
            continue
        return [_result(one) for one in document.get("results") or []]
    assert failure is not None
    raise failure


def _result(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "star_count": int(one.get("star_count") or 0),
        "is_official": bool(one.get("is_official")),
        "name": str(one.get("name") or ""),
        "is_automated": False,
        "description": str(one.get("description") or ""),
    }
