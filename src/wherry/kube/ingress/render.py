"""The model as an nginx configuration (https://nginx.org/en/docs/).

Whatever users wrote stands in quotes, with what nginx would read in them taken away.
"""

from __future__ import annotations

import hashlib
import re
import select
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wherry.kube.ingress.annotations import Options
from wherry.kube.ingress.model import Canary, Configuration, Location, Match, Server, Upstream
from wherry.kube.ingress.nginx import WORKERS


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for all Ingresses."""

    directory: str
    """Of the configuration and what belongs to it."""
    http: tuple[str, ...] = ("80",)
    """Where to listen: ports, or addresses with ports."""
    https: tuple[str, ...] = ("443",)
    https_port: int = 443
    """The port that redirects name."""
    resolver: str = ""
    """A name server for external names."""
    user: str = " ".join(WORKERS)
    connections: int = 16384
    """The most of each process; its limit of open files should be twice that."""
    access_log: str = "access.log"
    error_log: str = "error.log"


def render(configuration: Configuration, settings: Settings) -> str:
    """The text of nginx.conf."""
    return "\n".join(_Writer(configuration, settings).lines()) + "\n"


def quoted(text: str) -> str:
    """A text as nginx reads it back, but for variables, which it still fills in."""
    cleaned = re.sub(r"[\x00-\x1f\x7f]", "", text)
    return '"' + cleaned.replace("\\", "\\\\").replace('"', '\\"') + '"'


def literal(text: str) -> str:
    """A text without variables where nginx would look for them."""
    return quoted(text.replace("$", "${dollar}"))


def _name(*parts: str) -> str:
    """A name for something of ours, from any texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


_HEAD = """\
# Written by Wherry's ingress controller: changes are lost.
user {user};
worker_processes auto;
pid {directory}/nginx.pid;
error_log {error_log} notice;
events {{
    multi_accept on;
    worker_connections {connections};
}}
http {{
    geo $dollar {{ default "$"; }}
    types {{ }}
    default_type text/plain;
    sendfile on;
    tcp_nopush on;
    reset_timedout_connection on;
    keepalive_timeout 75s;
    keepalive_requests 1000;
    server_tokens off;
    server_names_hash_bucket_size 128;
    server_names_hash_max_size 4096;
    map_hash_bucket_size 128;
    variables_hash_max_size 4096;
    large_client_header_buffers 4 8k;
    client_body_temp_path {directory}/tmp/body;
    proxy_temp_path {directory}/tmp/proxy;
    fastcgi_temp_path {directory}/tmp/fastcgi;
    uwsgi_temp_path {directory}/tmp/uwsgi;
    scgi_temp_path {directory}/tmp/scgi;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:SSL:10m;
    ssl_session_timeout 10m;
    ssl_session_tickets off;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    map $http_x_request_id $req_id {{ default $http_x_request_id; '' $request_id; }}
    log_format upstreaminfo '$remote_addr - $remote_user [$time_local] "$request" $status '
        '$body_bytes_sent "$http_referer" "$http_user_agent" $request_length $request_time '
        '[$proxy_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time '
        '$upstream_status $req_id';
    access_log {access_log} upstreaminfo buffer={log_buffer} flush=1s;
    proxy_http_version 1.1;
    proxy_redirect off;
    proxy_set_header Host $http_host;
    proxy_ssl_server_name on;"""

_LOG_BUFFER = select.PIPE_BUF
"""Lines are written together, but no more of them than a pipe takes in one piece."""

_HEADERS = (
    ("X-Request-ID", "$req_id"),
    ("X-Real-IP", "$remote_addr"),
    ("X-Forwarded-For", "$remote_addr"),
    ("X-Forwarded-Host", "$http_host"),
    ("X-Forwarded-Port", "$server_port"),
    ("X-Forwarded-Proto", "$scheme"),
    ("X-Forwarded-Scheme", "$scheme"),
    ("X-Scheme", "$scheme"),
    ("X-Original-Forwarded-For", "$http_x_forwarded_for"),
    ("Proxy", '""'),
)


class _Writer:
    def __init__(self, configuration: Configuration, settings: Settings) -> None:
        self._configuration = configuration
        self._settings = settings
        self._upstreams: dict[str, list[str]] = {}
        self._above: dict[str, list[str]] = {}
        """What locations need beside the servers: zones, maps."""

    def lines(self) -> Iterator[str]:
        settings = self._settings
        servers = [
            line
            for host in sorted(self._configuration.servers)
            for line in self._server(self._configuration.servers[host])
        ]
        yield _HEAD.format(
            user=settings.user,
            directory=settings.directory,
            error_log=settings.error_log,
            access_log=settings.access_log,
            log_buffer=_LOG_BUFFER,
            connections=settings.connections,
        )
        if settings.resolver:
            yield f"    resolver {settings.resolver} valid=30s;"
        for name in sorted(self._above):
            yield from _indented(self._above[name], 1)
        for name in sorted(self._upstreams):
            yield from _indented(self._upstreams[name], 1)
        yield from _indented(servers, 1)
        yield "}"

    # -- servers

    def _server(self, server: Server) -> Iterator[str]:
        settings = self._settings
        first = " default_server" if not server.host else ""
        yield "server {"
        for address in settings.http:
            yield f"    listen {address}{first};"
        for address in settings.https:
            yield f"    listen {address}{first} ssl http2;"
        names = " ".join(map(_server_name, (server.host, *sorted(server.aliases))))
        yield f"    server_name {names};"
        certificate = server.certificate or self._configuration.certificate or "default.pem"
        yield f"    ssl_certificate {settings.directory}/secrets/{certificate};"
        yield f"    ssl_certificate_key {settings.directory}/secrets/{certificate};"
        yield '    set $proxy_upstream_name "-";'
        if server.app_root:
            yield "    if ($uri = /) {"
            yield f"        return 302 {quoted('$scheme://$http_host' + server.app_root)};"
            yield "    }"
        locations = sorted(server.locations.values(), key=_precedence)
        taken: set[str] = set()
        for location in locations:
            yield from _indented(self._location(server, location, taken), 1)
        if not any(_is_everything(location) for location in locations):
            yield "    location / {"
            if not server.host:
                yield "        access_log off;"
            yield "        return 404;"
            yield "    }"
        if not server.host and not any(location.path == "/healthz" for location in locations):
            yield "    location = /healthz {"
            yield "        access_log off;"
            yield "        return 200;"
            yield "    }"
        yield "}"

    def _location(self, server: Server, location: Location, taken: set[str]) -> Iterator[str]:
        """What of its paths is not ``taken``, as a prefix's own path is by one that is exact."""
        body = list(self._body(server, location))
        heads = [head for head in _heads(location) if head not in taken]
        taken |= {*heads}
        for head in heads:
            yield f"location {head} {{"
            yield from _indented(body, 1)
            yield "}"

    def _body(self, server: Server, location: Location) -> Iterator[str]:
        options = location.options
        if location.denied:
            yield "return 503;"
            return
        if options.force_ssl_redirect or (server.ssl and options.ssl_redirect):
            port = self._settings.https_port
            target = "https://$host" + ("" if port == 443 else f":{port}") + "$request_uri"
            yield 'if ($scheme = "http") {'
            yield f"    return 308 {target};"
            yield "}"
        for address in options.deny:
            yield f"deny {address};"
        if options.allow:
            for address in options.allow:
                yield f"allow {address};"
            yield "deny all;"
        if location.auth_file:
            yield f"auth_basic {literal(options.auth_realm or 'Authentication Required')};"
            file = f"{self._settings.directory}/secrets/{location.auth_file}"
            yield f"auth_basic_user_file {file};"
        if not options.access_log:
            yield "access_log off;"
        yield from self._limits(location)
        if options.cors:
            yield from self._cors(location)
        if options.permanent_redirect:
            yield f"return {options.permanent_redirect_code} {quoted(options.permanent_redirect)};"
            return
        if options.temporal_redirect:
            yield f"return 302 {quoted(options.temporal_redirect)};"
            return
        if location.upstream is None:
            yield "return 503;"
            return
        yield from self._proxy(location, location.upstream)

    # -- to the endpoints

    def _proxy(self, location: Location, upstream: Upstream) -> Iterator[str]:
        options = location.options
        scheme = options.backend_protocol.lower()
        grpc = scheme.startswith("grpc")
        kind = "grpc" if grpc else "proxy"
        target = self._target(upstream, options)
        if location.canary is not None:
            target = self._choose(location, target, location.canary)
        yield f'set $proxy_upstream_name "{upstream.name}";'
        yield f"client_max_body_size {options.body_size};"
        yield f"{kind}_connect_timeout {options.connect_timeout}s;"
        yield f"{kind}_send_timeout {options.send_timeout}s;"
        yield f"{kind}_read_timeout {options.read_timeout}s;"
        yield f"{kind}_next_upstream {options.next_upstream};"
        yield f"{kind}_next_upstream_tries {options.next_upstream_tries};"
        if not grpc:
            yield f"proxy_buffering {_on(options.buffering)};"
            yield f"proxy_request_buffering {_on(options.request_buffering)};"
            yield f"proxy_buffer_size {options.buffer_size};"
            yield f"proxy_buffers 4 {options.buffer_size};"
            yield f"proxy_busy_buffers_size {options.buffer_size};" if options.buffering else ""
            yield "proxy_set_header Upgrade $http_upgrade;"
            yield "proxy_set_header Connection $connection_upgrade;"
        host = quoted(options.upstream_vhost) if options.upstream_vhost else "$http_host"
        if upstream.external and not options.upstream_vhost:
            host = quoted(upstream.external)
        yield f"{kind}_set_header Host {host};"
        for name, value in _HEADERS:
            yield f"{kind}_set_header {name} {value};"
        if options.forwarded_prefix:
            yield f"{kind}_set_header X-Forwarded-Prefix {literal(options.forwarded_prefix)};"
        if options.affinity:
            yield from self._cookie(options)
        if options.rewrite_target:
            found = quoted(f"(?i){location.path}")
            yield f"rewrite {found} {quoted(options.rewrite_target)} break;"
        if options.limit_rate:
            yield f"limit_rate {options.limit_rate}k;"
        if options.limit_rate_after:
            yield f"limit_rate_after {options.limit_rate_after}k;"
        if not upstream.endpoints and not upstream.external and location.canary is None:
            yield "return 503;"
            return
        yield f"{kind}_pass {scheme}://{target};"

    def _target(self, upstream: Upstream, options: Options) -> str:
        """What ``proxy_pass`` names; the group of servers is written where it is not yet."""
        if upstream.external:
            variable = f"$external_{_name(upstream.external)}"
            lines = [f'map "" {variable} {{ default {quoted(upstream.external)}; }}']
            self._above[variable] = lines
            return f"{variable}:{upstream.port}"
        balance = _balance(options)
        group = f"u_{_name(upstream.name, *balance)}"
        lines = [f"upstream {group} {{ # {re.sub('[^a-z0-9.-]', '', upstream.name)}"]
        lines += [f"    {line}" for line in balance]
        lines += [f"    server {_host(a)}:{port} max_fails=0;" for a, port in upstream.endpoints]
        if not upstream.endpoints:
            lines.append("    server unix:/nowhere down;")
        lines += ["    keepalive 320;", "    keepalive_requests 10000;", "}"]
        self._upstreams[group] = lines
        if options.affinity:
            cookie = self._cookie_value(options.cookie_name)
            variable = f"$sticky_{_name(options.cookie_name)}"
            self._above[variable] = [
                f"map {cookie} {variable} {{ default {cookie}; '' $request_id; }}"
            ]
        return group

    def _choose(self, location: Location, stable: str, canary: Canary) -> str:
        """A variable that names the stable upstream or the canary, request by request.

        Header, then cookie, then weight decide, as ingress-nginx has it.
        """
        options = canary.options
        other = self._target(canary.upstream, options)
        if not canary.upstream.endpoints and not canary.upstream.external:
            return stable
        id = _name(location.ingress, location.path, canary.upstream.name)
        lines: list[str] = []
        chosen = f"$canary_weight_{id}"
        share = min(100.0, 100.0 * options.canary_weight / max(1, options.canary_weight_total))
        if share >= 100:
            lines.append(f'map "" {chosen} {{ default {other}; }}')
        elif share > 0:
            lines.append(
                f'split_clients "$request_id" {chosen} {{ {share:.2f}% {other}; * {stable}; }}'
            )
        else:
            lines.append(f'map "" {chosen} {{ default {stable}; }}')
        if options.canary_cookie:
            cookie = self._cookie_value(options.canary_cookie)
            variable = f"$canary_cookie_{id}"
            lines.append(
                f"map {cookie} {variable} {{ default {chosen}; always {other}; never {stable}; }}"
            )
            chosen = variable
        if options.canary_header:
            header = options.canary_header.lower().replace("-", "_")
            variable = f"$canary_header_{id}"
            lines.append(f"map $http_{header} {variable} {{ default {chosen};")
            if options.canary_header_value:
                lines.append(f"    {quoted(options.canary_header_value)} {other};")
            elif options.canary_header_pattern:
                lines.append(f"    {quoted('~' + options.canary_header_pattern)} {other};")
            else:
                lines.append(f"    always {other}; never {stable};")
            lines.append("}")
            chosen = variable
        self._above[f"canary {id}"] = lines
        return chosen

    def _cookie_value(self, name: str) -> str:
        """The variable with the value of a cookie; nginx has none for names with dashes."""
        if re.fullmatch("[A-Za-z0-9_]+", name):
            return f"$cookie_{name.lower()}"
        id = _name(name)
        found = quoted(rf"~(?:^|; *){re.escape(name)}=(?<found_{id}>[^;]*)")
        variable = f"$found_cookie_{id}"
        self._above[variable] = [
            f"map $http_cookie {variable} {{ default ''; {found} $found_{id}; }}"
        ]
        return variable

    def _cookie(self, options: Options) -> Iterator[str]:
        """Tell a new client the key by which its next requests come to the same endpoint."""
        parts = [f"{options.cookie_name}=$request_id", f"Path={options.cookie_path}", "HttpOnly"]
        if options.cookie_max_age:
            parts.insert(1, f"Max-Age={options.cookie_max_age}")
        if options.cookie_secure or options.cookie_same_site == "None":
            parts.append("Secure")
        if options.cookie_same_site:
            parts.append(f"SameSite={options.cookie_same_site}")
        cookie = self._cookie_value(options.cookie_name)
        variable = f"$set_cookie_{_name(*parts)}"
        self._above[variable] = [
            f"map {cookie} {variable} {{ default ''; '' {quoted('; '.join(parts))}; }}"
        ]
        yield f"add_header Set-Cookie {variable};"

    # -- limits and CORS

    def _limits(self, location: Location) -> Iterator[str]:
        options = location.options
        if not (options.limit_rps or options.limit_rpm or options.limit_connections):
            return
        id = _name(location.ingress)
        key = "$binary_remote_addr"
        if options.limit_exempt:
            ranges = " ".join(f"{range} 0;" for range in options.limit_exempt)
            key = f"$limit_{id}"
            self._above[f"limit {id}"] = [
                f"geo $limited_{id} {{ default 1; {ranges} }}",
                f"map $limited_{id} {key} {{ 0 ''; 1 $binary_remote_addr; }}",
            ]
        zones = self._above.setdefault(f"limit {id} zones", [])
        if options.limit_connections:
            _once(zones, f"limit_conn_zone {key} zone=conn_{id}:5m;")
            yield f"limit_conn conn_{id} {options.limit_connections};"
            yield "limit_conn_status 503;"
        for unit, rate in (("s", options.limit_rps), ("m", options.limit_rpm)):
            if rate:
                _once(zones, f"limit_req_zone {key} zone=req{unit}_{id}:5m rate={rate}r/{unit};")
                burst = rate * max(1, options.limit_burst)
                yield f"limit_req zone=req{unit}_{id} burst={burst} nodelay;"
        if options.limit_rps or options.limit_rpm:
            yield "limit_req_status 503;"

    def _cors(self, location: Location) -> Iterator[str]:
        options = location.options
        variable = f"$cors_{_name(*options.cors_origins)}"
        if "*" in options.cors_origins:
            allowed = (
                "default $http_origin; '' '*';" if options.cors_credentials else "default '*';"
            )
        else:
            patterns = " ".join(
                f"{quoted('~*^' + _origin_pattern(origin) + '$')} $http_origin;"
                for origin in options.cors_origins
            )
            allowed = f"default ''; {patterns}"
        self._above[variable] = [f"map $http_origin {variable} {{ {allowed} }}"]
        headers = [("Access-Control-Allow-Origin", variable)]
        if options.cors_credentials:
            headers.append(("Access-Control-Allow-Credentials", "true"))
        if options.cors_exposed:
            headers.append(("Access-Control-Expose-Headers", quoted(options.cors_exposed)))
        preflight = [
            *headers,
            ("Access-Control-Allow-Methods", quoted(options.cors_methods)),
            ("Access-Control-Allow-Headers", quoted(options.cors_headers)),
            ("Access-Control-Max-Age", str(options.cors_max_age)),
        ]
        yield "if ($request_method = OPTIONS) {"
        for name, value in preflight:
            yield f"    add_header {name} {value} always;"
        yield "    add_header Content-Type 'text/plain charset=UTF-8';"
        yield "    add_header Content-Length 0;"
        yield "    return 204;"
        yield "}"
        for name, value in headers:
            yield f"add_header {name} {value} always;"


def _on(value: bool) -> str:
    return "on" if value else "off"


def _once(lines: list[str], line: str) -> None:
    if line not in lines:
        lines.append(line)


def _indented(lines: Iterable[str], depth: int) -> Iterator[str]:
    return ("    " * depth + line for line in lines if line)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _server_name(host: str) -> str:
    """A host name; a wildcard stands for one label, for which nginx needs an expression."""
    if not host:
        return "_"
    if host.startswith("*."):
        return quoted(rf"~^[^.]+\.{re.escape(host[2:])}$")
    return host


def _is_everything(location: Location) -> bool:
    return location.path == "/" and location.match in (Match.ELEMENTS, Match.TEXT)


def _precedence(location: Location) -> tuple[int, str, int]:
    """Long paths first, and of equal ones what says most exactly what it means."""
    order = (Match.EXACT, Match.ELEMENTS, Match.TEXT, Match.REGEX)
    return -len(location.path), location.path, order.index(location.match)


def _heads(location: Location) -> Iterator[str]:
    """How nginx names the location: a prefix by elements is the path itself and all below it."""
    path = location.path
    match location.match:
        case Match.EXACT:
            yield f"= {quoted(path)}"
        case Match.REGEX:
            yield f"~* {quoted('^' + path)}"
        case Match.TEXT:
            yield quoted(path)
        case Match.ELEMENTS:
            if path == "/":
                yield quoted("/")
            else:
                yield quoted(f"{path}/")
                yield f"= {quoted(path)}"


def _balance(options: Options) -> list[str]:
    if options.affinity:
        return [f"hash $sticky_{_name(options.cookie_name)} consistent;"]
    if options.hash_by:
        return [f"hash {quoted(options.hash_by)} consistent;"]
    return ["least_conn;"] if options.load_balance in ("least_conn", "ewma") else []


def _origin_pattern(origin: str) -> str:
    """An expression for an origin: ``*.`` is one label or more, a scheme may be left out."""
    pattern = re.escape(origin).replace(r"\*", r"[a-z0-9.-]+")
    return pattern if "://" in origin else rf"https?://{pattern}"
