"""In which form the client wants its answer.

``Accept`` names media types, best first, each perhaps with a transformation:
``application/json;as=Table;v=v1;g=meta.k8s.io``.
Upstream: k8s.io/apiserver/pkg/endpoints/handlers/negotiation and
https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from wherry.kube.api.errors import StatusError

JSON = "application/json"
YAML = "application/yaml"

_TRANSFORMED = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
_BROWSERS = ("curl/", "Wget/", "Mozilla/")


@dataclass(frozen=True, slots=True)
class Form:
    """``transform`` is "" (as it is) or one of the kinds above, of meta.k8s.io/``version``."""

    media_type: str = JSON
    transform: str = ""
    version: str = "v1"
    pretty: bool = False


@lru_cache(512)
def negotiate(accept: str, pretty: str, user_agent: str) -> Form:
    """The best form that we have of those the client takes.

    ``pretty`` is the query parameter; people's clients get it without asking.

    Raises:
        StatusError: 406, we have none of them.
    """
    indented = pretty not in ("", "0", "f", "false", "False") or (
        not pretty and user_agent.startswith(_BROWSERS)
    )
    if not accept:
        return Form(pretty=indented)
    clauses = [_clause(text) for text in accept.split(",")]
    clauses.sort(key=lambda clause: -clause[2])
    for media_type, parameters, quality in clauses:
        if quality <= 0 or (chosen := _media_type(media_type)) is None:
            continue
        transform = parameters.get("as", "")
        if not transform:
            return Form(chosen, pretty=indented)
        version = parameters.get("v", "v1")
        if (
            transform in _TRANSFORMED
            and parameters.get("g", "") == "meta.k8s.io"
            and version in ("v1", "v1beta1")
        ):
            return Form(chosen, transform, version, indented)
    raise StatusError(
        406,
        "NotAcceptable",
        f"only the following media types are accepted: {JSON}, {YAML}",
    )


def _clause(text: str) -> tuple[str, dict[str, str], float]:
    media_type, *rest = (part.strip() for part in text.split(";"))
    parameters = {
        name.strip(): value.strip().strip('"')
        for name, sign, value in (part.partition("=") for part in rest)
        if sign
    }
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 1.0
    return media_type.lower(), parameters, quality


def _media_type(asked: str) -> str | None:
    if asked in (JSON, "*/*", "application/*"):
        return JSON
    if asked in (YAML, "application/x-yaml"):
        return YAML
    return None
