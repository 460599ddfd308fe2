"""The controller's options, by ingress-nginx's names: for a pod's process and for those of an
instance (``wherry up --ingress-arg``)."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from wherry.kube.client.standalone import boolean
from wherry.kube.ingress.manifests import NAME, NAMESPACE


class BadOptions(ValueError):
    """An option is unknown or its value is wrong; the text says which."""


@dataclass(frozen=True, slots=True)
class Options:
    """What they say; objects are ``namespace/name``, empty for none."""

    ingress_class: str = "nginx"
    """Of the IngressClass that is made, and of the old annotation."""
    default_ssl_certificate: str = ""
    default_backend_service: str = ""
    configmap: str = f"{NAMESPACE}/{NAME}"
    publish_status_address: str = ""
    """Where clients reach us, with commas; empty: that is found out."""
    update_status: bool = True
    update_status_on_shutdown: bool = True


def addresses(options: Options) -> list[str]:
    """Those that clients are told to come to; empty where nobody said."""
    named = (address.strip() for address in options.publish_status_address.split(","))
    return [address for address in named if address]


def _reference(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if text and not (namespace and slash and name and "/" not in name):
        raise argparse.ArgumentTypeError(f"{text}: want NAMESPACE/NAME")
    return text


# Type, what it is called in help, what it is.
_ALL: Final[dict[str, tuple[Any, str, str]]] = {
    "ingress-class": (str, "NAME", "of old annotations"),
    "default-ssl-certificate": (_reference, "NAMESPACE/NAME", "for hosts without one"),
    "default-backend-service": (_reference, "NAMESPACE/NAME", "answers what no rule has"),
    "configmap": (_reference, "NAMESPACE/NAME", "has settings for all Ingresses"),
    "publish-status-address": (str, "ADDRESS,…", "what Ingresses' statuses say"),
    "update-status": (boolean, "true|false", "write addresses into Ingresses' statuses"),
    "update-status-on-shutdown": (
        boolean,
        "true|false",
        "take addresses back when nobody serves any longer",
    ),
}


def add(parser: argparse.ArgumentParser) -> None:
    """All options that `options` understands."""
    for name, (type, metavar, what) in _ALL.items():
        default = getattr(Options(), name.replace("-", "_"))
        parser.add_argument(
            f"--{name}",
            type=type,
            metavar=metavar,
            default=default,
            help=what + (f" ({default})" if default else ""),
        )


def options(given: argparse.Namespace) -> Options:
    """What was given."""
    names = [name.replace("-", "_") for name in _ALL]
    return Options(**{name: getattr(given, name) for name in names})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise BadOptions(message)


def read(arguments: Iterable[str]) -> Options:
    """Options given as ``name=value``, with or without dashes before them.

    Raises:
        BadOptions: one is wrong.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    add(parser)
    return options(parser.parse_args([f"--{argument.lstrip('-')}" for argument in arguments]))
