"""From the cluster's objects to the model. Pure but for the check of certificates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from wherry.kube.api import meta
from wherry.kube.ingress import backends, common
from wherry.kube.ingress.annotations import read
from wherry.kube.ingress.backends import NoBackend
from wherry.kube.ingress.certificates import BadCertificate, bundle, covers
from wherry.kube.ingress.model import (
    Canary,
    ClientCertificates,
    Configuration,
    Location,
    Match,
    Server,
    Upstream,
)
from wherry.kube.ingress.options import DEFAULTS, Options
from wherry.kube.ingress.secrets import Secrets
from wherry.kube.ingress.world import Object, World, by_age, data

log = logging.getLogger(__name__)

_MATCHES: Final = {
    "Exact": Match.EXACT,
    "Prefix": Match.ELEMENTS,
    "ImplementationSpecific": Match.TEXT,
}
_WWW: Final = "www."


def build(world: World) -> Configuration:
    """The configuration that serves all Ingresses; of two that want one path the older has it."""
    result = Configuration()
    result.common, result.unusable = common.read(world.settings)
    result.servers[""] = Server("")
    result.certificate = _default_certificate(world, result)
    result.default_backend = _default_backend(world)
    ordered = by_age(world.ingresses)
    wishes: dict[str, tuple[Options, bool]] = {}
    for ingress in ordered:
        options, wrong, unknown = read(meta.annotations(ingress), result.common.options)
        for problem in (*wrong, *unknown):
            result.complain(meta.key(ingress), problem)
        wishes[meta.key(ingress)] = options, bool(wrong)
    for ingress in ordered:
        options, denied = wishes[meta.key(ingress)]
        if not options.canary:
            _contained(result, ingress, _Builder(world, result, ingress, options, denied).add)
    for ingress in ordered:
        options, denied = wishes[meta.key(ingress)]
        if options.canary and not denied:
            builder = _Builder(world, result, ingress, options, denied)
            _contained(result, ingress, builder.add_canary)
    _settle_aliases(result)
    for server in result.servers.values():
        _settle(server, result)
    _add_redirects(result)
    if result.default_backend is not None:
        for server in result.servers.values():
            _add_default(server, result, result.default_backend)
    return result


def _contained(result: Configuration, ingress: Object, add: Callable[[], None]) -> None:
    """What nobody here thought of in an Ingress takes no other down."""
    try:
        add()
    except Exception as error:
        log.exception("Ingress %s", meta.key(ingress))
        result.complain(meta.key(ingress), f"cannot be served: {error!r}")


def _default_certificate(world: World, result: Configuration) -> str:
    """Its file; empty where there is none that can be used, which the controller says."""
    namespace, _, name = world.default_certificate.partition("/")
    secret = world.secret(namespace, name) if name else None
    if secret is None:
        return ""
    try:
        content = bundle(data(secret, "tls.crt"), data(secret, "tls.key"))
    except BadCertificate:
        return ""
    return result.keep(content, "pem")


def _default_backend(world: World) -> Upstream | None:
    """Its endpoints; None where there is no such Service, which the controller says."""
    namespace, _, name = world.default_backend.partition("/")
    if not name:
        return None
    try:
        found = backends.find(world, namespace, name, {})
    except NoBackend:
        return None
    return replace(found, name="upstream-default-backend")


def _add_default(server: Server, result: Configuration, backend: Upstream) -> None:
    """What no rule of a host has goes to the default backend; as a rule nobody wants to know."""
    if not server.redirect and not any(map(_is_everything, server.locations.values())):
        options = replace(result.common.options, access_log=bool(server.host), custom_errors=())
        server.locations["/", Match.ELEMENTS] = Location(
            "/", Match.ELEMENTS, "", "", backend, options
        )


def _is_everything(location: Location) -> bool:
    return location.path == "/" and location.match is Match.ELEMENTS


def _settle_aliases(result: Configuration) -> None:
    """A host has a name before who wants it as another name, and of those the older."""
    taken = set(result.servers)
    for server in result.servers.values():
        for alias, ingress in list(server.aliases.items()):
            if alias in taken:
                del server.aliases[alias]
                result.complain(ingress, f'alias "{alias}" is the name of another host')
            taken.add(alias)


def _settle(server: Server, result: Configuration) -> None:
    """What depends on all that a host has."""
    root = server.locations.get(("/", Match.ELEMENTS))
    if server.app_root and root is not None and root.ingress != server.app_root_of:
        result.complain(server.app_root_of, f'app-root: "/" is that of ingress {root.ingress}')
        server.app_root = ""
    if server.has_expressions:
        for location in server.locations.values():
            if location.match is Match.TEXT or (
                location.expression and location.match is Match.ELEMENTS
            ):
                location.match = Match.REGEX


def _add_redirects(result: Configuration) -> None:
    """Hosts with and without ``www.`` that lead to the other one, where nobody else has them."""
    taken = {name for server in result.servers.values() for name in (server.host, *server.aliases)}
    for server in [s for s in result.servers.values() if s.www_redirect_of]:
        bare = server.host.removeprefix(_WWW)
        other = bare if bare != server.host else _WWW + server.host
        if other in taken or server.host.startswith("*"):
            result.complain(
                server.www_redirect_of, f'from-to-www-redirect: "{other}" is another host'
            )
        else:
            certificate = server.certificate
            result.servers[other] = Server(other, certificate=certificate, redirect=server.host)


class _Builder:
    """Adds one Ingress to a configuration."""

    def __init__(
        self, world: World, result: Configuration, ingress: Object, options: Options, denied: bool
    ) -> None:
        self._world = world
        self._result = result
        self._key = meta.key(ingress)
        self._namespace = meta.namespace(ingress)
        self._spec: Object = ingress.get("spec") or {}
        self._options = options
        self._denied = denied
        self._secrets = Secrets(world, result, self._namespace, self._complain)
        self._auth_file = ""
        self._backend_files = "", ""
        self._clients: ClientCertificates | None = None
        self._fallback: Upstream | None = None

    def _complain(self, problem: str) -> None:
        self._result.complain(self._key, problem)

    def add(self) -> None:
        """Its rules, default backend and certificates."""
        self._clients = self._find_clients()
        if not self._denied:
            self._fence()
            self._fallback = self._find_fallback()
        for rule in self._spec.get("rules") or ():
            server = self._server(rule.get("host") or "")
            for path in (rule.get("http") or {}).get("paths") or ():
                match = _MATCHES.get(path.get("pathType") or "", Match.TEXT)
                self._put(server, path.get("path") or "/", match, path.get("backend") or {})
        backend = self._spec.get("defaultBackend")
        if backend:
            hosts = {rule.get("host") or "" for rule in self._spec.get("rules") or ()} or {""}
            for host in hosts:
                server = self._server(host)
                if ("/", Match.ELEMENTS) not in server.locations:
                    self._put(server, "/", Match.ELEMENTS, backend)
        self._secure()

    def add_canary(self) -> None:
        """The second upstream of paths that another Ingress has."""
        for rule in self._spec.get("rules") or ():
            server = self._result.servers.get(rule.get("host") or "")
            for path in (rule.get("http") or {}).get("paths") or ():
                match = _MATCHES.get(path.get("pathType") or "", Match.TEXT)
                location = _found(server, path.get("path") or "/", match) if server else None
                _, _, upstream = self._upstream(path.get("backend") or {})
                if location is None:
                    self._complain("a canary needs another Ingress for the same host and path")
                elif location.canary is not None:
                    self._complain(f"{location.ingress} has a canary for {location.path} already")
                elif upstream is not None:
                    location.canary = Canary(upstream, self._options)

    def _fence(self) -> None:
        """What it takes from Secrets to let people in, and to trust endpoints; else nobody is."""
        options = self._options
        if options.auth_type:
            self._auth_file = self._secrets.passwords(options)
            self._denied = not self._auth_file
        if self._wants_certificates and self._clients is None:
            self._denied = True
        if options.backend_secret:
            files = self._secrets.backend(options)
            self._backend_files = files or ("", "")
            self._denied = self._denied or files is None

    @property
    def _wants_certificates(self) -> bool:
        return bool(self._options.client_secret) and self._options.client_verify != "off"

    def _find_clients(self) -> ClientCertificates | None:
        return self._secrets.clients(self._options) if self._wants_certificates else None

    def _find_fallback(self) -> Upstream | None:
        options = self._options
        result = self._result.default_backend if options.custom_errors else None
        if options.default_backend:
            try:
                result = backends.find(self._world, self._namespace, options.default_backend, {})
            except NoBackend as error:
                self._complain(f"default-backend: {error}")
        if options.custom_errors and result is None:
            self._complain("custom-http-errors: there is no default backend with their pages")
        return result

    def _server(self, host: str) -> Server:
        options = self._options
        server = self._result.servers.setdefault(host, Server(host))
        if host:
            for alias in options.server_alias:
                if alias != host:
                    server.aliases.setdefault(alias, self._key)
        if options.app_root and not server.app_root:
            server.app_root, server.app_root_of = options.app_root, self._key
        if options.www_redirect and host and not server.www_redirect_of:
            server.www_redirect_of = self._key
        server.ciphers = server.ciphers or options.ssl_ciphers
        if server.prefers_ciphers is None:
            server.prefers_ciphers = options.ssl_prefer_ciphers
        if self._wants_certificates:
            self._ask_for_certificates(server)
        return server

    def _ask_for_certificates(self, server: Server) -> None:
        """They are asked for by a host, not by a path: other Ingresses of it rely on that, too."""
        if self._clients is None:
            server.closed = True
        elif server.clients is None:
            server.clients = self._clients
        elif server.clients != self._clients:
            self._complain(f'auth-tls: host "{server.host}" asks for other certificates already')
            self._denied = True

    def _put(self, server: Server, path: str, match: Match, backend: Object) -> None:
        expression = bool(self._options.use_regex or self._options.rewrite_target)
        path, match = _normal(path, match, expression=expression)
        taken = server.locations.get((path, match))
        if taken is not None:
            if taken.ingress != self._key:
                self._complain(
                    f'host "{server.host}" and path "{path}" is already defined in ingress '
                    f"{taken.ingress}"
                )
            return
        service, port, upstream = self._upstream(backend)
        certificate, authorities = self._backend_files
        server.locations[path, match] = Location(
            path,
            match,
            self._key,
            service,
            upstream,
            self._options if not self._denied else DEFAULTS,
            expression=expression,
            denied=self._denied,
            port=port,
            fallback=self._fallback,
            auth_file=self._auth_file,
            backend_certificate=certificate,
            backend_authorities=authorities,
        )

    def _upstream(self, backend: Object) -> tuple[str, str, Upstream | None]:
        """The Service's name, its port's, and its endpoints where it has such a port."""
        wanted = backend.get("service")
        if not wanted:
            self._complain("only Services can be backends")
            return "", "", None
        name, port = wanted.get("name") or "", wanted.get("port") or {}
        whole = self._options.service_upstream
        try:
            found = backends.find(self._world, self._namespace, name, port, whole=whole)
        except NoBackend as error:
            self._complain(str(error))
            found = None
        return name, str(port.get("name") or port.get("number") or ""), found

    def _secure(self) -> None:
        """Give the hosts of the rules their certificates; those of others have their owners."""
        own = {rule["host"]: "" for rule in self._spec.get("rules") or () if rule.get("host")}
        wanted = [(tls.get("hosts") or list(own), tls) for tls in self._spec.get("tls") or ()]
        files = [self._secrets.certificate(tls.get("secretName") or "") for _, tls in wanted]
        for host in own:
            server = self._result.servers[host]
            at = next((n for n, (hosts, _) in enumerate(wanted) if host in hosts), None)
            if at is None:
                at = next((n for n, (hosts, _) in enumerate(wanted) if _any(hosts, host)), None)
            if at is None:
                continue
            server.ssl = True
            file, known = files[at]
            server.certificate = server.certificate or file
            if file and not _any(known, host):
                where = f"{self._namespace}/{wanted[at][1]['secretName']}"
                self._complain(f'secret "{where}" has a certificate that is not for {host}')


def _any(patterns: Iterable[str], host: str) -> bool:
    return any(covers(pattern, host) for pattern in patterns)


def _normal(path: str, match: Match, *, expression: bool) -> tuple[str, Match]:
    """A prefix by elements is the same with and without its last slash; ``/`` is all there is."""
    if path == "/" and match is Match.TEXT:
        return path, Match.ELEMENTS
    whole = expression or match is not Match.ELEMENTS
    return (path if whole else path.rstrip("/") or "/"), match


def _found(server: Server, path: str, match: Match) -> Location | None:
    """The location that another Ingress made of the same path."""
    for expression in (False, True):
        location = server.locations.get(_normal(path, match, expression=expression))
        if location is not None:
            return location
    return None
