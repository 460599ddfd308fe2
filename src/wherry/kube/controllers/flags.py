"""The options of controllers, by kube-controller-manager's names where it has them: for a process
of their own and for those of an instance (``wherry up --controller-arg``)."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from wherry.kube.client.standalone import seconds
from wherry.kube.controllers import Options, config_file, select
from wherry.kube.controllers.certificates.signing import Authority

# Option, type, the field of Options, what it is.
_PLAIN: tuple[tuple[str, Any, str, str], ...] = (
    ("cluster-cidr", str, "cluster_cidr", "where pods' addresses come from"),
    ("node-cidr-mask-size", int, "node_mask", "how large a node's part of it is"),
    ("cluster-dns", str, "cluster_dns", "the addresses of the cluster's name server"),
    ("node-monitor-grace-period", seconds, "node_grace", "a node silent for so long is unknown"),
    ("node-startup-grace-period", seconds, "node_start_grace", "the same for a new node"),
    ("terminated-pod-gc-threshold", int, "terminated_pods", "finished pods that are kept"),
    ("volumes-directory", str, "volumes", "where nodes keep volumes of the default class"),
)
_AUTOSCALER = "horizontal-pod-autoscaler-"
_AUTOSCALING: tuple[tuple[str, Any, str, str], ...] = (
    ("sync-period", seconds, "period", "how often autoscalers are looked at"),
    (
        "downscale-stabilization",
        seconds,
        "downscale_stabilization",
        "so long the highest recommendation holds",
    ),
    ("tolerance", float, "tolerance", "how far from its target a ratio changes nothing"),
    (
        "cpu-initialization-period",
        seconds,
        "cpu_initialization",
        "so long a pod's CPU may be that of its start",
    ),
    (
        "initial-readiness-delay",
        seconds,
        "initial_readiness",
        "what is unready so soon after its start has not been ready before",
    ),
)
"""Those of autoscalers, likewise; the field is one of AutoscalingOptions."""


class BadOptions(ValueError):
    """An option is unknown or its value is wrong; the text says which."""


def _comma(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _networks(text: str) -> tuple[str, ...]:
    for part in _comma(text):
        try:
            ipaddress.ip_network(part)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return _comma(text)


def add(parser: argparse.ArgumentParser) -> None:
    """All options that `options` understands."""
    parser.add_argument(
        "--controllers",
        type=_comma,
        metavar="NAME,…",
        help="which to run: '*' for all, NAME for one, -NAME for all but that one ('*')",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a ControllerConfiguration: which to run, and classes of one's own",
    )
    for option, type, _, what in _PLAIN:
        parser.add_argument(f"--{option}", type=type, help=what, metavar="VALUE")
    for option, type, _, what in _AUTOSCALING:
        parser.add_argument(f"--{_AUTOSCALER}{option}", type=type, help=what, metavar="VALUE")
    parser.add_argument(
        "--load-balancer-pool",
        type=_networks,
        metavar="CIDR,…",
        help="networks whose addresses Services of type LoadBalancer get (those of the nodes)",
    )
    parser.add_argument("--root-ca-file", type=Path, help="published to pods, for the API server")
    parser.add_argument("--cluster-signing-cert-file", type=Path, help="signs certificates")
    parser.add_argument("--cluster-signing-key-file", type=Path, help="its key")


def options(given: argparse.Namespace, base: Options | None = None) -> Options:
    """``base`` with what the options say.

    Raises:
        ValueError, OSError: an option or a file it names is wrong.
    """
    said: dict[str, Any] = {}
    base = base or Options()
    if given.config is not None:
        base = config_file.load(given.config, base)
    if given.controllers is not None:
        select(given.controllers, base.own)
        said["enabled"] = given.controllers
    for option, _, field, _ in _PLAIN:
        value = getattr(given, option.replace("-", "_"))
        if value is not None:
            said[field] = value
    if given.load_balancer_pool is not None:
        said["load_balancer_pool"] = given.load_balancer_pool
    if given.root_ca_file is not None:
        said["root_ca"] = given.root_ca_file.read_text()
    certificate, key = given.cluster_signing_cert_file, given.cluster_signing_key_file
    if (certificate is None) != (key is None):
        raise BadOptions(
            "--cluster-signing-cert-file and --cluster-signing-key-file go together: one is missing"
        )
    if certificate is not None:
        said["authority"] = Authority(certificate, key)
    scaling = {}
    for option, _, field, _ in _AUTOSCALING:
        value = getattr(given, f"{_AUTOSCALER}{option}".replace("-", "_"))
        if value is not None:
            scaling[field] = value
    return replace(base, autoscaling=replace(base.autoscaling, **scaling), **said)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise BadOptions(message)


def read(arguments: Iterable[str], base: Options | None = None) -> Options:
    """``base`` with options given as ``name=value``, with or without dashes before them.

    Raises:
        ValueError, OSError: an option or a file it names is wrong.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    add(parser)
    return options(parser.parse_args([f"--{argument.lstrip('-')}" for argument in arguments]), base)


def canonical(arguments: Iterable[str]) -> tuple[str, ...]:
    """The same options with absolute paths, as they are kept.

    Raises:
        ValueError, OSError: an option or a file it names is wrong.
    """
    given = tuple(arguments)
    read(given)
    kept = []
    for argument in given:
        name, equals, value = argument.partition("=")
        if name.lstrip("-") == "config" or name.endswith("-file"):
            value = str(Path(value).absolute())
        kept.append(f"{name}{equals}{value}")
    return tuple(kept)
