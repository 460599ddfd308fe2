"""Cookies that bring a client back to the endpoint it had.

``balanced``: the cookie is a key, which is spread over the endpoints that there are; with more of
them some clients move. ``persistent``: it names the endpoint, and holds as long as that is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from wherry.kube.ingress.model import Location, Upstream
from wherry.kube.ingress.options import Options
from wherry.kube.ingress.text import Above, host, name, plain, quoted

_SAFE_PATH = re.compile(r"/[A-Za-z0-9/._~%!&'()*+,=:@-]*")
_NEXT = 2  # endpoints that serve in place of one's own when that does not answer
# Browsers that take SameSite=None for something else
# (https://www.chromium.org/updates/same-site/incompatible-clients/).
_CONFUSED = (
    r"\(iP.+; CPU .*OS 12[_\d]*.*\) AppleWebKit/",
    r"\(Macintosh;.*Mac OS X 10_14.*Version/.*Safari/",
    r"Chrom[^ /]+/(5[1-9]|6[0-6])\.",
    r"UCBrowser/([0-9]|1[01])\.",
    r"UCBrowser/12\.([0-9]|1[0-2])\.",
)


def is_persistent(options: Options) -> bool:
    """Whether the cookie names the endpoint."""
    return bool(options.affinity) and options.affinity_mode == "persistent"


def endpoint_id(endpoint: tuple[str, int]) -> str:
    """What a cookie says for it."""
    return name(*map(str, endpoint))


def cookie_value(cookie: str, above: Above) -> str:
    """The variable with the value of a cookie; nginx has none for names with dashes."""
    if re.fullmatch("[A-Za-z0-9_]+", cookie):
        return f"$cookie_{cookie.lower()}"
    id = name(cookie)
    found = quoted(rf"~(?:^|; *){re.escape(cookie)}=(?<found_{id}>[^;]*)")
    variable = f"$found_cookie_{id}"
    above[variable] = [f"map $http_cookie {variable} {{ default ''; {found} $found_{id}; }}"]
    return variable


def key(options: Options, above: Above) -> str:
    """The variable with a client's key: that of its cookie, else one that it will be told."""
    cookie = cookie_value(options.cookie_name, above)
    variable = f"$sticky_{name(options.cookie_name)}"
    above[variable] = [f"map {cookie} {variable} {{ default {cookie}; '' $request_id; }}"]
    return variable


def route(group: str, upstream: Upstream, options: Options, above: Above, upstreams: Above) -> str:
    """The variable that names the group of the cookie's endpoint, else ``group``."""
    cookie = cookie_value(options.cookie_name, above)
    variable = f"$home_{name(group, cookie)}"
    lines = [f"map {cookie} {variable} {{", f"    default {group};"]
    endpoints = upstream.endpoints
    for at, endpoint in enumerate(endpoints):
        own = f"{group}_{endpoint_id(endpoint)}"
        lines.append(f"    {endpoint_id(endpoint)} {own};")
        others = [*endpoints[at + 1 :], *endpoints[:at]][:_NEXT]
        upstreams[own] = [
            f"upstream {own} {{",
            f"    server {_place(endpoint)} max_fails=0;",
            *(f"    server {_place(other)} max_fails=0 backup;" for other in others),
            "    keepalive 32;",
            "}",
        ]
    above[variable] = [*lines, "}"]
    return variable


def tell(location: Location, home: str, group: str, above: Above) -> Iterator[str]:
    """Give a client its cookie.

    Args:
        location: where it asks.
        home: the variable of ``route`` where the cookie names the endpoint.
        group: what that is for a client without one.
        above: gets what is needed.
    """
    options = location.options
    attributes = _attributes(location, above)
    cookie = cookie_value(options.cookie_name, above)
    if is_persistent(options) and location.upstream is not None:
        asked, cases = _by_endpoint(location, home, group, above)
        value = f"{options.cookie_name}=${{{asked}}}{attributes}"
        lines = [line.replace("VALUE", quoted(value)) for line in cases]
    else:
        value = f"{options.cookie_name}=$request_id{attributes}"
        lines = [f"map {cookie} $NAME {{", "    default '';", f"    '' {quoted(value)};"]
        if options.cookie_renewed:
            other = quoted(f"{options.cookie_name}=r$request_id{attributes}")
            lines[0] = f'map "$upstream_addr|{cookie}" $NAME {{'
            lines[2:] = [f"    {quoted('~,')} {other};", f"    {quoted('~[|]$')} {quoted(value)};"]
    variable = f"set_cookie_{name(*lines)}"
    above[f"${variable}"] = [*(line.replace("$NAME", f"${variable}") for line in lines), "}"]
    yield f"add_header Set-Cookie ${variable} always;"


def _by_endpoint(location: Location, home: str, group: str, above: Above) -> tuple[str, list[str]]:
    """The name of a variable with the endpoint that has answered, and when a client is told."""
    assert location.upstream is not None
    endpoints = list(location.upstream.endpoints)
    if location.canary is not None:
        endpoints += location.canary.upstream.endpoints
    served = f"served_{name(*map(_place, endpoints))}"
    lines = [f"map $upstream_addr ${served} {{", "    default '';"]
    for endpoint in endpoints:
        found = quoted(rf"~(?:^|[ ,]){re.escape(_place(endpoint))}$")
        lines.append(f"    {found} {endpoint_id(endpoint)};")
    above[f"${served}"] = [*lines, "}"]
    cookie = cookie_value(location.options.cookie_name, above)
    nothing = f"    {quoted('~:$')} '';"
    if location.options.cookie_renewed:
        same = "    " + quoted(r"~^(.*):\1$") + " '';"
        return served, [f'map "{cookie}:${served}" $NAME {{', nothing, same, "    default VALUE;"]
    known = f"    {quoted(f'~^{group}:')} VALUE;"
    return served, [f'map "{home}:${served}" $NAME {{', nothing, known, "    default '';"]


def _attributes(location: Location, above: Above) -> str:
    """What follows the value, for ``quoted``."""
    options = location.options
    path = options.cookie_path
    if not path:
        known = not location.expression and _SAFE_PATH.fullmatch(location.path)
        path = location.path if known else "/"
    parts = []
    if lifetime := options.cookie_max_age or options.cookie_expires:
        parts.append(f"Max-Age={lifetime}")
    parts.append(f"Path={plain(path)}")
    if options.cookie_domain:
        parts.append(f"Domain={options.cookie_domain}")
    parts.append("HttpOnly")
    text = "".join(f"; {part}" for part in parts)
    if options.cookie_secure or options.cookie_same_site == "None":
        text += "; Secure"
    elif options.cookie_secure is None:
        above["$cookie_secure"] = ["map $https $cookie_secure { default ''; on '; Secure'; }"]
        text += "${cookie_secure}"
    if options.cookie_same_site == "None" and options.cookie_conditional:
        confused = " ".join(f"{quoted('~' + pattern)} '';" for pattern in _CONFUSED)
        none = f"map $http_user_agent $same_site {{ default '; SameSite=None'; {confused} }}"
        above["$same_site"] = [none]
        return f"{text}${{same_site}}"
    return text + (f"; SameSite={options.cookie_same_site}" if options.cookie_same_site else "")


def _place(endpoint: tuple[str, int]) -> str:
    return f"{host(endpoint[0])}:{endpoint[1]}"
