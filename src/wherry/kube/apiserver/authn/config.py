"""What a server is told of authentication: kube-apiserver's options, by their names."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from wherry.kube.apiserver.authn.front_proxy import RequestHeader

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class OIDC:
    """One issuer of users' tokens, see kube-apiserver's ``--oidc-*``."""

    issuer_url: str
    client_id: str
    username_claim: str = "sub"
    username_prefix: str | None = None
    groups_claim: str = ""
    groups_prefix: str = ""
    required_claims: tuple[tuple[str, str], ...] = ()
    ca_file: Path | None = None
    signing_algs: tuple[str, ...] = ("RS256",)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where tokens nobody else knows are asked about; times in seconds."""

    config_file: Path
    version: str = "v1beta1"
    cache_ttl: float = 120.0


@dataclass(frozen=True, slots=True)
class Authentication:
    """All ways to be somebody. Times are in seconds; no signing key means one made anew at each
    start."""

    signing_key: Path | None = None
    believed_keys: tuple[Path, ...] = ()
    issuers: tuple[str, ...] = (DEFAULT_ISSUER,)
    audiences: tuple[str, ...] = ()
    jwks_uri: str = ""
    longest_token: int = 0
    extend_tokens: bool = True
    token_file: Path | None = None
    bootstrap_tokens: bool = True
    request_header: RequestHeader | None = None
    oidc: OIDC | None = None
    webhook: Webhook | None = None
    file: Path | None = None

    @property
    def own_audiences(self) -> tuple[str, ...]:
        """Who this server is to a token."""
        return self.audiences or self.issuers


def add_flags(parser: argparse.ArgumentParser) -> None:
    """kube-apiserver's options of authentication."""
    group = parser.add_argument_group("authentication")
    add = group.add_argument
    many = {"action": "append", "default": []}
    add("--anonymous-auth", type=boolean, default=True)
    add("--token-auth-file", type=Path, help="CSV: token,user,uid,groups")
    add("--enable-bootstrap-token-auth", type=boolean, default=True, nargs="?", const=True)
    add("--service-account-signing-key-file", type=Path)
    add("--service-account-key-file", type=Path, **many)  # type: ignore[arg-type]
    add("--service-account-issuer", **many)  # type: ignore[arg-type]
    add("--service-account-jwks-uri", default="")
    add("--service-account-max-token-expiration", type=duration, default=0)
    add("--service-account-extend-token-expiration", type=boolean, default=True)
    add("--api-audiences", type=comma, default=())
    add("--requestheader-client-ca-file", type=Path)
    add("--requestheader-allowed-names", type=comma, default=())
    add("--requestheader-username-headers", type=comma, default=("X-Remote-User",))
    add("--requestheader-uid-headers", type=comma, default=())
    add("--requestheader-group-headers", type=comma, default=("X-Remote-Group",))
    add("--requestheader-extra-headers-prefix", type=comma, default=("X-Remote-Extra-",))
    add("--oidc-issuer-url", default="")
    add("--oidc-client-id", default="")
    add("--oidc-username-claim", default="sub")
    add("--oidc-username-prefix")
    add("--oidc-groups-claim", default="")
    add("--oidc-groups-prefix", default="")
    add("--oidc-required-claim", type=pair, **many)  # type: ignore[arg-type]
    add("--oidc-ca-file", type=Path)
    add("--oidc-signing-algs", type=comma, default=("RS256",))
    add("--authentication-config", type=Path)
    add("--authentication-token-webhook-config-file", type=Path)
    add("--authentication-token-webhook-version", default="v1beta1", choices=("v1", "v1beta1"))
    add("--authentication-token-webhook-cache-ttl", type=duration, default=120)


def from_flags(given: argparse.Namespace) -> Authentication:
    """Raises ValueError where options contradict each other."""
    proxy = None
    if given.requestheader_client_ca_file:
        proxy = RequestHeader(
            given.requestheader_client_ca_file,
            given.requestheader_allowed_names,
            given.requestheader_username_headers,
            given.requestheader_uid_headers,
            given.requestheader_group_headers,
            given.requestheader_extra_headers_prefix,
        )
    oidc = None
    if bool(given.oidc_issuer_url) != bool(given.oidc_client_id):
        raise ValueError("oidc-issuer-url and oidc-client-id must be specified together")
    if given.oidc_issuer_url:
        if given.authentication_config:
            raise ValueError("authentication-config file and oidc-* flags are mutually exclusive")
        oidc = OIDC(
            given.oidc_issuer_url,
            given.oidc_client_id,
            given.oidc_username_claim,
            given.oidc_username_prefix,
            given.oidc_groups_claim,
            given.oidc_groups_prefix,
            tuple(given.oidc_required_claim),
            given.oidc_ca_file,
            given.oidc_signing_algs,
        )
    webhook = None
    if given.authentication_token_webhook_config_file:
        webhook = Webhook(
            given.authentication_token_webhook_config_file,
            given.authentication_token_webhook_version,
            given.authentication_token_webhook_cache_ttl,
        )
    longest = given.service_account_max_token_expiration
    if longest and not 3600 <= longest <= 2**32:
        raise ValueError(
            "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds"
        )
    return Authentication(
        given.service_account_signing_key_file,
        tuple(given.service_account_key_file),
        tuple(given.service_account_issuer) or (DEFAULT_ISSUER,),
        given.api_audiences,
        given.service_account_jwks_uri,
        longest,
        given.service_account_extend_token_expiration,
        given.token_auth_file,
        given.enable_bootstrap_token_auth,
        proxy,
        oidc,
        webhook,
        given.authentication_config,
    )


def boolean(text: str) -> bool:
    """An option's boolean, as Go reads it."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise argparse.ArgumentTypeError(f'invalid argument "{text}": want true or false')


def comma(text: str) -> tuple[str, ...]:
    """Words between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def pair(text: str) -> tuple[str, str]:
    """``key=value``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}: want key=value")
    return key, value


def duration(text: str) -> int:
    """Seconds of ``1h30m``, ``90s``."""
    units = {"h": 3600, "m": 60, "s": 1}
    total, number = 0, ""
    for sign in text:
        if sign.isdigit():
            number += sign
        elif sign in units and number:
            total, number = total + int(number) * units[sign], ""
        else:
            raise argparse.ArgumentTypeError(f"{text}: want a duration such as 1h30m")
    if number and int(number):
        raise argparse.ArgumentTypeError(f"{text}: a duration needs a unit, such as 1h30m")
    return total
