"""The issuers of users' tokens: from the ``--oidc-*`` options, or from an
AuthenticationConfiguration file, which may name several and map claims by CEL.

https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wherry.kube.api import cel
from wherry.kube.apiserver.authn.claims import (
    Check,
    ClaimMapping,
    Source,
    claim_check,
    user_check,
)
from wherry.kube.apiserver.authn.config import OIDC
from wherry.kube.apiserver.authn.oidc import Issuer

_VERSIONS = tuple(f"apiserver.config.k8s.io/{v}" for v in ("v1", "v1beta1", "v1alpha1"))
_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")


class BadConfiguration(ValueError):
    """It cannot be followed; the text says what is wrong where."""


def of_options(told: OIDC) -> Issuer:
    """Raises BadConfiguration, OSError."""
    if not told.issuer_url.startswith("https://"):
        raise BadConfiguration(f'oidc-issuer-url: "{told.issuer_url}": URL scheme must be https')
    for algorithm in told.signing_algs:
        if algorithm not in _ALGORITHMS:
            raise BadConfiguration(f"oidc-signing-algs: unsupported signing alg: {algorithm}")
    prefix = told.username_prefix
    if prefix is None:
        prefix = "" if told.username_claim == "email" else f"{told.issuer_url}#"
    mapping = ClaimMapping(
        Source(told.username_claim, "" if prefix == "-" else prefix),
        Source(told.groups_claim, told.groups_prefix),
        required=told.required_claims,
    )
    return Issuer(
        told.issuer_url,
        (told.client_id,),
        mapping,
        told.ca_file.read_text() if told.ca_file else "",
        algorithms=told.signing_algs,
    )


def read(path: Path) -> list[Issuer]:
    """The issuers of a file. Raises BadConfiguration, OSError."""
    import yaml

    try:
        return parse(yaml.load(path.read_bytes(), yaml.CSafeLoader))
    except (yaml.YAMLError, BadConfiguration) as error:
        raise BadConfiguration(f"{path}: {error}") from None


def parse(document: object) -> list[Issuer]:
    """The issuers an AuthenticationConfiguration names. Raises BadConfiguration."""
    if not isinstance(document, Mapping):
        raise BadConfiguration("an AuthenticationConfiguration is a mapping")
    if (
        document.get("apiVersion") not in _VERSIONS
        or document.get("kind") != "AuthenticationConfiguration"
    ):
        raise BadConfiguration(f"an AuthenticationConfiguration of {_VERSIONS[0]} is wanted")
    for key in document.keys() - {"apiVersion", "kind", "jwt"}:
        # What is not understood here must not be thought to hold.
        hint = "; --anonymous-auth says it" if key == "anonymous" else ""
        raise BadConfiguration(f"{key}: it is not supported{hint}")
    listed = document.get("jwt") or []
    if not isinstance(listed, list):
        raise BadConfiguration("jwt: a list is wanted")
    issuers = [_issuer(each, f"jwt[{index}]") for index, each in enumerate(listed)]
    urls = [issuer.url for issuer in issuers]
    for index, url in enumerate(urls):
        if url in urls[:index]:
            raise BadConfiguration(f'jwt[{index}].issuer.url: Duplicate value: "{url}"')
    return issuers


def _issuer(given: Any, path: str) -> Issuer:
    told = _mapping(given, path)
    issuer = _mapping(told.get("issuer"), f"{path}.issuer")
    url = _text(issuer, "url", f"{path}.issuer")
    discovery = _text(issuer, "discoveryURL", f"{path}.issuer", optional=True)
    for name, each in (("url", url), ("discoveryURL", discovery)):
        if each and not each.startswith("https://"):
            raise BadConfiguration(f'{path}.issuer.{name}: "{each}": URL scheme must be https')
    audiences = issuer.get("audiences")
    if not isinstance(audiences, list) or not all(isinstance(a, str) and a for a in audiences):
        audiences = []
    if not audiences:
        raise BadConfiguration(f"{path}.issuer.audiences: Required value: at least one")
    try:
        mapping = _claims(told, path)
    except cel.CompileError as error:
        raise BadConfiguration(f"{path}: compilation failed: {error}") from None
    authority = _text(issuer, "certificateAuthority", f"{path}.issuer", optional=True)
    return Issuer(url, tuple(audiences), mapping, authority, discovery, _ALGORITHMS)


def _claims(told: Mapping[str, Any], path: str) -> ClaimMapping:
    maps = _mapping(told.get("claimMappings"), f"{path}.claimMappings")
    where = f"{path}.claimMappings"
    username = _source(maps.get("username"), f"{where}.username", prefixed=True)
    if not username:
        raise BadConfiguration(f"{where}.username: Required value: claim or expression is required")
    extra = []
    for index, each in enumerate(maps.get("extra") or ()):
        item = _mapping(each, f"{where}.extra[{index}]")
        key = _text(item, "key", f"{where}.extra[{index}]")
        if key != key.lower() or "/" not in key:
            raise BadConfiguration(f'{where}.extra[{index}].key: Invalid value: "{key}"')
        expression = _text(item, "valueExpression", f"{where}.extra[{index}]")
        extra.append((key, _compiled(Source(expression=expression))))
    required, claim_checks = [], []
    for index, each in enumerate(told.get("claimValidationRules") or ()):
        place = f"{path}.claimValidationRules[{index}]"
        rule = _mapping(each, place)
        if rule.get("claim"):
            required.append((_text(rule, "claim", place), str(rule.get("requiredValue", ""))))
        else:
            claim_checks.append(_check(rule, place, claim_check))
    user_checks = [
        _check(_mapping(each, f"{path}.userValidationRules[{index}]"), path, user_check)
        for index, each in enumerate(told.get("userValidationRules") or ())
    ]
    return ClaimMapping(
        username,
        _source(maps.get("groups"), f"{where}.groups", prefixed=True),
        _source(maps.get("uid"), f"{where}.uid"),
        extra,
        required,
        claim_checks,
        user_checks,
    )


def _check(rule: Mapping[str, Any], path: str, make: Any) -> Check:
    message = _text(rule, "message", path, optional=True)
    made: Check = make(_text(rule, "expression", path), message)
    return made


def _source(given: Any, path: str, *, prefixed: bool = False) -> Source:
    if given is None:
        return Source()
    told = _mapping(given, path)
    claim = _text(told, "claim", path, optional=True)
    expression = _text(told, "expression", path, optional=True)
    if claim and expression:
        raise BadConfiguration(f"{path}: claim and expression can't both be set")
    prefix = told.get("prefix")
    if prefixed and claim and prefix is None:
        raise BadConfiguration(
            f"{path}.prefix: Required value: prefix is required when claim is set; "
            "it can be set to an empty string to disable prefixing"
        )
    return _compiled(Source(claim, str(prefix or ""), expression))


def _compiled(source: Source) -> Source:
    """The source, whose expression is one. Raises cel.CompileError."""
    if source.expression:
        _ = source.program
    return source


def _mapping(given: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise BadConfiguration(f"{path}: Required value: a mapping is wanted")
    return given


def _text(given: Mapping[str, Any], key: str, path: str, *, optional: bool = False) -> str:
    value = given.get(key)
    if value is None and optional:
        return ""
    if not isinstance(value, str) or (not value and not optional):
        raise BadConfiguration(f"{path}.{key}: Required value: a text is wanted")
    return value
