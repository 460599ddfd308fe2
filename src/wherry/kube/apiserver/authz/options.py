"""Which authorizers a server has, in which order: kube-apiserver's ``--authorization-*``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wherry.kube.apiserver.authn.config import comma, duration
from wherry.kube.apiserver.authz.authorizer import Authorizer, Source
from wherry.kube.apiserver.authz.defaults import node_rules
from wherry.kube.apiserver.authz.modes import AlwaysAllow, AlwaysDeny
from wherry.kube.apiserver.authz.node import NodeAuthorizer
from wherry.kube.apiserver.authz.rbac import RBAC
from wherry.kube.apiserver.cache import Cache

DEFAULT_MODES = ("Node", "RBAC")


@dataclass(frozen=True, slots=True)
class AuthorizationOptions:
    """``modes`` in the order they are asked. ``webhook_config`` is a kubeconfig (mode Webhook),
    ``policy`` a file of policies (mode ABAC); answers of the webhook are kept for so many seconds.
    """

    modes: tuple[str, ...] = DEFAULT_MODES
    webhook_config: Path | None = None
    webhook_version: str = "v1beta1"
    authorized_ttl: float = 300.0
    unauthorized_ttl: float = 30.0
    policy: Path | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The options, by kube-apiserver's names."""
    add = parser.add_argument_group("authorization").add_argument
    add("--authorization-mode", type=comma, default=DEFAULT_MODES, help="asked in this order")
    add("--authorization-policy-file", type=Path)
    add("--authorization-webhook-config-file", type=Path)
    add("--authorization-webhook-version", default="v1beta1", choices=("v1", "v1beta1"))
    add("--authorization-webhook-cache-authorized-ttl", type=duration, default=300)
    add("--authorization-webhook-cache-unauthorized-ttl", type=duration, default=30)


def from_flags(given: argparse.Namespace) -> AuthorizationOptions:
    """What the options say."""
    return AuthorizationOptions(
        given.authorization_mode,
        given.authorization_webhook_config_file,
        given.authorization_webhook_version,
        given.authorization_webhook_cache_authorized_ttl,
        given.authorization_webhook_cache_unauthorized_ttl,
        given.authorization_policy_file,
    )


def build(options: AuthorizationOptions, cache: Cache) -> tuple[Authorizer, Callable[[], None]]:
    """The authorizer of a server, and what makes it keep to the cache once that is open.

    Raises:
        ValueError: the options make no sense; OSError: a file cannot be read.
    """
    rbac = RBAC(cache)
    followed: list[Callable[[], None]] = [rbac.follow]
    sources: list[Source] = []
    if len(set(options.modes)) != len(options.modes):
        raise ValueError(f'authorization-mode "{",".join(options.modes)}" has mode specified twice')
    for mode in options.modes:
        match mode:
            case "Node":
                node = NodeAuthorizer(cache, node_rules())
                followed.append(node.follow)
                sources.append(node)
            case "RBAC":
                sources.append(rbac)
            case "AlwaysAllow":
                sources.append(AlwaysAllow())
            case "AlwaysDeny":
                sources.append(AlwaysDeny())
            case "Webhook":
                sources.append(_webhook(options))
            case "ABAC":
                sources.append(_policies(options))
            case _:
                raise ValueError(f'authorization-mode "{mode}" is not a valid mode')
    if not sources:
        raise ValueError("at least one authorization-mode must be passed")

    def follow() -> None:
        for each in followed:
            each()

    return Authorizer(sources, rbac), follow


def _webhook(options: AuthorizationOptions) -> Source:
    from wherry.kube.apiserver.authz.webhook import Webhook

    if options.webhook_config is None:
        raise ValueError("authorization-mode Webhook's authorization config file not passed")
    return Webhook(
        options.webhook_config,
        options.webhook_version,
        authorized_ttl=options.authorized_ttl,
        unauthorized_ttl=options.unauthorized_ttl,
    )


def _policies(options: AuthorizationOptions) -> Source:
    from wherry.kube.apiserver.authz.abac import load

    if options.policy is None:
        raise ValueError("authorization-mode ABAC's authorization policy file not passed")
    return load(options.policy)
