"""Pages that a default backend has in place of an endpoint's: for errors, and where none is.

What it is told of the request is what ingress-nginx tells
(https://kubernetes.github.io/ingress-nginx/user-guide/custom-errors/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wherry.kube.ingress.model import Location
from wherry.kube.ingress.text import Above, literal, name


def instead(location: Location, code: int, target: str) -> Iterator[str]:
    """Lines that ask the backend for the page.

    Args:
        location: where the request came in.
        code: what would have been the answer.
        target: what ``proxy_pass`` names.
    """
    assert location.fallback is not None
    namespace, _, ingress = location.ingress.partition("/")
    yield f'set $proxy_upstream_name "{location.fallback.name}";'
    for header, value in (
        ("Host", "$asked_host"),
        ("Connection", '""'),
        ("X-Code", str(code)),
        ("X-Format", "$http_accept"),
        ("X-Original-URI", "$request_uri"),
        ("X-Namespace", literal(namespace)),
        ("X-Ingress-Name", literal(ingress)),
        ("X-Service-Name", literal(location.service)),
        ("X-Service-Port", literal(location.port)),
        ("X-Request-ID", "$req_id"),
    ):
        yield f"proxy_set_header {header} {value};"
    yield f"proxy_pass http://{target};"


def errors(
    location: Location, kind: str, target: str, also: Iterable[str], beside: Above
) -> Iterator[str]:
    """Lines of a location whose endpoints' errors get other pages.

    Args:
        location: with these endpoints.
        kind: the module of nginx that speaks with them.
        target: where the pages are.
        also: what is said with each answer of the host.
        beside: gets the locations that are needed in the same server.
    """
    yield f"{kind}_intercept_errors on;"
    for code in location.options.custom_errors:
        if code == 401 and location.options.auth_signin:
            continue  # that is where somebody logs in
        lines = [*also, *instead(location, code, target)]
        page = f"@page_{name(*lines)}"
        beside[page] = _named(page, ["rewrite (.*) / break;", *lines])
        yield f"error_page {code} = {page};"


def _named(page: str, lines: Iterable[str]) -> list[str]:
    return [f"location {page} {{", *(f"    {line}" for line in lines), "}"]
