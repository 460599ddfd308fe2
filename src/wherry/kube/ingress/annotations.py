"""What a user wishes of an Ingress, by the annotations of ingress-nginx, whose names are well known
(https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from wherry.kube.ingress import values
from wherry.kube.ingress.options import DEFAULTS, Options
from wherry.kube.ingress.values import Reader, Refused

PREFIX: Final = "nginx.ingress.kubernetes.io/"
PROTOCOLS: Final = ("HTTP", "HTTPS", "AUTO_HTTP", "GRPC", "GRPCS")

# By topic; the name, the field of Options (empty: there is nothing to keep), who reads the value.
READERS: Final[Mapping[str, tuple[str, Reader]]] = {
    # Paths, hosts and redirects
    "rewrite-target": ("rewrite_target", values.target),
    "use-regex": ("use_regex", values.truth),
    "app-root": ("app_root", values.path),
    "ssl-redirect": ("ssl_redirect", values.truth),
    "force-ssl-redirect": ("force_ssl_redirect", values.truth),
    "preserve-trailing-slash": ("", values.truth),  # always so
    "relative-redirects": ("", values.truth),  # likewise
    "permanent-redirect": ("permanent_redirect", values.url),
    "permanent-redirect-code": (
        "permanent_redirect_code",
        values.number(300, 308, "a code from 300 to 308"),
    ),
    "temporal-redirect": ("temporal_redirect", values.url),
    "from-to-www-redirect": ("www_redirect", values.truth),
    "server-alias": ("server_alias", values.hosts),
    "ssl-ciphers": ("ssl_ciphers", values.ciphers),
    "ssl-prefer-server-ciphers": ("ssl_prefer_ciphers", values.truth),
    # Endpoints
    "upstream-vhost": ("upstream_vhost", values.variables),
    "x-forwarded-prefix": ("forwarded_prefix", values.path),
    "backend-protocol": ("backend_protocol", values.one_of(*PROTOCOLS)),
    "service-upstream": ("service_upstream", values.truth),
    "default-backend": ("default_backend", values.object_name),
    "custom-http-errors": ("custom_errors", values.error_codes),
    "load-balance": ("load_balance", values.one_of("round_robin", "least_conn", "ewma")),
    "upstream-hash-by": ("hash_by", values.variables),
    "proxy-body-size": ("body_size", values.size),
    "client-body-buffer-size": ("body_buffer_size", values.size),
    "proxy-connect-timeout": ("connect_timeout", values.count),
    "proxy-send-timeout": ("send_timeout", values.count),
    "proxy-read-timeout": ("read_timeout", values.count),
    "proxy-buffering": ("buffering", values.truth),
    "proxy-request-buffering": ("request_buffering", values.truth),
    "proxy-buffer-size": ("buffer_size", values.size),
    "proxy-buffers-number": ("buffers_number", values.number(2, 9999, "a number from 2 on")),
    "proxy-busy-buffers-size": ("busy_buffers_size", values.size),
    "proxy-max-temp-file-size": ("temp_file_size", values.size),
    "proxy-http-version": ("http_version", values.one_of("1.0", "1.1")),
    "connection-proxy-header": ("connection_header", values.header),
    "proxy-redirect-from": ("redirect_from", values.word),
    "proxy-redirect-to": ("redirect_to", values.word),
    "proxy-cookie-domain": ("rewritten_cookie_domain", values.rewritten),
    "proxy-cookie-path": ("rewritten_cookie_path", values.rewritten),
    "proxy-next-upstream": ("next_upstream", values.next_upstream),
    "proxy-next-upstream-tries": ("next_upstream_tries", values.count),
    "proxy-next-upstream-timeout": ("next_upstream_timeout", values.count),
    "proxy-ssl-secret": ("backend_secret", values.secret),
    "proxy-ssl-verify": ("backend_verified", values.truth),
    "proxy-ssl-verify-depth": ("backend_depth", values.count),
    "proxy-ssl-name": ("backend_name", values.variables),
    "proxy-ssl-server-name": ("backend_told_name", values.truth),
    "proxy-ssl-ciphers": ("backend_ciphers", values.ciphers),
    "proxy-ssl-protocols": ("backend_protocols", values.tls_versions),
    # Cookies that lead back
    "affinity": ("affinity", values.one_of("cookie")),
    "affinity-mode": ("affinity_mode", values.one_of("balanced", "persistent")),
    "affinity-canary-behavior": ("affinity_canary", values.one_of("sticky", "legacy")),
    "session-cookie-name": ("cookie_name", values.token),
    "session-cookie-path": ("cookie_path", values.path),
    "session-cookie-max-age": ("cookie_max_age", values.matching(r"-?\d{1,9}", "a number")),
    "session-cookie-expires": ("cookie_expires", values.count),
    "session-cookie-domain": (
        "cookie_domain",
        values.matching(r"\.?[A-Za-z0-9.-]+", "a domain"),
    ),
    "session-cookie-change-on-failure": ("cookie_renewed", values.truth),
    "session-cookie-conditional-samesite-none": ("cookie_conditional", values.truth),
    "session-cookie-samesite": ("cookie_same_site", values.one_of("None", "Lax", "Strict")),
    "session-cookie-secure": ("cookie_secure", values.truth),
    # Fences
    "whitelist-source-range": ("allow", values.ranges),
    "allowlist-source-range": ("allow", values.ranges),
    "denylist-source-range": ("deny", values.ranges),
    "satisfy": ("satisfy", values.one_of("all", "any")),
    "auth-type": ("auth_type", values.one_of("basic")),
    "auth-secret": ("auth_secret", values.secret),
    "auth-secret-type": ("auth_secret_type", values.one_of("auth-file", "auth-map")),
    "auth-realm": ("auth_realm", values.realm),
    "auth-url": ("auth_url", values.url),
    "auth-method": ("auth_method", values.method),
    "auth-signin": ("auth_signin", values.page),
    "auth-signin-redirect-param": ("auth_signin_parameter", values.header),
    "auth-response-headers": ("auth_response_headers", values.headers),
    "auth-request-redirect": ("auth_request_redirect", values.word),
    "auth-always-set-cookie": ("auth_always_cookie", values.truth),
    "auth-tls-secret": ("client_secret", values.secret),
    "auth-tls-verify-client": (
        "client_verify",
        values.one_of("on", "off", "optional", "optional_no_ca"),
    ),
    "auth-tls-verify-depth": ("client_depth", values.count),
    "auth-tls-error-page": ("client_error_page", values.page),
    "auth-tls-pass-certificate-to-upstream": ("client_passed_on", values.truth),
    "auth-tls-match-cn": ("client_name", values.expression),
    "limit-rps": ("limit_rps", values.count),
    "limit-rpm": ("limit_rpm", values.count),
    "limit-burst-multiplier": ("limit_burst", values.count),
    "limit-connections": ("limit_connections", values.count),
    "limit-whitelist": ("limit_exempt", values.ranges),
    "limit-allowlist": ("limit_exempt", values.ranges),
    "limit-rate": ("limit_rate", values.count),
    "limit-rate-after": ("limit_rate_after", values.count),
    "enable-modsecurity": ("", values.no_firewall),
    "enable-owasp-core-rules": ("", values.no_firewall),
    # Canaries
    "canary": ("canary", values.truth),
    "canary-weight": ("canary_weight", values.count),
    "canary-weight-total": ("canary_weight_total", values.count),
    "canary-by-header": ("canary_header", values.header),
    "canary-by-header-value": ("canary_header_value", values.text),
    "canary-by-header-pattern": ("canary_header_pattern", values.expression),
    "canary-by-cookie": ("canary_cookie", values.token),
    # Pages of other origins
    "enable-cors": ("cors", values.truth),
    "cors-allow-origin": ("cors_origins", values.origins),
    "cors-allow-methods": ("cors_methods", values.words),
    "cors-allow-headers": ("cors_headers", values.words),
    "cors-expose-headers": ("cors_exposed", values.words),
    "cors-allow-credentials": ("cors_credentials", values.truth),
    "cors-max-age": ("cors_max_age", values.count),
    # What is told elsewhere
    "mirror-target": ("mirror_target", values.url),
    "mirror-host": ("mirror_host", values.variables),
    "mirror-request-body": ("mirror_body", values.truth),
    "enable-access-log": ("access_log", values.truth),
    "enable-rewrite-log": ("rewrite_log", values.truth),
    "configuration-snippet": ("", values.no_snippets),
    "server-snippet": ("", values.no_snippets),
    "auth-snippet": ("", values.no_snippets),
    "stream-snippet": ("", values.no_snippets),
    "modsecurity-snippet": ("", values.no_snippets),
}

_LUA = "it needs Lua, which is not here"
_TRACING = "it needs a module for tracing, which is not here"
_UNCACHED = "each request is asked about anew"
_CANNOT: Final[Mapping[str, str]] = {
    "ssl-passthrough": "TLS ends here, as with ingress-nginx unless it is told otherwise",
    "upstream-hash-by-subset": _LUA,
    "upstream-hash-by-subset-size": _LUA,
    "global-rate-limit": _LUA,
    "global-rate-limit-window": _LUA,
    "global-rate-limit-key": _LUA,
    "global-rate-limit-ignored-cidrs": _LUA,
    "enable-opentelemetry": _TRACING,
    "opentelemetry-operation-name": _TRACING,
    "opentelemetry-trust-incoming-span": _TRACING,
    "enable-opentracing": _TRACING,
    "opentracing-trust-incoming-span": _TRACING,
    "modsecurity-transaction-id": "it needs ModSecurity, which is not here",
    "fastcgi-index": "FastCGI is not spoken here",
    "fastcgi-params-configmap": "FastCGI is not spoken here",
    "http2-push-preload": "browsers have given up HTTP/2 push",
    "auth-cache-key": _UNCACHED,
    "auth-cache-duration": _UNCACHED,
    "auth-keepalive": _UNCACHED,
    "auth-keepalive-requests": _UNCACHED,
    "auth-keepalive-timeout": _UNCACHED,
    "auth-keepalive-share-vars": _UNCACHED,
}
"""What ingress-nginx has and we have not, and why; nobody is let in who would not be with it."""

_NOTHING: Final = "-"
"""No Secret has this name."""


def read(
    annotations: Mapping[str, str], defaults: Options = DEFAULTS
) -> tuple[Options, list[str], list[str]]:
    """The wishes in an Ingress's annotations.

    Returns:
        The options; what is wrong, with which no request may be let in (a fence that cannot be
        built is no open door); and what is not known here, which changes nothing.
    """
    options = defaults
    wrong: list[str] = []
    unknown: list[str] = []
    for key, value in sorted(annotations.items()):
        if not key.startswith(PREFIX):
            continue
        short = key.removeprefix(PREFIX)
        if short in _CANNOT:
            unknown.append(f"annotation {key} changes nothing: {_CANNOT[short]}")
            continue
        found = READERS.get(short)
        if found is None and short.startswith("auth-"):
            wrong.append(f"annotation {key} is a fence that is not known here")
            continue
        if found is None:
            unknown.append(f"annotation {key} is not known")
            continue
        field, reader = found
        try:
            parsed = reader(value)
        except Refused as error:
            wrong.append(f"annotation {key}: {value!r} {error}")
            if field == "client_secret":  # a host's fence, which is for other Ingresses, too
                options = replace(options, client_secret=_NOTHING)
            continue
        if field:
            options = replace(options, **{field: parsed})
    for wish, without, needed, present in (
        ("auth-type", options.auth_type, "auth-secret", options.auth_secret),
        ("auth-signin", options.auth_signin, "auth-url", options.auth_url),
        ("auth-tls-match-cn", options.client_name, "auth-tls-secret", options.client_secret),
        ("proxy-ssl-verify", options.backend_verified, "proxy-ssl-secret", options.backend_secret),
    ):
        if without and not present:
            wrong.append(f"annotation {PREFIX}{wish} needs {PREFIX}{needed}")
    return options, wrong, unknown
