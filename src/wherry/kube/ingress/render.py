"""The model as an nginx configuration (https://nginx.org/en/docs/).

Whatever users wrote stands in quotes, with what nginx would read in them taken away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from wherry.kube.ingress import affinity, canaries, endpoints, guards, head, logins, pages
from wherry.kube.ingress.model import Configuration, Location, Match, Server, Upstream
from wherry.kube.ingress.options import Options
from wherry.kube.ingress.settings import Settings
from wherry.kube.ingress.text import (
    Above,
    address,
    host,
    indented,
    literal,
    name,
    on,
    plain,
    quoted,
)


def render(configuration: Configuration, settings: Settings) -> str:
    """The text of nginx.conf."""
    return "\n".join(_Writer(configuration, settings).lines()) + "\n"


class _Writer:
    def __init__(self, configuration: Configuration, settings: Settings) -> None:
        self._configuration = configuration
        self._common = common = configuration.common
        self._settings = settings
        self._upstreams: Above = {}
        self._above: Above = {}
        self._beside: Above = {}
        """Locations of the server at hand that its own locations need."""
        self._scheme, self._port = "$scheme", "$server_port"
        self._way = "$remote_addr"
        if common.forwarded:
            self._scheme, self._port = head.SCHEME, head.PORT
            self._way = "$whole_way" if common.forwarded_whole else self._way

    def lines(self) -> Iterator[str]:
        servers = [
            line
            for host in sorted(self._configuration.servers)
            for line in self._server(self._configuration.servers[host])
        ]
        yield from head.lines(self._settings, self._common)
        for key in sorted(self._above):
            yield from indented(self._above[key], 1)
        for key in sorted(self._upstreams):
            yield from indented(self._upstreams[key], 1)
        yield from indented(servers, 1)
        yield "}"

    # -- servers

    def _server(self, server: Server) -> Iterator[str]:
        yield "server {"
        yield from indented(self._listening(server), 1)
        if server.redirect:
            yield '    set $proxy_upstream_name "-";'
            yield from indented(self._named(), 1)
            yield f"    return {self._common.redirect_code} {self._elsewhere(server.redirect)};"
            yield "}"
            return
        yield '    set $proxy_upstream_name "-";'
        if server.app_root:
            target = f"{self._scheme}://$asked_host{plain(server.app_root)}"
            yield "    if ($uri = /) {"
            yield from indented(self._named(), 2)
            yield f"        return 302 {quoted(target)};"
            yield "    }"
        self._beside = {}
        locations = sorted(server.locations.values(), key=_precedence)
        taken: set[str] = set()
        for location in locations:
            yield from indented(self._location(server, location, taken), 1)
        if not any(_is_everything(location) for location in locations):
            yield "    location / {"
            if not server.host:
                yield "        access_log off;"
            yield from indented(self._named(), 2)
            yield from indented(self._strictness(server), 2)
            yield "        return 404;"
            yield "    }"
        if not server.host and not any(location.path == "/healthz" for location in locations):
            yield "    location = /healthz {"
            yield "        access_log off;"
            yield "        return 200;"
            yield "    }"
        for key in sorted(self._beside):
            yield from indented(self._beside[key], 1)
        yield "}"

    def _listening(self, server: Server) -> Iterator[str]:
        """By which names and certificates it is found."""
        settings = self._settings
        first = "" if server.host else " default_server"
        http2 = " http2" if self._common.http2 else ""
        yield from (f"listen {where}{first};" for where in settings.http)
        yield from (f"listen {where}{first} ssl{http2};" for where in settings.https)
        names = " ".join(map(_server_name, (server.host, *sorted(server.aliases))))
        yield f"server_name {names};"
        certificate = server.certificate or self._configuration.certificate or "default.pem"
        yield f"ssl_certificate {settings.directory}/secrets/{certificate};"
        yield f"ssl_certificate_key {settings.directory}/secrets/{certificate};"
        if server.ciphers:
            yield f"ssl_ciphers {quoted(server.ciphers)};"
        if server.prefers_ciphers is not None:
            yield f"ssl_prefer_server_ciphers {on(server.prefers_ciphers)};"
        if server.clients is not None:
            yield from logins.certificates(server.clients, settings.directory)

    def _elsewhere(self, host: str) -> str:
        """The same on another host, at the port at which this one was asked."""
        found = '"~(?<found_port>:[0-9]+)$" $found_port;'
        self._above["$asked_port"] = [f"map $http_host $asked_port {{ default ''; {found} }}"]
        return quoted(f"{self._scheme}://{host}$asked_port$request_uri")

    def _strictness(self, server: Server) -> list[str]:
        """That browsers come by TLS alone, to a host that has a certificate of its own."""
        if not server.certificate or not self._common.strict_transport:
            return []
        return ["add_header Strict-Transport-Security $strict_transport always;"]

    def _location(self, server: Server, location: Location, taken: set[str]) -> Iterator[str]:
        """What of its paths is not ``taken``, as a prefix's own path is by one that is exact."""
        body = list(self._body(server, location))
        expressions = server.has_expressions
        names = [each for each in _heads(location, expressions) if each not in taken]
        taken |= {*names}
        for each in names:
            yield f"location {each} {{"
            yield from indented(body, 1)
            yield "}"

    def _body(self, server: Server, location: Location) -> Iterator[str]:
        options = location.options
        strictness = self._strictness(server)
        yield from self._named(location)
        yield from strictness
        if location.denied or server.closed:
            yield "return 503;"
            return
        yield from self._to_tls(server, location)
        is_open = self._is_open(location)
        if server.clients is not None and not is_open:
            yield from logins.shown(server.clients)
        yield from guards.fences(location, self._settings.directory)
        if options.auth_url and not is_open:
            asked = logins.Asked(self._scheme, self._way, strictness)
            yield from logins.outside(location, asked, self._beside, self._above)
        if not options.access_log:
            yield "access_log off;"
        if options.rewrite_log:
            yield "rewrite_log on;"
        yield from guards.limits(location, self._above)
        if options.cors:
            yield from guards.cors(options, endpoints.module(options), strictness, self._above)
        if options.permanent_redirect:
            yield f"return {options.permanent_redirect_code} {quoted(options.permanent_redirect)};"
        elif options.temporal_redirect:
            yield f"return 302 {quoted(options.temporal_redirect)};"
        elif location.upstream is None:
            yield "return 503;"
        else:
            yield from self._proxy(server, location, location.upstream)

    def _named(self, location: Location | None = None) -> Iterator[str]:
        """What ingress-nginx has variables for, as far as the access log says it."""
        ingress, service, port, path, other = "", "", "", "", ""
        if location is not None:
            ingress, service, port = location.ingress, location.service, location.port
            path = location.path
            other = location.canary.upstream.name if location.canary else ""
        namespace, _, ingress = ingress.partition("/")
        for variable, value in (
            ("namespace", namespace),
            ("ingress_name", ingress),
            ("service_name", service),
            ("service_port", port),
            ("location_path", path),
            ("proxy_alternative_upstream_name", other),
        ):
            if re.search(rf"\$(\{{{variable}\}}|{variable}\b)", self._common.log_format):
                yield f"set ${variable} {literal(value)};"

    def _to_tls(self, server: Server, location: Location) -> Iterator[str]:
        options, common = location.options, self._common
        wanted = options.force_ssl_redirect or (server.ssl and options.ssl_redirect)
        if not wanted or location.path.startswith(common.not_redirected):
            return
        port = self._settings.https_port
        target = "https://$host" + ("" if port == 443 else f":{port}")
        if common.forwarded:  # whoever stands before us knows at which port
            target = "https://$asked_host"
        yield f'if ({self._scheme} = "http") {{'
        yield f"    return {common.redirect_code} {target}$request_uri;"
        yield "}"

    # -- to the endpoints

    def _proxy(self, server: Server, location: Location, upstream: Upstream) -> Iterator[str]:
        options = location.options
        kind = endpoints.module(options)
        group = self._target(upstream, options)
        home = target = self._home(group, upstream, options)
        yield f'set $proxy_upstream_name "{upstream.name}";'
        if canary := location.canary:
            other = self._target(canary.upstream, canary.options)
            other = self._home(other, canary.upstream, options)
            target = canaries.choose(location, canary, home, other, self._above)
            if target and not home:
                yield f'if ({target} = "") {{'
                yield "    return 503;"
                yield "}"
        page = self._target(location.fallback, self._common.options) if location.fallback else ""
        if not target:
            yield from pages.instead(location, 503, page) if page else ("return 503;",)
            return
        yield from endpoints.spoken(location, self._settings.directory)
        yield from self._told(server, location, upstream)
        if options.affinity and not upstream.external:
            yield from affinity.tell(location, home, group, self._above)
        if options.custom_errors and page:
            yield from pages.errors(location, kind, page, self._strictness(server), self._beside)
        if options.mirror_target:
            yield from self._mirror(location, upstream)
        if options.rewrite_target:
            found = quoted(f"(?i){location.path}")
            yield f"rewrite {found} {quoted(options.rewrite_target)} break;"
        scheme = options.backend_protocol.lower()
        yield f"{kind}_pass {'$scheme' if scheme == 'auto_http' else scheme}://{target};"

    def _home(self, group: str, upstream: Upstream, options: Options) -> str:
        """A group of endpoints, or what leads to the one of it that a cookie names."""
        if not group or upstream.external or not affinity.is_persistent(options):
            return group
        return affinity.route(group, upstream, options, self._above, self._upstreams)

    def _told(self, server: Server, location: Location, upstream: Upstream) -> Iterator[str]:
        """Headers that endpoints get, and those of theirs that nobody gets."""
        kind = endpoints.module(location.options)
        for header, value in self._headers(server, location, upstream).items():
            yield f"{kind}_set_header {header} {value};"
        for header in self._common.hidden_headers:
            yield f"{kind}_hide_header {header};"
        if self._strictness(server):  # one that has two values is none
            yield f"{kind}_hide_header Strict-Transport-Security;"

    def _headers(self, server: Server, location: Location, upstream: Upstream) -> dict[str, str]:
        """What the endpoints are told."""
        options = location.options
        asked = quoted(options.upstream_vhost) if options.upstream_vhost else "$asked_host"
        if upstream.external and not options.upstream_vhost:
            asked = quoted(upstream.external)
        told = {"Host": asked}
        if endpoints.module(options) == "proxy":
            told["Upgrade"] = "$http_upgrade"
            told["Connection"] = options.connection_header or "$connection_upgrade"
        told |= {
            "X-Request-ID": "$req_id",
            "X-Real-IP": "$remote_addr",
            "X-Forwarded-For": self._way,
            "X-Forwarded-Host": "$asked_host",
            "X-Forwarded-Port": self._port,
            "X-Forwarded-Proto": self._scheme,
            "X-Forwarded-Scheme": self._scheme,
            "X-Scheme": self._scheme,
            "X-Original-Forwarded-For": head.variable(self._common.forwarded_header),
            "Proxy": '""',
        }
        if server.clients is not None:
            told |= logins.passed_on(server.clients)
        if location.auth_file:  # the password is for us
            told["Authorization"] = '""'
        if options.forwarded_prefix:
            told["X-Forwarded-Prefix"] = literal(options.forwarded_prefix)
        # (By a client's own word nobody is somebody.)
        asked_about = options.auth_url and not self._is_open(location)
        for header in options.auth_response_headers if options.auth_url else ():
            told = {key: value for key, value in told.items() if key.lower() != header.lower()}
            told[header] = logins.answer(header) if asked_about else '""'
        return told

    def _is_open(self, location: Location) -> bool:
        """Whether nobody is asked who he is."""
        return location.path.startswith(self._common.not_asked)

    def _mirror(self, location: Location, upstream: Upstream) -> Iterator[str]:
        """Somebody else gets the requests, too; what he answers is for nobody."""
        options = location.options
        place = f"/_mirror-{name(location.ingress, upstream.name)}"
        told = quoted(options.mirror_host) if options.mirror_host else "$proxy_host"
        bodiless = ["proxy_pass_request_body off;", 'proxy_set_header Content-Length "";']
        self._beside[place] = [
            f"location = {place} {{",
            "    internal;",
            *(f"    {line}" for line in bodiless if not options.mirror_body),
            f'    set $proxy_upstream_name "{upstream.name}";',
            "    client_max_body_size 0;",
            "    proxy_ssl_server_name on;",
            f"    proxy_set_header Host {told};",
            '    proxy_set_header Connection "";',
            f"    proxy_pass {address(options.mirror_target, '$request_uri', self._above)};",
            "}",
        ]
        yield f"mirror {place};"
        yield f"mirror_request_body {on(options.mirror_body)};"

    def _target(self, upstream: Upstream, options: Options) -> str:
        """What ``proxy_pass`` names, whose group is written here; empty where there is nothing."""
        if upstream.external:
            variable = f"$external_{name(upstream.external)}"
            lines = [f'map "" {variable} {{ default {quoted(upstream.external)}; }}']
            self._above[variable] = lines
            return f"{variable}:{upstream.port}"
        if not upstream.endpoints:
            return ""
        balance = self._balance(options)
        group = f"u_{name(upstream.key, *balance)}"
        lines = [f"upstream {group} {{ # {re.sub('[^a-z0-9.-]', '', upstream.name)}"]
        lines += [f"    {line}" for line in balance]
        lines += [f"    server {host(a)}:{port} max_fails=0;" for a, port in upstream.endpoints]
        self._upstreams[group] = [
            *lines,
            "    keepalive 320;",
            "    keepalive_requests 10000;",
            "}",
        ]
        return group

    def _balance(self, options: Options) -> list[str]:
        if options.affinity and not affinity.is_persistent(options):
            return [f"hash {affinity.key(options, self._above)} consistent;"]
        if options.hash_by:
            return [f"hash {quoted(options.hash_by)} consistent;"]
        return ["least_conn;"] if options.load_balance in ("least_conn", "ewma") else []


def _server_name(host: str) -> str:
    """A host name; a wildcard stands for one label, for which nginx needs an expression."""
    if not host:
        return "_"
    if host.startswith("*."):
        return quoted(rf"~^[^.]+\.{re.escape(host[2:])}$")
    return host


def _is_everything(location: Location) -> bool:
    return location.path == "/" and location.match in (Match.ELEMENTS, Match.TEXT)


def _precedence(location: Location) -> tuple[bool, int, str, int]:
    """Long paths first, and of equal ones what says most exactly what it means."""
    order = (Match.EXACT, Match.ELEMENTS, Match.TEXT, Match.REGEX)
    exact = location.match is Match.EXACT
    return not exact, -len(location.path), location.path, order.index(location.match)


def _heads(location: Location, expressions: bool) -> Iterator[str]:
    """How nginx names the location: a prefix by elements is the path itself and all below it.

    Args:
        location: whose path it is.
        expressions: nginx goes by expressions on this host, in the order in which they are written.
    """
    path = location.path
    match location.match:
        case Match.EXACT if path != "/" and path.endswith("/"):
            # (To ``= /path/`` nginx would lead who asks for ``/path``.)
            yield "~ " + quoted(rf"^{re.escape(path)}\z")
        case Match.EXACT:
            yield f"= {quoted(path)}"
        case Match.REGEX:
            yield f"~* {quoted('^' + path)}"
        case Match.TEXT:
            yield quoted(path)
        case Match.ELEMENTS:
            if path == "/":
                yield quoted("/")
            elif expressions:
                yield "~* " + quoted(rf"^{re.escape(path)}(?:/|\z)")
            else:
                yield quoted(f"{path}/")
                yield f"= {quoted(path)}"
