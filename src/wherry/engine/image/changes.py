"""``--change`` of ``docker import`` and ``docker commit``: Dockerfile instructions on a config.

Only instructions that change metadata are allowed. The syntax is the Dockerfile reference's, one
instruction a line, without variables to expand.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from wherry.engine.container.units import parse_duration
from wherry.engine.errors import BadParameter

DEFAULT_SHELL = ("/bin/sh", "-c")
_NSEC = 1_000_000_000
_PROTOCOLS = ("tcp", "udp", "sctp")

Settings = dict[str, Any]


def apply(settings: Mapping[str, Any], changes: Sequence[str]) -> Settings:
    """The container settings of an image (``Env``, ``Cmd``, …) after the instructions.

    Raises:
        BadParameter: an instruction is wrong or not allowed here.
    """
    result: Settings = {
        key: (value.copy() if isinstance(value, (dict, list)) else value)
        for key, value in settings.items()
    }
    for line in "\n".join(changes).splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        word, _, rest = text.partition(" ")
        handler = _HANDLERS.get(word.lower())
        if handler is None:
            raise BadParameter(f"{word.lower()} is not a valid change command")
        handler(result, rest.strip(), word.upper())
    return result


def _cmd(settings: Settings, text: str, word: str) -> None:
    settings["Cmd"] = _command(settings, text)


def _entrypoint(settings: Settings, text: str, word: str) -> None:
    settings["Entrypoint"] = _command(settings, text)


def _env(settings: Settings, text: str, word: str) -> None:
    variables = dict(one.partition("=")[::2] for one in settings.get("Env") or [])
    variables.update(_pairs(text, word))
    settings["Env"] = [f"{name}={value}" for name, value in variables.items()]


def _label(settings: Settings, text: str, word: str) -> None:
    settings["Labels"] = {**(settings.get("Labels") or {}), **_pairs(text, word)}


def _expose(settings: Settings, text: str, word: str) -> None:
    if not text:
        raise _arguments(word, "at least one argument")
    ports = dict(settings.get("ExposedPorts") or {})
    for one in text.split():
        numbers, _, protocol = one.partition("/")
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", numbers, re.ASCII)
        protocol = protocol.lower() or "tcp"
        if match is None:
            raise BadParameter(f"invalid containerPort: {numbers}")
        if protocol not in _PROTOCOLS:
            raise BadParameter(f"invalid proto: {protocol}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last > 65535 or last < first:
            raise BadParameter(f"invalid containerPort: {numbers}")
        ports.update({f"{port}/{protocol}": {} for port in range(first, last + 1)})
    settings["ExposedPorts"] = ports


def _user(settings: Settings, text: str, word: str) -> None:
    settings["User"] = _one(text, word)


def _stop_signal(settings: Settings, text: str, word: str) -> None:
    settings["StopSignal"] = _one(text, word)


def _volume(settings: Settings, text: str, word: str) -> None:
    paths = _json_list(text) or text.split()
    if not paths:
        raise _arguments(word, "at least one argument")
    if not all(path.strip() for path in paths):
        raise BadParameter("VOLUME specified can not be an empty string")
    settings["Volumes"] = {**(settings.get("Volumes") or {}), **{path: {} for path in paths}}


def _workdir(settings: Settings, text: str, word: str) -> None:
    import posixpath

    path = _one(text, word)
    base = settings.get("WorkingDir") or "/"
    settings["WorkingDir"] = posixpath.normpath(posixpath.join("/", base, path))


def _onbuild(settings: Settings, text: str, word: str) -> None:
    first = text.split(" ", 1)[0].upper()
    if not first:
        raise _arguments(word, "at least one argument")
    if first == "ONBUILD":
        raise BadParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if first in ("MAINTAINER", "FROM"):
        raise BadParameter(f"{first} isn't allowed as an ONBUILD trigger")
    settings["OnBuild"] = [*(settings.get("OnBuild") or []), text]


def _healthcheck(settings: Settings, text: str, word: str) -> None:
    check: dict[str, Any] = {}
    words = text.split()
    while words and words[0].startswith("--"):
        option, _, value = words.pop(0)[2:].partition("=")
        text = text.split(None, 1)[1] if words else ""
        name = _HEALTH_OPTIONS.get(option)
        if name is None:
            raise BadParameter(f"unknown flag: --{option}")
        check[name] = _health_value(option, value)
    kind, _, command = text.partition(" ")
    if kind.upper() == "NONE":
        if command.strip():
            raise BadParameter("HEALTHCHECK NONE takes no arguments")
        check = {"Test": ["NONE"]}
    elif kind.upper() == "CMD":
        if not command.strip():
            raise BadParameter("missing command after HEALTHCHECK CMD")
        listed = _json_list(command.strip())
        check["Test"] = ["CMD", *listed] if listed else ["CMD-SHELL", command.strip()]
    elif not kind:
        raise _arguments(word, "at least one argument")
    else:
        raise BadParameter(f'unknown type "{kind}" in HEALTHCHECK (try CMD)')
    settings["Healthcheck"] = check


_HEALTH_OPTIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}


def _health_value(option: str, value: str) -> int:
    if option == "retries":
        if not value.isdigit():
            raise BadParameter(f"--retries must be a number, not {value!r}")
        return int(value)
    duration = parse_duration(value)
    if duration is None:
        raise BadParameter(f'time: invalid duration "{value}"')
    return int(duration * _NSEC)


_HANDLERS: Mapping[str, Callable[[Settings, str, str], None]] = {
    "cmd": _cmd,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "healthcheck": _healthcheck,
    "label": _label,
    "onbuild": _onbuild,
    "stopsignal": _stop_signal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}


def _command(settings: Mapping[str, Any], text: str) -> list[str] | None:
    """The exec form as it is, the shell form in front of its shell."""
    listed = _json_list(text)
    if listed is not None:
        return listed or None
    return [*(settings.get("Shell") or DEFAULT_SHELL), text] if text else None


def _json_list(text: str) -> list[str] | None:
    """The exec form ``["a", "b"]``; None where the text is something else."""
    if not text.startswith("["):
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return None
    return value


def _pairs(text: str, word: str) -> dict[str, str]:
    """``name=value …`` with shell quoting, or the old form ``name value``."""
    if not text:
        raise _arguments(word, "at least one argument")
    first, _, rest = text.partition(" ")
    if "=" not in first:
        if not rest.strip():
            raise BadParameter(f"{word} must have two arguments")
        return {first: rest.strip()}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadParameter(f"Syntax error - can't parse {text!r}: {error}") from None
    pairs: dict[str, str] = {}
    for one in words:
        name, equals, value = one.partition("=")
        if not equals:
            raise BadParameter(
                f"Syntax error - can't find = in {one!r}. Must be of the form: name=value"
            )
        if not name:
            raise BadParameter(f"{word} names can not be blank")
        pairs[name] = value
    return pairs


def _one(text: str, word: str) -> str:
    if not text:
        raise _arguments(word, "exactly one argument")
    return text


def _arguments(word: str, count: str) -> BadParameter:
    return BadParameter(f"{word} requires {count}")
