"""kube-apiserver's own options, by their names: for the server alone on a command line, and for
the server of an instance (``wherry up --apiserver-arg``)."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wherry.kube.apiserver.admission import AdmissionOptions
from wherry.kube.apiserver.admission.configuration import read_configuration
from wherry.kube.apiserver.audit import config as audit
from wherry.kube.apiserver.authn import config as authentication
from wherry.kube.apiserver.authz import options as authorization


def add(parser: argparse.ArgumentParser) -> None:
    """All options that `settings` understands."""
    admission = parser.add_argument_group("admission")
    comma = authentication.comma
    admission.add_argument("--enable-admission-plugins", type=comma, default=(), metavar="NAME,…")
    admission.add_argument("--disable-admission-plugins", type=comma, default=(), metavar="NAME,…")
    admission.add_argument("--admission-control-config-file", type=Path)
    authentication.add_flags(parser)
    authorization.add_flags(parser)
    audit.add_flags(parser)
    parser.add_argument(
        "--encryption-provider-config", type=Path, help="an EncryptionConfiguration"
    )


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """What the options say, as arguments of APIServerConfig.

    Raises:
        ValueError, OSError: an option or a file it names is wrong.
    """
    file = given.admission_control_config_file
    return {
        "admission": AdmissionOptions(
            given.enable_admission_plugins,
            given.disable_admission_plugins,
            read_configuration(file) if file else {},
        ),
        "authentication": authentication.from_flags(given),
        "authorization": authorization.from_flags(given),
        "anonymous": given.anonymous_auth,
        "audit": audit.from_flags(given),
        "encryption": given.encryption_provider_config,
    }


class BadOptions(ValueError):
    """An option is unknown or its value is wrong; the text says which."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise BadOptions(message)


def canonical(arguments: Iterable[str]) -> tuple[str, ...]:
    """The same options with absolute paths, checked one by one and together.

    Raises:
        ValueError, OSError: an option or a file it names is wrong.
    """
    kept = []
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        parsed = [v for k, v in vars(read([argument])).items() if k == name.replace("-", "_")]
        paths = parsed[0] if parsed and isinstance(parsed[0], list) else parsed
        is_path = any(isinstance(each, Path) for each in paths)
        if equals and (is_path or (name == "audit-log-path" and value != "-")):
            value = str(Path(value).absolute())
        kept.append(f"{name}{equals}{value}")
    _check_files(settings(read(kept)))
    return tuple(kept)


def _check_files(given: dict[str, Any]) -> None:
    """Read what a server would read at its start. Raises ValueError, OSError."""
    from wherry.kube.apiserver import encryption
    from wherry.kube.apiserver.authn import configuration, static

    told = given["authentication"]
    if told.token_file is not None:
        static.read(told.token_file)
    if told.oidc is not None:
        configuration.of_options(told.oidc)
    if told.file is not None:
        configuration.read(told.file)
    if given["encryption"] is not None:
        encryption.read(given["encryption"])


def read(arguments: Iterable[str]) -> argparse.Namespace:
    """Options given as ``name=value``, with or without dashes before them. Raises BadOptions."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    add(parser)
    return parser.parse_args([f"--{argument.lstrip('-')}" for argument in arguments])
