"""From what a server is told to the ways it knows its users by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wherry.kube.apiserver.authn import static
from wherry.kube.apiserver.authn.authenticator import Authenticator, authorities
from wherry.kube.apiserver.authn.bootstrap_tokens import BootstrapTokens
from wherry.kube.apiserver.authn.config import Authentication
from wherry.kube.apiserver.authn.keys import Keys
from wherry.kube.apiserver.authn.service_accounts import ServiceAccountTokens
from wherry.kube.apiserver.authn.ways import Audiences, TokenWay
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.request import User


@dataclass(frozen=True, slots=True)
class Identities:
    """Who knows users, who makes tokens for ServiceAccounts, and what was told of both."""

    authenticator: Authenticator
    service_accounts: ServiceAccountTokens
    config: Authentication

    async def close(self) -> None:
        """Let go of what asks others."""
        await self.authenticator.close()


def assemble(
    config: Authentication,
    cache: Cache,
    *,
    tokens: Mapping[str, User],
    anonymous: bool,
    client_ca: Path | None,
) -> Identities:
    """The ways that ``config`` turns on; ``tokens`` are static ones besides those of its file.

    Raises:
        OSError, ValueError: a file cannot be read, or is not what it should be.
    """
    keys = Keys(config.signing_key, config.believed_keys)
    keys.check()
    audiences = config.own_audiences
    accounts = ServiceAccountTokens(keys, config.issuers, audiences, cache)
    ways: list[TokenWay] = [accounts]
    if config.bootstrap_tokens:
        ways.append(BootstrapTokens(cache, audiences))
    ways += _issuers(config, audiences)
    if config.webhook is not None:
        from wherry.kube.apiserver.authn.webhook import WebhookTokens

        ways.append(WebhookTokens(config.webhook, audiences))
    held = {**tokens, **(static.read(config.token_file) if config.token_file else {})}
    proxy = config.request_header
    authenticator = Authenticator(
        held,
        ways,
        audiences=audiences,
        anonymous=anonymous,
        request_header=proxy,
        client_ca=authorities(client_ca.read_bytes()) if proxy and client_ca else (),
    )
    return Identities(authenticator, accounts, config)


def _issuers(config: Authentication, audiences: Audiences) -> list[TokenWay]:
    """The ways of the issuers that are configured, whose code few servers need."""
    if config.oidc is None and config.file is None:
        return []
    from wherry.kube.apiserver.authn import configuration
    from wherry.kube.apiserver.authn.oidc import OIDCTokens

    issuers = [configuration.of_options(config.oidc)] if config.oidc else []
    issuers += configuration.read(config.file) if config.file else []
    for issuer in issuers:
        if issuer.url in config.issuers:
            raise ValueError(f"the issuer {issuer.url} is the one of ServiceAccounts' tokens")
    return [OIDCTokens(issuer, audiences) for issuer in issuers]
