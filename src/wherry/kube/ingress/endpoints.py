"""How the endpoints of a location are spoken with: lines that depend on its wishes alone."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.kube.ingress.model import Location
from wherry.kube.ingress.options import Options
from wherry.kube.ingress.text import on, quoted


def module(options: Options) -> str:
    """The one of nginx that speaks with the endpoints."""
    return "grpc" if options.backend_protocol.startswith("GRPC") else "proxy"


def spoken(location: Location, directory: str) -> Iterator[str]:
    """Limits, buffers, and TLS; secrets are below ``directory``."""
    options = location.options
    kind = module(options)
    yield from _limits(options, kind)
    if kind == "proxy":
        yield from _of_http(options)
    yield from _security(location, kind, f"{directory}/secrets")


def _limits(options: Options, kind: str) -> Iterator[str]:
    """How much may be sent, how long may be waited, how often may be tried."""
    yield f"client_max_body_size {options.body_size};"
    if options.body_buffer_size:
        yield f"client_body_buffer_size {options.body_buffer_size};"
    yield f"{kind}_connect_timeout {options.connect_timeout}s;"
    yield f"{kind}_send_timeout {options.send_timeout}s;"
    yield f"{kind}_read_timeout {options.read_timeout}s;"
    yield f"{kind}_next_upstream {options.next_upstream};"
    yield f"{kind}_next_upstream_tries {options.next_upstream_tries};"
    yield f"{kind}_next_upstream_timeout {options.next_upstream_timeout}s;"
    if options.limit_rate:
        yield f"limit_rate {options.limit_rate}k;"
    if options.limit_rate_after:
        yield f"limit_rate_after {options.limit_rate_after}k;"


def _of_http(options: Options) -> Iterator[str]:
    """What there is for HTTP alone, not for gRPC."""
    size = options.buffer_size
    yield f"proxy_buffering {on(options.buffering)};"
    yield f"proxy_request_buffering {on(options.request_buffering)};"
    yield f"proxy_buffer_size {size};"
    yield f"proxy_buffers {options.buffers_number} {size};"
    if options.buffering:
        yield f"proxy_busy_buffers_size {options.busy_buffers_size or size};"
        yield f"proxy_max_temp_file_size {options.temp_file_size};"
    if options.http_version != "1.1":
        yield f"proxy_http_version {options.http_version};"
    if options.redirect_from == "default":
        yield "proxy_redirect default;"
    elif options.redirect_from != "off" and options.redirect_to != "off":
        yield f"proxy_redirect {quoted(options.redirect_from)} {quoted(options.redirect_to)};"
    for part, change in (
        ("domain", options.rewritten_cookie_domain),
        ("path", options.rewritten_cookie_path),
    ):
        if change != "off":
            yield f"proxy_cookie_{part} {' '.join(map(quoted, change.split()))};"


def _security(location: Location, kind: str, secrets: str) -> Iterator[str]:
    """TLS to the endpoints."""
    options = location.options
    told_name = options.backend_told_name
    if told_name is None and location.upstream is not None and location.upstream.external:
        told_name = True
    if told_name is not None:
        yield f"{kind}_ssl_server_name {on(told_name)};"
    if location.backend_certificate:
        yield f"{kind}_ssl_certificate {secrets}/{location.backend_certificate};"
        yield f"{kind}_ssl_certificate_key {secrets}/{location.backend_certificate};"
    if location.backend_authorities:
        yield f"{kind}_ssl_trusted_certificate {secrets}/{location.backend_authorities};"
    if options.backend_verified:
        yield f"{kind}_ssl_verify on;"
        yield f"{kind}_ssl_verify_depth {options.backend_depth};"
    if options.backend_name:
        yield f"{kind}_ssl_name {quoted(options.backend_name)};"
    if options.backend_ciphers:
        yield f"{kind}_ssl_ciphers {quoted(options.backend_ciphers)};"
    if options.backend_protocols:
        yield f"{kind}_ssl_protocols {options.backend_protocols};"
