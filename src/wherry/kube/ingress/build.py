"""From the cluster's objects to the model. Pure but for the check of certificates."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from wherry.kube.api import meta
from wherry.kube.ingress.annotations import DEFAULTS, Options, read
from wherry.kube.ingress.certificates import BadCertificate, bundle
from wherry.kube.ingress.model import (
    Canary,
    Configuration,
    Location,
    Match,
    Server,
    Upstream,
)

Object = dict[str, Any]

CONTROLLER: Final = "k8s.io/ingress-nginx"
"""Of IngressClasses that are ours: manifests of many tutorials name it."""
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
_DEFAULT_CLASS: Final = "ingressclass.kubernetes.io/is-default-class"

_MATCHES: Final = {
    "Exact": Match.EXACT,
    "Prefix": Match.ELEMENTS,
    "ImplementationSpecific": Match.TEXT,
}
_PASSWORD_LINE = re.compile(rb"[^:\s]+:[^\s]+")


@dataclass(frozen=True, slots=True)
class World:
    """What there is; each function takes a namespace and a name."""

    ingresses: Sequence[Object]
    service: Callable[[str, str], Object | None]
    slices: Callable[[str, str], Iterable[Object]]
    secret: Callable[[str, str], Object | None]
    default_certificate: str = ""
    """``namespace/name`` of the Secret for hosts that have none."""


def is_ours(ingress: Object, classes: Iterable[Object], annotation: str = "nginx") -> bool:
    """Whether the Ingress is for us: by its class, by the old annotation, or as the default."""
    named = (ingress.get("spec") or {}).get("ingressClassName")
    ours = {c["metadata"]["name"]: c for c in classes if _controller(c) == CONTROLLER}
    if named is not None:
        return named in ours
    old = meta.annotations(ingress).get(CLASS_ANNOTATION)
    if old is not None:
        return old == annotation or old in ours
    return any(meta.annotations(c).get(_DEFAULT_CLASS) == "true" for c in ours.values())


def _controller(ingress_class: Object) -> str:
    return (ingress_class.get("spec") or {}).get("controller") or ""


def build(world: World) -> Configuration:
    """The configuration that serves all Ingresses; of two that want one path the older has it."""
    result = Configuration()
    result.servers[""] = Server("")
    result.certificate = _default_certificate(world, result)
    ordered = by_age(world.ingresses)
    wishes: dict[str, tuple[Options, bool]] = {}
    for ingress in ordered:
        options, wrong, unknown = read(meta.annotations(ingress))
        for problem in (*wrong, *unknown):
            result.complain(meta.key(ingress), problem)
        wishes[meta.key(ingress)] = options, bool(wrong)
    for ingress in ordered:
        options, denied = wishes[meta.key(ingress)]
        if not options.canary:
            _Builder(world, result, ingress, options, denied).add()
    for ingress in ordered:
        options, denied = wishes[meta.key(ingress)]
        if options.canary and not denied:
            _Builder(world, result, ingress, options, denied).add_canary()
    for server in result.servers.values():
        _use_regexes(server)
    return result


def _default_certificate(world: World, result: Configuration) -> str:
    """Its file; empty, and said to the log by who asked for it, where there is none."""
    namespace, _, name = world.default_certificate.partition("/")
    secret = world.secret(namespace, name) if name else None
    if secret is None:
        return ""
    try:
        content = bundle(_data(secret, "tls.crt"), _data(secret, "tls.key"))
    except BadCertificate:
        return ""
    return result.keep(content, "pem")


def by_age(ingresses: Iterable[Object]) -> list[Object]:
    """The oldest first: what is later must bear what is there."""
    return sorted(ingresses, key=_age)


def _age(ingress: Object) -> tuple[str, str]:
    return ingress["metadata"].get("creationTimestamp") or "", meta.key(ingress)


def _use_regexes(server: Server) -> None:
    """Where one location of a host is a regular expression, all are: nginx could not order them."""
    locations = list(server.locations.values())
    if not any(
        location.options.use_regex or location.options.rewrite_target for location in locations
    ):
        return
    for location in locations:
        location.match = Match.REGEX if location.match is not Match.EXACT else Match.EXACT


class _Builder:
    """Adds one Ingress to a configuration."""

    def __init__(
        self, world: World, result: Configuration, ingress: Object, options: Options, denied: bool
    ) -> None:
        self._world = world
        self._result = result
        self._ingress = ingress
        self._key = meta.key(ingress)
        self._namespace = meta.namespace(ingress)
        self._spec: Object = ingress.get("spec") or {}
        self._options = options
        self._denied = denied
        self._auth_file = "" if denied else self._passwords()

    def _complain(self, problem: str) -> None:
        self._result.complain(self._key, problem)

    def add(self) -> None:
        """Its rules, default backend and certificates."""
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
        for tls in self._spec.get("tls") or ():
            self._secure(tls)

    def add_canary(self) -> None:
        """The second upstream of paths that another Ingress has."""
        for rule in self._spec.get("rules") or ():
            server = self._result.servers.get(rule.get("host") or "")
            for path in (rule.get("http") or {}).get("paths") or ():
                match = _MATCHES.get(path.get("pathType") or "", Match.TEXT)
                wanted = _normal(path.get("path") or "/", match)
                location = server.locations.get(wanted) if server else None
                _, upstream = self._upstream(path.get("backend") or {})
                if location is None:
                    self._complain("a canary needs another Ingress for the same host and path")
                elif location.canary is not None:
                    self._complain(f"{location.ingress} has a canary for {wanted[0]} already")
                elif upstream is not None:
                    location.canary = Canary(upstream, self._options)

    def _server(self, host: str) -> Server:
        server = self._result.servers.setdefault(host, Server(host))
        if host:
            server.aliases |= set(self._options.server_alias) - {host}
        if self._options.app_root and not server.app_root:
            server.app_root = self._options.app_root
        return server

    def _put(self, server: Server, path: str, match: Match, backend: Object) -> None:
        path, match = _normal(path, match)
        taken = server.locations.get((path, match))
        if taken is not None:
            if taken.ingress != self._key:
                self._complain(
                    f'host "{server.host}" and path "{path}" is already defined in ingress '
                    f"{taken.ingress}"
                )
            return
        service, upstream = self._upstream(backend)
        wants_login = bool(self._options.auth_type)
        server.locations[path, match] = Location(
            path,
            match,
            self._key,
            service,
            upstream,
            self._options if not self._denied else DEFAULTS,
            denied=self._denied or (wants_login and not self._auth_file),
            auth_file=self._auth_file,
        )

    # -- backends

    def _upstream(self, backend: Object) -> tuple[str, Upstream | None]:
        """The Service's name, and its endpoints where it has such a port."""
        wanted = backend.get("service")
        if not wanted:
            self._complain("only Services can be backends")
            return "", None
        name, port = wanted.get("name") or "", wanted.get("port") or {}
        service = self._world.service(self._namespace, name)
        if service is None:
            self._complain(f'service "{self._namespace}/{name}" not found')
            return name, None
        spec = service.get("spec") or {}
        named = f"{self._namespace}-{name}-{port.get('name') or port.get('number')}"
        if spec.get("type") == "ExternalName":
            return name, self._external(named, spec, port)
        found = _service_port(spec, port)
        if found is None:
            asked = port.get("name") or port.get("number")
            self._complain(f'service "{self._namespace}/{name}" has no port {asked}')
            return name, None
        slices = self._world.slices(self._namespace, name)
        return name, Upstream(named, tuple(sorted(_endpoints(slices, found.get("name") or ""))))

    def _external(self, named: str, spec: Object, port: Object) -> Upstream | None:
        number = port.get("number")
        if number is None:
            found = _service_port(spec, port)
            number = found.get("port") if found else None
        host = (spec.get("externalName") or "").rstrip(".")
        if not number or not re.fullmatch(r"[A-Za-z0-9.-]+", host):
            self._complain(
                f"external name {host!r} cannot be reached: no such port or no host name"
            )
            return None
        return Upstream(named, external=host, port=int(number))

    # -- secrets

    def _secret(self, reference: str) -> Object | None:
        namespace, _, name = reference.rpartition("/")
        if namespace and namespace != self._namespace:
            self._complain(f"secret {reference} is in another namespace, which is not allowed")
            return None
        secret = self._world.secret(self._namespace, name)
        if secret is None:
            self._complain(f'secret "{self._namespace}/{name}" not found')
        return secret

    def _secure(self, tls: Object) -> None:
        """Give hosts their certificate."""
        hosts = tls.get("hosts") or [
            rule["host"] for rule in self._spec.get("rules") or () if rule.get("host")
        ]
        file = ""
        if tls.get("secretName") and (secret := self._secret(tls["secretName"])) is not None:
            try:
                content = bundle(_data(secret, "tls.crt"), _data(secret, "tls.key"))
            except BadCertificate as error:
                where = f"{self._namespace}/{tls['secretName']}"
                self._complain(f'secret "{where}" has no usable certificate: {error}')
            else:
                file = self._result.keep(content, "pem")
        for host in hosts:
            server = self._result.servers.get(host)
            if server is None:
                continue
            server.ssl = True
            server.certificate = server.certificate or file

    def _passwords(self) -> str:
        """The file with the passwords of basic authentication; empty where there is none."""
        if not self._options.auth_type or not self._options.auth_secret:
            return ""
        secret = self._secret(self._options.auth_secret)
        if secret is None:
            return ""
        if self._options.auth_secret_type == "auth-map":  # noqa: S105 - a form, no secret
            users = secret.get("data") or {}
            lines = [f"{user}:".encode() + _data(secret, user) for user in users]
        else:
            lines = _data(secret, "auth").split(b"\n")
        lines = [line.strip() for line in lines if line.strip()]
        if not lines or not all(map(_PASSWORD_LINE.fullmatch, lines)):
            self._complain(f"secret {self._options.auth_secret} has no usable passwords")
            return ""
        return self._result.keep(b"\n".join(lines) + b"\n", "passwords")


def _normal(path: str, match: Match) -> tuple[str, Match]:
    """A prefix by elements is the same with and without its last slash; ``/`` is all there is."""
    if path == "/" and match is Match.TEXT:
        return path, Match.ELEMENTS
    return (path.rstrip("/") or "/" if match is Match.ELEMENTS else path), match


def _service_port(spec: Object, wanted: Object) -> Object | None:
    for port in spec.get("ports") or ():
        same = port.get("name") == wanted["name"] if wanted.get("name") else None
        if same or (same is None and port.get("port") == wanted.get("number")):
            found: Object = port
            return found
    return None


def _endpoints(slices: Iterable[Object], port_name: str) -> set[tuple[str, int]]:
    """Ready endpoints; where there are none, those that end but still serve."""
    ready: set[tuple[str, int]] = set()
    last: set[tuple[str, int]] = set()
    for slice_ in slices:
        if slice_.get("addressType") == "FQDN":
            continue
        numbers = [
            port["port"]
            for port in slice_.get("ports") or ()
            if (port.get("name") or "") == port_name and port.get("port")
        ]
        for endpoint in slice_.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            into = ready if conditions.get("ready") is not False else last
            if into is last and not conditions.get("serving"):
                continue
            for address in (endpoint.get("addresses") or ())[:1]:
                into.update((address, number) for number in numbers)
    return ready or last


def _data(secret: Object, key: str) -> bytes:
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "", validate=True)
    except (binascii.Error, ValueError):
        return b""


def without(world: World, refused: Iterable[str]) -> World:
    """The world without some Ingresses."""
    left = set(refused)
    return replace(world, ingresses=[i for i in world.ingresses if meta.key(i) not in left])
