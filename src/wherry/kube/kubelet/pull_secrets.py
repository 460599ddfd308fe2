"""Who pulls an image: the registries' users in a pod's ``imagePullSecrets``. No I/O.

Follows https://kubernetes.io/docs/concepts/containers/images/#config-json: hosts may hold
wildcards, paths are prefixes; of several entries that fit all are tried, the longest first.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from wherry.engine.cri.types import AuthConfig

Object = dict[str, Any]

# The types of secrets that are looked at; ``.dockercfg`` lacks the outer ``auths``.
_CONFIG_JSON, _CONFIG = ".dockerconfigjson", ".dockercfg"
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Entry:
    """A user of the registries that ``pattern`` (``host[:port][/path]``) fits."""

    pattern: str
    auth: AuthConfig


def entries(data: Mapping[str, bytes]) -> list[Entry]:
    """What a secret's content tells; nothing where it is none for registries, or broken."""
    text = data.get(_CONFIG_JSON) or data.get(_CONFIG) or b"{}"
    try:
        document = json.loads(text)
        if _CONFIG_JSON in data:
            document = document.get("auths") or {}
        found = [Entry(_pattern(name), _auth(value)) for name, value in document.items()]
    except (ValueError, AttributeError, TypeError):
        return []
    return sorted(found, key=lambda entry: entry.pattern, reverse=True)


def _pattern(name: str) -> str:
    rest = name.partition("://")[2] or name
    host, _, path = rest.partition("/")
    # Docker's old names of registries end with the version of their API.
    path = path.strip("/")
    return host if path in ("", "v1", "v2") else f"{host}/{path}"


def _auth(value: Mapping[str, Any]) -> AuthConfig:
    user, password = str(value.get("username") or ""), str(value.get("password") or "")
    if value.get("auth") and not user:
        try:
            pair = base64.b64decode(str(value["auth"])).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        user, _, password = pair.partition(":")
    return AuthConfig(user, password, str(value.get("identitytoken") or ""))


def fitting(image: str, known: Sequence[Entry]) -> list[AuthConfig]:
    """The users to try for ``image``, in order."""
    repository = image.partition("@")[0]
    head, slash, rest = repository.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost"):
        head, rest = _DOCKER_HUB[0], repository
    names = _DOCKER_HUB if head in _DOCKER_HUB else (head,)
    found = [e.auth for e in known if any(_fits(e.pattern, name, rest) for name in names)]
    return list(dict.fromkeys(found))


def _fits(pattern: str, host: str, path: str) -> bool:
    wanted_host, _, wanted_path = pattern.partition("/")
    wanted_name, _, wanted_port = wanted_host.partition(":")
    name, _, port = host.partition(":")
    labels, own = wanted_name.split("."), name.split(".")
    if len(labels) != len(own) or wanted_port != port:
        return False
    if not all(fnmatchcase(label, like) for label, like in zip(own, labels, strict=True)):
        return False
    return path.startswith(wanted_path)


def of_pod(
    pod: Object, data: Callable[[str], Mapping[str, bytes] | None]
) -> tuple[list[Entry], list[str]]:
    """The entries of all secrets of ``pod``, and the names of those that are not there.

    ``data`` gives the content of a secret by name.
    """
    found: list[Entry] = []
    missing: list[str] = []
    for reference in pod["spec"].get("imagePullSecrets") or ():
        name = reference.get("name") or ""
        content = data(name) if name else None
        if content is None:
            missing.append(name)
        else:
            found += entries(content)
    found.sort(key=lambda entry: entry.pattern, reverse=True)
    return found, [name for name in missing if name]
