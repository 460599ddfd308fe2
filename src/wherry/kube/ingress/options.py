"""What may be wished of the paths of an Ingress, with ingress-nginx's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Options:
    """The wishes. Times are in seconds; an empty text is no wish."""

    rewrite_target: str = ""
    use_regex: bool = False
    app_root: str = ""
    ssl_redirect: bool = True
    force_ssl_redirect: bool = False
    permanent_redirect: str = ""
    permanent_redirect_code: int = 301
    temporal_redirect: str = ""
    www_redirect: bool = False
    server_alias: tuple[str, ...] = ()
    ssl_ciphers: str = ""
    ssl_prefer_ciphers: bool | None = None
    upstream_vhost: str = ""
    forwarded_prefix: str = ""
    backend_protocol: str = "HTTP"
    service_upstream: bool = False
    default_backend: str = ""
    custom_errors: tuple[int, ...] = ()
    load_balance: str = "round_robin"
    hash_by: str = ""
    body_size: str = "1m"
    body_buffer_size: str = ""
    connect_timeout: int = 5
    send_timeout: int = 60
    read_timeout: int = 60
    buffering: bool = False
    request_buffering: bool = True
    buffer_size: str = "4k"
    buffers_number: int = 4
    busy_buffers_size: str = ""
    temp_file_size: str = "1024m"
    http_version: str = "1.1"
    connection_header: str = ""
    redirect_from: str = "off"
    redirect_to: str = "off"
    rewritten_cookie_domain: str = "off"
    rewritten_cookie_path: str = "off"
    next_upstream: str = "error timeout"
    next_upstream_tries: int = 3
    next_upstream_timeout: int = 0
    backend_secret: str = ""
    backend_verified: bool = False
    backend_depth: int = 1
    backend_name: str = ""
    backend_told_name: bool | None = None
    backend_ciphers: str = ""
    backend_protocols: str = ""
    affinity: str = ""
    affinity_mode: str = "balanced"
    affinity_canary: str = "sticky"
    cookie_name: str = "INGRESSCOOKIE"
    cookie_path: str = ""
    cookie_domain: str = ""
    cookie_expires: int = 0
    cookie_max_age: str = ""
    cookie_same_site: str = ""
    cookie_conditional: bool = False
    cookie_secure: bool | None = None
    cookie_renewed: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    satisfy: str = "all"
    auth_type: str = ""
    auth_secret: str = ""
    auth_secret_type: str = "auth-file"  # noqa: S105 - a form, no secret
    auth_realm: str = ""
    auth_url: str = ""
    auth_method: str = ""
    auth_signin: str = ""
    auth_signin_parameter: str = "rd"
    auth_response_headers: tuple[str, ...] = ()
    auth_request_redirect: str = ""
    auth_always_cookie: bool = False
    client_secret: str = ""
    client_verify: str = "on"
    client_depth: int = 1
    client_error_page: str = ""
    client_passed_on: bool = False
    client_name: str = ""
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
    mirror_target: str = ""
    mirror_host: str = ""
    mirror_body: bool = True
    access_log: bool = True
    rewrite_log: bool = False


DEFAULTS: Final = Options()
