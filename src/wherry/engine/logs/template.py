"""Tags of log messages: Go templates (https://pkg.go.dev/text/template) over a container.

Understood are actions with a field, a literal or a function, and pipelines of them:
``{{.Name}}``, ``{{upper .ID}}``, ``{{.ImageName | printf "%s/x"}}`` and the like, as tags have
them; not the control structures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wherry.engine.logs.info import Info

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\||\(|\)|[^\s|()"`]+)')


def execute(template: str, info: Info) -> str:
    """The text that ``template`` makes of a container.

    Raises:
        ValueError: it cannot be understood, or names what there is not.
    """
    output, at, trim = [], 0, False
    for action in _ACTION.finditer(template):
        text = template[at : action.start()]
        text = text.lstrip() if trim else text
        output.append(text.rstrip() if action[1] else text)
        if not action[2].startswith("/*"):
            output.append(_print(_pipeline(_tokens(action[2]), info)))
        at, trim = action.end(), bool(action[3])
    rest = template[at:]
    if "{{" in rest:
        raise ValueError("template: log-tag:1: unclosed action")
    return "".join([*output, rest.lstrip() if trim else rest])


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while match := _TOKEN.match(text, at):
        tokens.append(match[1])
        at = match.end()
    if text[at:].strip():
        raise ValueError("template: log-tag:1: unterminated quoted string")
    return tokens


def _pipeline(tokens: list[str], info: Info) -> Any:
    """Each command's result is the last argument of the next."""
    value: list[Any] = []
    command: list[Any] = []
    if not tokens:
        raise ValueError("template: log-tag:1: missing value for command")
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token == "|":  # noqa: S105  not a password
            value, command = [_call(command, value, info)], []
        elif token == "(":  # noqa: S105
            depth, begun = 1, at
            while depth:
                if at == len(tokens):
                    raise ValueError("template: log-tag:1: unclosed left paren")
                depth += {"(": 1, ")": -1}.get(tokens[at], 0)
                at += 1
            command.append((_pipeline(tokens[begun : at - 1], info),))
        else:
            command.append(token)
    return _call(command, value, info)


def _call(command: list[Any], piped: list[Any], info: Info) -> Any:
    if not command:
        raise ValueError("template: log-tag:1: missing value for command")
    head, *rest = command
    arguments = [_value(word, info) for word in rest] + piped
    if isinstance(head, str) and head in _FUNCTIONS:
        try:
            return _FUNCTIONS[head](*arguments)
        except (TypeError, IndexError, KeyError, AttributeError) as error:
            raise ValueError(
                f'template: log-tag:1: executing "log-tag" at <{head}>: {error}'
            ) from None
    if head == ".ExtraAttributes":
        return info.attributes()
    if arguments:
        raise ValueError(f"template: log-tag:1: {head} is not a function")
    return _value(head, info)


def _value(word: Any, info: Info) -> Any:
    if isinstance(word, tuple):
        return word[0]
    if word[0] == '"':
        return json.loads(word)
    if word[0] == "`":
        return word[1:-1]
    if re.fullmatch(r"[+-]?\d+", word):
        return int(word)
    if word in ("true", "false", "nil"):
        return {"true": True, "false": False, "nil": None}[word]
    if word == ".":
        return info
    if word.startswith("."):
        name, *keys = word[1:].split(".")
        if name not in _FIELDS:
            raise ValueError(
                f'template: log-tag:1:2: executing "log-tag" at <{word}>: '
                f"can't evaluate field {name} in type *logger.Info"
            )
        value = _FIELDS[name](info)
        for key in keys:
            value = value.get(key, "<no value>") if isinstance(value, Mapping) else "<no value>"
        return value
    raise ValueError(f'template: log-tag:1: function "{word}" not defined')


def _print(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "<no value>"
        case Mapping():
            pairs = (f"{key}:{_print(value[key])}" for key in sorted(value))
            return f"map[{' '.join(pairs)}]"
        case list() | tuple():
            return f"[{' '.join(map(_print, value))}]"
        case _:
            return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


def _printf(form: str, *values: Any) -> str:
    return str(re.sub(r"%v", "%s", form) % tuple(_print(v) if v is None else v for v in values))


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "join": lambda values, separator: separator.join(values),
    "title": lambda text: re.sub(r"(?<!\w)\w", lambda m: m[0].upper(), text),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "pad": lambda text, before, behind: text and " " * before + text + " " * behind,
    "truncate": lambda text, length: text[:length],
    "index": _index,
    "len": len,
    "print": lambda *values: "".join(map(_print, values)),
    "printf": _printf,
    "println": lambda *values: " ".join(map(_print, values)) + "\n",
}

_FIELDS: Mapping[str, Callable[[Info], Any]] = {
    "ID": lambda info: info.id[:12],
    "FullID": lambda info: info.id,
    "Name": lambda info: info.name,
    "ImageID": lambda info: info.image_id[:12],
    "ImageFullID": lambda info: info.image_id,
    "ImageName": lambda info: info.image_name,
    "Command": lambda info: " ".join((info.entrypoint, *info.args)),
    "DaemonName": lambda info: "docker",
    "Config": lambda info: info.config,
    "ContainerID": lambda info: info.id,
    "ContainerName": lambda info: f"/{info.name}",
    "ContainerEntrypoint": lambda info: info.entrypoint,
    "ContainerArgs": lambda info: list(info.args),
    "ContainerImageID": lambda info: info.image_id,
    "ContainerImageName": lambda info: info.image_name,
    "ContainerEnv": lambda info: list(info.env),
    "ContainerLabels": lambda info: info.labels,
    "LogPath": lambda info: str(info.path),
}
