"""``RUN --mount``: one field list a mount (Dockerfile reference, "RUN --mount")."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from wherry.engine.build.dockerfile.errors import DockerfileError
from wherry.engine.build.dockerfile.quoting import boolean

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_ALLOWED = {
    "bind": {"target", "source", "from", "readonly"},
    "cache": {"target", "source", "from", "readonly", "id", "sharing", "mode", "uid", "gid"},
    "tmpfs": {"target", "size"},
    "secret": {"target", "id", "required", "mode", "uid", "gid", "env"},
    "ssh": {"target", "id", "required", "mode", "uid", "gid"},
}
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([kmgtp]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RunMount:
    """One mount; ``mode`` is None where it is not given, ``size`` is bytes, 0 for any."""

    type: str = "bind"
    target: str = ""
    source: str = ""
    origin: str = ""  # from: a stage or an image
    id: str = ""
    readonly: bool = True
    required: bool = False
    sharing: str = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""


def parse_mount(text: str) -> RunMount:
    """The mount that a ``--mount`` flag's value asks for.

    Raises:
        DockerfileError: a field is unknown, misses a value, or does not go with the type.
    """
    given: dict[str, str] = {}
    for field in next(csv.reader([text]), []):
        name, equals, value = field.partition("=")
        name = name.strip().lower()
        if name in ("rw", "readwrite"):
            name, value = "readonly", "false" if not equals or boolean(value) else "true"
        else:
            name = _ALIASES.get(name, name)
            if not equals:
                if name not in ("readonly", "required"):
                    raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
                value = "true"
        if name != "type" and not any(name in allowed for allowed in _ALLOWED.values()):
            raise DockerfileError(f"unexpected key '{name}' in '{field}'")
        given[name] = value
    kind = given.pop("type", "bind").lower()
    if kind not in TYPES:
        raise DockerfileError(f'unsupported mount type "{kind}"')
    for name in given:
        if name not in _ALLOWED[kind]:
            raise DockerfileError(f"unexpected key '{name}' for mount type '{kind}'")
    mount = RunMount(
        type=kind,
        target=given.get("target", ""),
        source=given.get("source", ""),
        origin=given.get("from", ""),
        id=given.get("id", ""),
        readonly=_flag(given, "readonly", kind == "bind"),
        required=_flag(given, "required", False),
        sharing=given.get("sharing", "shared").lower(),
        mode=_number(given, "mode", 8) if "mode" in given else None,
        uid=_number(given, "uid", 10),
        gid=_number(given, "gid", 10),
        size=_size(given.get("size", "")),
        env=given.get("env", ""),
    )
    if mount.sharing not in _SHARING:
        raise DockerfileError(f'unsupported sharing value "{mount.sharing}"')
    if kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise DockerfileError(f'invalid mount target "{mount.target}"')
    if kind == "secret" and not (mount.id or mount.target):
        raise DockerfileError("invalid secret mount. one of source, target required")
    return mount


def _flag(given: dict[str, str], name: str, default: bool) -> bool:
    if name not in given:
        return default
    value = boolean(given[name])
    if value is None:
        raise DockerfileError(f"invalid value for {name}: {given[name]}")
    return value


def _number(given: dict[str, str], name: str, base: int) -> int:
    text = given.get(name, "0")
    try:
        return int(text, base)
    except ValueError:
        raise DockerfileError(f"invalid value {text} for {name}") from None


def _size(text: str) -> int:
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise DockerfileError(f"invalid value for size: {text}")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))
