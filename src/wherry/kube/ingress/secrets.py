"""What an Ingress takes from Secrets, as files for nginx: each is checked before nginx sees it."""

from __future__ import annotations

import re
from collections.abc import Callable

from wherry.kube.ingress.certificates import BadCertificate, authorities, bundle, names, revoked
from wherry.kube.ingress.model import ClientCertificates, Configuration
from wherry.kube.ingress.options import Options
from wherry.kube.ingress.world import Object, World, data

_PASSWORD_LINE = re.compile(rb"[^:]+:\S.*")


class Secrets:
    """Those of one namespace; what is wrong is said by ``complain``."""

    def __init__(
        self, world: World, result: Configuration, namespace: str, complain: Callable[[str], None]
    ) -> None:
        self._world = world
        self._result = result
        self._namespace = namespace
        self._complain = complain

    def _find(self, reference: str) -> Object | None:
        namespace, _, name = reference.rpartition("/")
        if namespace and namespace != self._namespace:
            self._complain(f"secret {reference} is in another namespace, which is not allowed")
            return None
        secret = self._world.secret(self._namespace, name)
        if secret is None:
            self._complain(f'secret "{self._namespace}/{name}" not found')
        return secret

    def _unusable(self, reference: str, what: str, error: BadCertificate) -> None:
        name = reference.rpartition("/")[2]
        self._complain(f'secret "{self._namespace}/{name}" has no usable {what}: {error}')

    def certificate(self, reference: str) -> tuple[str, frozenset[str]]:
        """Of a host, and the names in it; empty where there is none that can be used."""
        secret = self._find(reference) if reference else None
        if secret is None:
            return "", frozenset()
        certificate = data(secret, "tls.crt")
        try:
            content = bundle(certificate, data(secret, "tls.key"))
        except BadCertificate as error:
            self._unusable(reference, "certificate", error)
            return "", frozenset()
        return self._result.keep(content, "pem"), names(certificate)

    def passwords(self, options: Options) -> str:
        """Of basic authentication; empty where there are none."""
        if not options.auth_type or not options.auth_secret:
            return ""
        secret = self._find(options.auth_secret)
        if secret is None:
            return ""
        if options.auth_secret_type == "auth-map":  # noqa: S105 - a form, no secret
            users = secret.get("data") or {}
            lines = [f"{user}:".encode() + data(secret, user) for user in users]
        else:
            lines = data(secret, "auth").split(b"\n")
        lines = [line.strip() for line in lines]
        lines = [line for line in lines if line and not line.startswith(b"#")]
        if not lines or not all(map(_PASSWORD_LINE.fullmatch, lines)):
            self._complain(f"secret {options.auth_secret} has no usable passwords")
            return ""
        return self._result.keep(b"\n".join(lines) + b"\n", "passwords")

    def clients(self, options: Options) -> ClientCertificates | None:
        """What clients must show; None where nobody can tell."""
        secret = self._find(options.client_secret)
        if secret is None:
            return None
        try:
            trusted = self._result.keep(authorities(data(secret, "ca.crt")), "pem")
            listed = data(secret, "ca.crl")
            lost = self._result.keep(revoked(listed), "pem") if listed else ""
        except BadCertificate as error:
            self._unusable(options.client_secret, "authorities", error)
            return None
        return ClientCertificates(
            trusted,
            lost,
            options.client_verify,
            options.client_depth,
            options.client_error_page,
            options.client_passed_on,
            options.client_name,
        )

    def backend(self, options: Options) -> tuple[str, str] | None:
        """What we show to endpoints, and what we trust of theirs; None where it is not there."""
        secret = self._find(options.backend_secret)
        if secret is None:
            return None
        certificate, key, trusted = (data(secret, n) for n in ("tls.crt", "tls.key", "ca.crt"))
        try:
            shown = self._result.keep(bundle(certificate, key), "pem") if certificate else ""
            known = self._result.keep(authorities(trusted), "pem") if trusted else ""
        except BadCertificate as error:
            self._unusable(options.backend_secret, "certificates", error)
            return None
        if options.backend_verified and not known:
            self._complain(f"secret {options.backend_secret} has no ca.crt to verify by")
            return None
        return shown, known
