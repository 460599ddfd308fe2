"""Who may come, how often, and from which pages: lines of a location."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from wherry.kube.ingress.model import Location
from wherry.kube.ingress.options import Options
from wherry.kube.ingress.text import Above, literal, name, quoted


def fences(location: Location, directory: str) -> Iterator[str]:
    """By address, and by password."""
    options = location.options
    if options.satisfy == "any":
        yield "satisfy any;"
    for address in options.deny:
        yield f"deny {address};"
    if options.allow:
        for address in options.allow:
            yield f"allow {address};"
        yield "deny all;"
    if location.auth_file:
        realm = (options.auth_realm or "Authentication Required").replace('"', "'")
        yield f"auth_basic {literal(realm)};"
        yield f"auth_basic_user_file {directory}/secrets/{location.auth_file};"


def limits(location: Location, above: Above) -> Iterator[str]:
    """So many requests and connections of one address."""
    options = location.options
    if not (options.limit_rps or options.limit_rpm or options.limit_connections):
        return
    key = "$binary_remote_addr"
    if options.limit_exempt:
        id = name(location.ingress)
        ranges = " ".join(f"{range} 0;" for range in options.limit_exempt)
        key = f"$limit_{id}"
        above[f"limit {id}"] = [
            f"geo $limited_{id} {{ default 1; {ranges} }}",
            f"map $limited_{id} {key} {{ 0 ''; 1 $binary_remote_addr; }}",
        ]
    # A zone that outlives a change must have the key it had: nginx takes no other.
    zone = name(location.ingress, key)
    zones = above.setdefault(f"limit {zone} zones", [])
    if options.limit_connections:
        _once(zones, f"limit_conn_zone {key} zone=conn_{zone}:5m;")
        yield f"limit_conn conn_{zone} {options.limit_connections};"
    for unit, rate in (("m", options.limit_rpm), ("s", options.limit_rps)):
        if rate:
            _once(zones, f"limit_req_zone {key} zone=req{unit}_{zone}:5m rate={rate}r/{unit};")
            burst = rate * max(1, options.limit_burst)
            yield f"limit_req zone=req{unit}_{zone} burst={burst} nodelay;"


def cors(options: Options, kind: str, also: Iterable[str], above: Above) -> Iterator[str]:
    """What pages of other origins may do (https://fetch.spec.whatwg.org/#http-cors-protocol).

    ``also`` is said with each answer: nginx forgets it where something else is said.
    """
    id = name(*options.cors_origins)
    if "*" in options.cors_origins:
        # Not the origin that asks: with credentials that would open it to every page there is.
        origin, asked = '"*"', "$request_method = OPTIONS"
    else:
        origin, asked = f"$cors_{id}", f"$preflight_{id}"
        patterns = " ".join(
            f"{quoted('~*^' + _origin_pattern(origin) + '$')} $http_origin;"
            for origin in options.cors_origins
        )
        above[origin] = [f"map $http_origin {origin} {{ default ''; {patterns} }}"]
        preflight = f'map "$request_method:{origin}" {asked} {{ default 0; "~^OPTIONS:." 1; }}'
        above[f"{origin} preflight"] = [preflight]
    headers = [("Access-Control-Allow-Origin", origin)]
    if options.cors_credentials:
        headers.append(("Access-Control-Allow-Credentials", "true"))
    if options.cors_exposed:
        headers.append(("Access-Control-Expose-Headers", quoted(options.cors_exposed)))
    answered = [
        *headers,
        ("Access-Control-Allow-Methods", quoted(options.cors_methods)),
        ("Access-Control-Allow-Headers", quoted(options.cors_headers)),
        ("Access-Control-Max-Age", str(options.cors_max_age)),
    ]
    if origin != '"*"':
        headers.append(("Vary", "Origin"))
        answered.append(("Vary", "Origin"))
    yield f"if ({asked}) {{"
    yield from (f"    {line}" for line in also)
    for header, value in answered:
        yield f"    add_header {header} {value} always;"
    yield "    return 204;"
    yield "}"
    for header, value in headers:
        yield f"add_header {header} {value} always;"
        if header != "Vary":  # one that has two values is none
            yield f"{kind}_hide_header {header};"


def _once(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)


def _origin_pattern(origin: str) -> str:
    """An expression for an origin: ``*.`` is one label, a scheme may be left out."""
    pattern = re.escape(origin).replace(r"\*", r"[a-z0-9-]+")
    return pattern if "://" in origin else rf"https?://{pattern}"
