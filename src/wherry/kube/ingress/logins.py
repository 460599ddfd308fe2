"""Who may come, as somebody else says: a service that is asked about each request, and authorities
that have signed the clients' certificates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from wherry.kube.ingress.model import ClientCertificates, Location
from wherry.kube.ingress.options import Options
from wherry.kube.ingress.text import Above, address, name, quoted

_ESCAPED = "$escaped_request_uri"
_MOST = 24
"""So often a character is escaped; what has more of them is given up."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the variables are called that say what was asked."""

    scheme: str
    way: str
    """The addresses it came by."""
    strictness: list[str]
    """What else is said with each answer."""


def outside(location: Location, asked: Asked, beside: Above, above: Above) -> Iterator[str]:
    """Lines of a location about whose requests a service is asked.

    Args:
        location: where the requests come in.
        asked: how it is called what they ask for.
        beside: gets the locations that are needed in the same server.
        above: gets the maps.
    """
    options = location.options
    id = name(location.ingress, _upstream_name(location))
    place = f"/_external-auth-{id}"
    beside[place] = [
        f"location = {place} {{",
        *(f"    {line}" for line in _question(location, id, asked, above)),
        "}",
    ]
    yield f"auth_request {place};"
    yield "auth_request_set $auth_cookie $upstream_http_set_cookie;"
    yield _cookie(options)
    for header in options.auth_response_headers:
        yield f"auth_request_set {answer(header)} $upstream_http_{_variable(header)};"
    if options.auth_signin:
        page = f"@signin_{id}"
        beside[page] = [
            f"location {page} {{",
            *(f"    {line}" for line in asked.strictness),
            f"    {_cookie(options)}",
            f"    return 302 {quoted(_signin(options, asked, above))};",
            "}",
        ]
        yield f"error_page 401 = {page};"


def answer(header: str) -> str:
    """The variable with a header of the answer of the service that was asked."""
    return f"$auth_answer_{_variable(header)}"


def _variable(header: str) -> str:
    return header.lower().replace("-", "_")


def _cookie(options: Options) -> str:
    return "add_header Set-Cookie $auth_cookie" + (
        " always;" if options.auth_always_cookie else ";"
    )


def _upstream_name(location: Location) -> str:
    return location.upstream.name if location.upstream else "-"


def _question(location: Location, id: str, asked: Asked, above: Above) -> Iterator[str]:
    options = location.options
    yield "internal;"
    # (Variables are those of the request that is asked about: this one is for its log.)
    yield f'set $proxy_upstream_name "{_upstream_name(location)}";'
    yield "client_max_body_size 0;"
    yield "proxy_pass_request_body off;"
    yield "proxy_ssl_server_name on;"
    yield f"proxy_connect_timeout {options.connect_timeout}s;"
    yield f"proxy_buffer_size {options.buffer_size};"
    yield f"proxy_buffers {options.buffers_number} {options.buffer_size};"
    if options.auth_method:
        yield f"proxy_method {options.auth_method};"
    redirect = quoted(options.auth_request_redirect or "$request_uri")
    for header, value in (
        ("Host", "$proxy_host"),
        ("Connection", '""'),
        ("Content-Length", '""'),
        ("X-Original-URL", f"{asked.scheme}://$asked_host$request_uri"),
        ("X-Original-URI", "$request_uri"),
        ("X-Original-Method", "$request_method"),
        ("X-Sent-From", '"nginx-ingress-controller"'),
        ("X-Real-IP", "$remote_addr"),
        ("X-Forwarded-For", asked.way),
        ("X-Scheme", asked.scheme),
        ("X-Auth-Request-Redirect", redirect),
        ("X-Request-ID", "$req_id"),
    ):
        yield f"proxy_set_header {header} {value};"
    yield f"proxy_pass {address(options.auth_url, '/', above)};"


def _signin(options: Options, asked: Asked, above: Above) -> str:
    """Where somebody logs in, who is told where to go on then."""
    url, parameter = options.auth_signin, options.auth_signin_parameter
    query = url.partition("?")[2]
    if not re.search(rf"(?:^|&){re.escape(parameter)}=", query):
        mark = "&" if query else ("" if url.endswith("?") else "?")
        url += f"{mark}{parameter}={asked.scheme}://$asked_host{_ESCAPED}"
    if _ESCAPED in url:
        _escape(above)
    return url


def _escape(above: Above) -> None:
    """The request's path and query as part of a query, which nginx itself has not.

    One map after the other escapes one character. A request that has too many of one, or what no
    browser sends, becomes ``/``: half of it would be another one.
    """
    lines = []
    source = "$request_uri"
    for character, written, target in (
        ("%", "%25", "$escaped_percent"),
        ("&", "%26", "$escaped_and"),
        ("+", "%2B", _ESCAPED),
    ):
        lines += [f"map {source} {target} {{", f"    default {source};"]
        odd = r"~[^\x21-\x22\x24-\x7e]" if source == "$request_uri" else ""
        lines += [f"    {quoted(odd)} /;"] if odd else []
        other = rf"[^{character}]*"
        lines.append(f'    "~^(?:{other}[{character}]){{{_MOST + 1}}}" /;')
        for count in range(_MOST, 0, -1):
            parts = [f"{target[1:]}_{number}" for number in range(count + 1)]
            found = f"[{character}]".join(f"(?<{part}>{other})" for part in parts)
            whole = written.join(f"${{{part}}}" for part in parts)
            lines.append(f'    "~^{found}$" "{whole}";')
        lines.append("}")
        source = target
    above[_ESCAPED] = lines


def certificates(clients: ClientCertificates, directory: str) -> Iterator[str]:
    """Lines of a server whose clients show certificates."""
    yield f"ssl_client_certificate {directory}/secrets/{clients.authorities};"
    yield f"ssl_verify_client {clients.verify};"
    yield f"ssl_verify_depth {clients.depth};"
    if clients.revoked:
        yield f"ssl_crl {directory}/secrets/{clients.revoked};"
    if clients.error_page:
        yield f"error_page 495 496 = {quoted(clients.error_page)};"


def shown(clients: ClientCertificates) -> Iterator[str]:
    """Lines of a location there: nobody gets in without TLS who must show one."""
    if clients.verify == "on":
        yield "if ($ssl_client_verify != SUCCESS) {"
        yield "    return 403;"
        yield "}"
    if clients.name:
        yield f"if ($ssl_client_s_dn !~ {quoted(clients.name)}) {{"
        yield "    return 403;"
        yield "}"


def passed_on(clients: ClientCertificates) -> Iterator[tuple[str, str]]:
    """What endpoints are told of a client's certificate, by header."""
    if clients.passed_on:
        yield "ssl-client-cert", "$ssl_client_escaped_cert"
    yield "ssl-client-verify", "$ssl_client_verify"
    yield "ssl-client-subject-dn", "$ssl_client_s_dn"
    yield "ssl-client-issuer-dn", "$ssl_client_i_dn"
