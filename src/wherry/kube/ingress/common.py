"""What is the same for all Ingresses: the keys of ingress-nginx's ConfigMap
(https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/configmap/).

Many are the defaults of annotations, and are read as those; the others are nginx's own settings.
What a ConfigMap says can be refused only as a whole by nginx, so that texts in which it looks for
variables are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from wherry.kube.ingress import values
from wherry.kube.ingress.annotations import READERS
from wherry.kube.ingress.options import DEFAULTS, Options
from wherry.kube.ingress.values import Reader, Refused

_CHALLENGES: Final = ("/.well-known/acme-challenge",)
"""Who asks there has no certificate yet: it is led to no place where it would need one."""

LOG_FORMAT: Final = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" '
    '"$http_user_agent" $request_length $request_time [$proxy_upstream_name] $upstream_addr '
    "$upstream_response_length $upstream_response_time $upstream_status $req_id"
)
_COMPRESSED: Final = (
    "application/atom+xml application/javascript application/x-javascript application/json "
    "application/rss+xml application/vnd.ms-fontobject application/x-font-ttf "
    "application/x-web-app-manifest+json application/xhtml+xml application/xml font/opentype "
    "image/svg+xml image/x-icon text/css text/javascript text/plain text/x-component"
)


@dataclass(frozen=True, slots=True)
class Common:
    """The settings, with ingress-nginx's defaults. Times are in seconds."""

    options: Options = DEFAULTS
    """What Ingresses have that wish nothing else."""
    hsts: bool = True
    hsts_max_age: int = 31_536_000
    hsts_subdomains: bool = True
    hsts_preload: bool = False
    redirect_code: int = 308
    not_redirected: tuple[str, ...] = _CHALLENGES
    not_asked: tuple[str, ...] = _CHALLENGES
    """Paths that need no login."""
    ssl_protocols: str = "TLSv1.2 TLSv1.3"
    ssl_ciphers: str = ""
    session_tickets: bool = False
    http2: bool = True
    forwarded: bool = False
    """Believe what headers say of clients and of what they asked."""
    forwarded_header: str = "X-Forwarded-For"
    forwarded_whole: bool = False
    real_ip: bool = False
    """Believe only who the client is."""
    trusted: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    log_format: str = LOG_FORMAT
    log_escape: str = "default"
    access_log: bool = True
    not_logged: tuple[str, ...] = ()
    keep_alive: int = 75
    keep_alive_requests: int = 1000
    header_timeout: int = 60
    body_timeout: int = 60
    large_headers: str = "4 8k"
    underscores: bool = False
    server_tokens: bool = False
    hidden_headers: tuple[str, ...] = ()
    gzip: bool = False
    gzip_level: int = 1
    gzip_least: int = 256
    gzip_types: str = _COMPRESSED
    refused_request: int = 503
    refused_connection: int = 503
    processes: str = "auto"

    @property
    def strict_transport(self) -> str:
        """The header by which browsers come by TLS alone (RFC 6797); empty: none."""
        if not self.hsts:
            return ""
        subdomains = "; includeSubDomains" if self.hsts_subdomains else ""
        preload = "; preload" if self.hsts_preload else ""
        return f"max-age={self.hsts_max_age}{subdomains}{preload}"


_paths = values.listed(r"/[^\s\"'{};\\$]*", "paths")
_status = values.number(400, 599, "a code from 400 to 599")

_OWN: Final[Mapping[str, tuple[str, Reader]]] = {
    "hsts": ("hsts", values.truth),
    "hsts-max-age": ("hsts_max_age", values.count),
    "hsts-include-subdomains": ("hsts_subdomains", values.truth),
    "hsts-preload": ("hsts_preload", values.truth),
    "http-redirect-code": ("redirect_code", values.number(301, 308, "a code from 301 to 308")),
    "no-tls-redirect-locations": ("not_redirected", _paths),
    "no-auth-locations": ("not_asked", _paths),
    "ssl-protocols": ("ssl_protocols", values.tls_versions),
    "ssl-ciphers": ("ssl_ciphers", values.ciphers),
    "ssl-session-tickets": ("session_tickets", values.truth),
    "use-http2": ("http2", values.truth),
    "use-forwarded-headers": ("forwarded", values.truth),
    "forwarded-for-header": ("forwarded_header", values.header),
    "compute-full-forwarded-for": ("forwarded_whole", values.truth),
    "enable-real-ip": ("real_ip", values.truth),
    "proxy-real-ip-cidr": ("trusted", values.ranges),
    "log-format-upstream": ("log_format", values.text),
    "disable-access-log": ("access_log", lambda value: not values.truth(value)),
    "skip-access-log-urls": ("not_logged", _paths),
    "keep-alive": ("keep_alive", values.count),
    "keep-alive-requests": ("keep_alive_requests", values.count),
    "client-header-timeout": ("header_timeout", values.count),
    "client-body-timeout": ("body_timeout", values.count),
    "large-client-header-buffers": (
        "large_headers",
        values.matching(r"[1-9]\d{0,3} \d{1,6}[kKmM]?", "a number and a size"),
    ),
    "enable-underscores-in-headers": ("underscores", values.truth),
    "server-tokens": ("server_tokens", values.truth),
    "hide-headers": ("hidden_headers", values.headers),
    "use-gzip": ("gzip", values.truth),
    "gzip-level": ("gzip_level", values.number(1, 9, "a number from 1 to 9")),
    "gzip-min-length": ("gzip_least", values.count),
    "gzip-types": ("gzip_types", values.matching(r"[a-z0-9.+/* -]+", "types of content")),
    "limit-req-status-code": ("refused_request", _status),
    "limit-conn-status-code": ("refused_connection", _status),
    "worker-processes": ("processes", values.matching(r"auto|[1-9]\d{0,2}", "auto or a number")),
}
_ESCAPES: Final = {"log-format-escape-json": "json", "log-format-escape-none": "none"}
_DEFAULTS_OF_ANNOTATIONS: Final = (
    *("proxy-body-size", "client-body-buffer-size", "proxy-buffering", "proxy-request-buffering"),
    *("proxy-buffer-size", "proxy-buffers-number", "proxy-max-temp-file-size"),
    *("proxy-connect-timeout", "proxy-send-timeout", "proxy-read-timeout"),
    *("proxy-next-upstream", "proxy-next-upstream-tries", "proxy-next-upstream-timeout"),
    *("ssl-redirect", "force-ssl-redirect", "whitelist-source-range", "denylist-source-range"),
    *("limit-rate", "limit-rate-after", "load-balance", "service-upstream", "custom-http-errors"),
)


def read(data: Mapping[str, str]) -> tuple[Common, list[str]]:
    """What a ConfigMap says, and what of it cannot be used: that changes nothing."""
    common, problems = Common(), list[str]()
    for key, value in sorted(data.items()):
        own = _OWN.get(key)
        try:
            if own is not None:
                field, reader = own
                common = replace(common, **{field: reader(value)})
            elif key in _ESCAPES:
                if values.truth(value):
                    common = replace(common, log_escape=_ESCAPES[key])
            elif key in _DEFAULTS_OF_ANNOTATIONS:
                field, reader = READERS[key]
                options = replace(common.options, **{field: reader(value)})
                common = replace(common, options=options)
            elif key.endswith("-snippet") or key == "allow-snippet-annotations":
                if value not in ("", "false"):
                    values.no_snippets(value)
            else:
                problems.append(f"{key} is not known")
        except Refused as error:
            problems.append(f"{key}: {value!r} {error}")
    return common, problems
