"""Which resources lie encrypted in the store, and by which keys: an EncryptionConfiguration file.

https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from wherry.kube.api.resources import RESOURCES
from wherry.kube.apiserver.cache import prefix_of
from wherry.kube.store.ciphers import PROVIDERS, SIZES, Cipher, Identity
from wherry.kube.store.encrypted import Ciphers

_VERSIONS = ("apiserver.config.k8s.io/v1", "v1")
_PREFIXES = {prefix_of(r): (r.group, r.plural) for r in RESOURCES if r.stored_as is None}
Rules = Sequence[tuple[Sequence[str], Sequence[Cipher]]]


class BadEncryption(ValueError):
    """The configuration cannot be followed; the text says what is wrong, and no key."""


def read(path: Path) -> Ciphers:
    """The ciphers of a file. Raises BadEncryption, OSError."""
    import yaml

    try:
        document = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    except yaml.YAMLError:
        raise BadEncryption(f"{path}: it is no YAML") from None  # whose error would show keys
    try:
        return ciphers_of(parse(document))
    except BadEncryption as error:
        raise BadEncryption(f"{path}: {error}") from None


def ciphers_of(rules: Rules) -> Ciphers:
    """For each key of the store the ciphers of the first rule that is about its resource."""

    @lru_cache(4096)
    def of(group: str, plural: str) -> Sequence[Cipher]:
        for resources, ciphers in rules:
            if any(_covers(each, group, plural) for each in resources):
                return ciphers
        return ()

    def ciphers(key: str) -> Sequence[Cipher]:
        resource = resource_of(key)
        return of(*resource) if resource else ()

    return ciphers


def resource_of(key: str) -> tuple[str, str] | None:
    """Group and plural of what lies at a key of the store; None: it is no object."""
    parts = key.split("/", 4)
    if len(parts) < 4:
        return None
    known = _PREFIXES.get(f"/{parts[1]}/{parts[2]}/")
    if known is None:
        known = _PREFIXES.get(f"/{parts[1]}/{parts[2]}/{parts[3]}/")
    if known is None and "." in parts[2]:  # a custom resource
        return parts[2], parts[3]
    return known


def _covers(wanted: str, group: str, plural: str) -> bool:
    if wanted == "*.*":
        return True
    if wanted.startswith("*."):
        return wanted[2:] == group
    return wanted == (f"{plural}.{group}" if group else plural)


def parse(document: object) -> Rules:
    """What an EncryptionConfiguration says. Raises BadEncryption."""
    if not isinstance(document, Mapping):
        raise BadEncryption("an EncryptionConfiguration is a mapping")
    if document.get("apiVersion") not in _VERSIONS or document.get("kind") not in (
        "EncryptionConfiguration",
        "EncryptionConfig",
    ):
        raise BadEncryption(
            f'no kind "{document.get("kind", "")}" of version "{document.get("apiVersion", "")}": '
            f"an EncryptionConfiguration of {_VERSIONS[0]} is wanted"
        )
    listed = document.get("resources")
    if not isinstance(listed, list) or not listed:
        raise BadEncryption("resources: Required value: provider config has no resources")
    return [_rule(each, f"resources[{index}]") for index, each in enumerate(listed)]


def _rule(given: Any, path: str) -> tuple[Sequence[str], Sequence[Cipher]]:
    if not isinstance(given, Mapping):
        raise BadEncryption(f"{path}: a mapping is wanted")
    resources = given.get("resources")
    if (
        not isinstance(resources, list)
        or not resources
        or not all(isinstance(each, str) and each for each in resources)
    ):
        raise BadEncryption(f"{path}.resources: Required value: a list of resources is wanted")
    for resource in resources:
        if resource == "*" or ("*" in resource and not resource.startswith("*.")):
            raise BadEncryption(
                f'{path}.resources: Invalid value: "{resource}": use *.<group> for all resources '
                "of a group, *. for those of the core group, *.* for all"
            )
    providers = given.get("providers")
    if not isinstance(providers, list) or not providers:
        raise BadEncryption(f"{path}.providers: Required value: there are no providers")
    ciphers: list[Cipher] = []
    for index, provider in enumerate(providers):
        ciphers += _provider(provider, f"{path}.providers[{index}]")
    return resources, ciphers


def _provider(given: Any, path: str) -> list[Cipher]:
    if not isinstance(given, Mapping) or len(given) != 1:
        raise BadEncryption(f"{path}: a provider has one name, such as aescbc")
    ((name, settings),) = given.items()
    if name == "identity":
        return [Identity()]
    if name not in PROVIDERS:
        known = ", ".join(sorted((*PROVIDERS, "identity")))
        raise BadEncryption(f"{path}: there is no provider {name}, want one of {known}")
    keys = settings.get("keys") if isinstance(settings, Mapping) else None
    if not isinstance(keys, list) or not keys:
        raise BadEncryption(f"{path}.{name}.keys: Required value: there are no keys")
    seen: set[str] = set()
    ciphers: list[Cipher] = []
    for index, key in enumerate(keys):
        where = f"{path}.{name}.keys[{index}]"
        title, secret = _key(key, where, SIZES[name])
        if title in seen:
            raise BadEncryption(f'{where}.name: Duplicate value: "{title}"')
        seen.add(title)
        ciphers.append(PROVIDERS[name](title, secret))
    return ciphers


def _key(given: Any, path: str, sizes: Sequence[int]) -> tuple[str, bytes]:
    name = given.get("name") if isinstance(given, Mapping) else None
    if not isinstance(name, str) or not name:
        raise BadEncryption(f"{path}.name: Required value: a key has a name")
    if ":" in name:
        raise BadEncryption(f"{path}.name: a name has no colon")
    try:
        secret = base64.b64decode(given.get("secret") or "", validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise BadEncryption(f"{path}.secret: secrets must be base64 encoded") from None
    if len(secret) not in sizes:
        lengths = " or ".join(map(str, sizes))
        raise BadEncryption(
            f"{path}.secret: the key is {len(secret)} bytes long, {lengths} are wanted"
        )
    return name, secret
