"""What a user wishes of an Ingress, by the annotations of ingress-nginx, whose names are well known
(https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

PREFIX: Final = "nginx.ingress.kubernetes.io/"


class Refused(ValueError):
    """The value of an annotation is wrong; ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """The wishes, with ingress-nginx's defaults. Times are in seconds."""

    rewrite_target: str = ""
    use_regex: bool = False
    app_root: str = ""
    ssl_redirect: bool = True
    force_ssl_redirect: bool = False
    permanent_redirect: str = ""
    permanent_redirect_code: int = 301
    temporal_redirect: str = ""
    server_alias: tuple[str, ...] = ()
    upstream_vhost: str = ""
    forwarded_prefix: str = ""
    backend_protocol: str = "HTTP"
    load_balance: str = "round_robin"
    hash_by: str = ""
    body_size: str = "1m"
    connect_timeout: int = 5
    send_timeout: int = 60
    read_timeout: int = 60
    buffering: bool = False
    request_buffering: bool = True
    buffer_size: str = "4k"
    next_upstream: str = "error timeout"
    next_upstream_tries: int = 3
    affinity: str = ""
    cookie_name: str = "INGRESSCOOKIE"
    cookie_path: str = "/"
    cookie_max_age: str = ""
    cookie_same_site: str = ""
    cookie_secure: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    auth_type: str = ""
    auth_secret: str = ""
    auth_secret_type: str = "auth-file"  # noqa: S105 - a form, no secret
    auth_realm: str = ""
    canary: bool = False
    canary_weight: int = 0
    canary_weight_total: int = 100
    canary_header: str = ""
    canary_header_value: str = ""
    canary_header_pattern: str = ""
    canary_cookie: str = ""
    cors: bool = False
    cors_origins: tuple[str, ...] = ("*",)
    cors_methods: str = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
    cors_headers: str = (
        "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,"
        "Range,Authorization"
    )
    cors_exposed: str = ""
    cors_credentials: bool = True
    cors_max_age: int = 1_728_000
    limit_rps: int = 0
    limit_rpm: int = 0
    limit_burst: int = 5
    limit_connections: int = 0
    limit_exempt: tuple[str, ...] = ()
    limit_rate: int = 0
    limit_rate_after: int = 0
    access_log: bool = True


DEFAULTS: Final = Options()

_TEXT = re.compile(r"[\x20-\x7e]*")
_SIZE = re.compile(r"\d+[kKmMgG]?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_ORIGIN = re.compile(r"\*|(https?://)?(\*\.)?[A-Za-z0-9.-]+(:\d+)?|https?://\*")
_WORDS = re.compile(r"[A-Za-z0-9_*, -]*")
_URL = re.compile(r"https?://[^\s\"'{};\\]+")
_VARIABLES = re.compile(r"[A-Za-z0-9_$./:-]+")
_PATH = re.compile(r"/[^\s\"'{};\\]*")
_NEXT = frozenset(
    (
        "error",
        "timeout",
        "invalid_header",
        *(f"http_{code}" for code in (500, 502, 503, 504, 403, 404, 429)),
        "non_idempotent",
        "off",
    )
)


def _text(value: str) -> str:
    if not _TEXT.fullmatch(value):
        raise Refused("must be printable ASCII")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if not pattern.fullmatch(value.strip()):
            raise Refused(f"must be {what}")
        return value.strip()

    return read


def _one_of(*values: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        for known in values:
            if value.strip().lower() == known.lower():
                return known
        raise Refused(f"must be one of {', '.join(values)}")

    return read


def _truth(value: str) -> bool:
    match value.strip().lower():
        case "true" | "1" | "t" | "on":
            return True
        case "false" | "0" | "f" | "off":
            return False
    raise Refused("must be true or false")


def _count(value: str) -> int:
    text = value.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise Refused("must be a number, zero or more")
    return int(text)


def _ranges(value: str) -> tuple[str, ...]:
    result = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        try:
            result.append(str(ipaddress.ip_network(part, strict=False)))
        except ValueError as error:
            raise Refused(f"{part} is no address and no range of addresses") from error
    return tuple(result)


def _listed(pattern: re.Pattern[str], what: str) -> Callable[[str], tuple[str, ...]]:
    one = _matching(pattern, what)
    return lambda value: tuple(one(part) for part in value.split(",") if part.strip())


def _next_upstream(value: str) -> str:
    words = value.split()
    if not words or set(words) - _NEXT:
        raise Refused(f"must be among {', '.join(sorted(_NEXT))}")
    return " ".join(words)


def _redirect_code(value: str) -> int:
    code = _count(value)
    if not 300 <= code <= 308:
        raise Refused("must be a code from 300 to 308")
    return code


def _pattern(value: str) -> str:
    try:
        re.compile(_text(value))
    except re.error as error:
        raise Refused(f"is no regular expression: {error}") from error
    return value


def _no_snippets(value: str) -> str:
    raise Refused("snippets are not allowed: they would rule over the Ingresses of others")


_host_name = _matching(_HOST, "a host name")
_size = _matching(_SIZE, "a size such as 8m")
_path = _matching(_PATH, "a path")
_url = _matching(_URL, "a URL")
_token = _matching(_TOKEN, "a name")
_variables = _matching(_VARIABLES, "a text with variables")
_words = _matching(_WORDS, "a list of names")
_secret = _matching(re.compile(r"[a-z0-9.-]+(/[a-z0-9.-]+)?"), "the name of a Secret")

Reader = Callable[[str], Any]

_READERS: Final[Mapping[str, tuple[str, Reader]]] = {
    "rewrite-target": ("rewrite_target", _path),
    "use-regex": ("use_regex", _truth),
    "app-root": ("app_root", _path),
    "ssl-redirect": ("ssl_redirect", _truth),
    "force-ssl-redirect": ("force_ssl_redirect", _truth),
    "permanent-redirect": ("permanent_redirect", _url),
    "permanent-redirect-code": ("permanent_redirect_code", _redirect_code),
    "temporal-redirect": ("temporal_redirect", _url),
    "server-alias": ("server_alias", _listed(_HOST, "host names")),
    "upstream-vhost": ("upstream_vhost", _variables),
    "x-forwarded-prefix": ("forwarded_prefix", _path),
    "backend-protocol": ("backend_protocol", _one_of("HTTP", "HTTPS", "GRPC", "GRPCS")),
    "load-balance": ("load_balance", _one_of("round_robin", "least_conn", "ewma")),
    "upstream-hash-by": ("hash_by", _variables),
    "proxy-body-size": ("body_size", _size),
    "proxy-connect-timeout": ("connect_timeout", _count),
    "proxy-send-timeout": ("send_timeout", _count),
    "proxy-read-timeout": ("read_timeout", _count),
    "proxy-buffering": ("buffering", _truth),
    "proxy-request-buffering": ("request_buffering", _truth),
    "proxy-buffer-size": ("buffer_size", _size),
    "proxy-next-upstream": ("next_upstream", _next_upstream),
    "proxy-next-upstream-tries": ("next_upstream_tries", _count),
    "affinity": ("affinity", _one_of("cookie")),
    "affinity-mode": ("", _one_of("balanced", "persistent")),
    "session-cookie-name": ("cookie_name", _token),
    "session-cookie-path": ("cookie_path", _path),
    "session-cookie-max-age": ("cookie_max_age", _matching(re.compile(r"-?\d{1,9}"), "a number")),
    "session-cookie-expires": ("", _count),
    "session-cookie-samesite": ("cookie_same_site", _one_of("None", "Lax", "Strict")),
    "session-cookie-secure": ("cookie_secure", _truth),
    "whitelist-source-range": ("allow", _ranges),
    "allowlist-source-range": ("allow", _ranges),
    "denylist-source-range": ("deny", _ranges),
    "auth-type": ("auth_type", _one_of("basic")),
    "auth-secret": ("auth_secret", _secret),
    "auth-secret-type": ("auth_secret_type", _one_of("auth-file", "auth-map")),
    "auth-realm": ("auth_realm", _text),
    "canary": ("canary", _truth),
    "canary-weight": ("canary_weight", _count),
    "canary-weight-total": ("canary_weight_total", _count),
    "canary-by-header": ("canary_header", _token),
    "canary-by-header-value": ("canary_header_value", _text),
    "canary-by-header-pattern": ("canary_header_pattern", _pattern),
    "canary-by-cookie": ("canary_cookie", _token),
    "enable-cors": ("cors", _truth),
    "cors-allow-origin": ("cors_origins", _listed(_ORIGIN, "origins such as https://example.com")),
    "cors-allow-methods": ("cors_methods", _words),
    "cors-allow-headers": ("cors_headers", _words),
    "cors-expose-headers": ("cors_exposed", _words),
    "cors-allow-credentials": ("cors_credentials", _truth),
    "cors-max-age": ("cors_max_age", _count),
    "limit-rps": ("limit_rps", _count),
    "limit-rpm": ("limit_rpm", _count),
    "limit-burst-multiplier": ("limit_burst", _count),
    "limit-connections": ("limit_connections", _count),
    "limit-whitelist": ("limit_exempt", _ranges),
    "limit-allowlist": ("limit_exempt", _ranges),
    "limit-rate": ("limit_rate", _count),
    "limit-rate-after": ("limit_rate_after", _count),
    "enable-access-log": ("access_log", _truth),
    "configuration-snippet": ("", _no_snippets),
    "server-snippet": ("", _no_snippets),
    "auth-snippet": ("", _no_snippets),
    "stream-snippet": ("", _no_snippets),
}


def read(annotations: Mapping[str, str]) -> tuple[Options, list[str], list[str]]:
    """The wishes in an Ingress's annotations.

    Returns:
        The options; what is wrong, with which no request may be let in (a fence that cannot be
        built is no open door); and what is not known here, which changes nothing.
    """
    options = DEFAULTS
    wrong: list[str] = []
    unknown: list[str] = []
    for key, value in sorted(annotations.items()):
        if not key.startswith(PREFIX):
            continue
        found = _READERS.get(key.removeprefix(PREFIX))
        if found is None:
            unknown.append(f"annotation {key} is not known")
            continue
        field, reader = found
        try:
            parsed = reader(value)
        except Refused as error:
            wrong.append(f"annotation {key}: {value!r} {error}")
            continue
        if field:
            options = replace(options, **{field: parsed})
    if options.auth_type and not options.auth_secret:
        wrong.append(f"annotation {PREFIX}auth-type needs {PREFIX}auth-secret")
    return options, wrong, unknown
