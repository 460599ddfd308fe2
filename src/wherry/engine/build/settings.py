"""What instructions without files do to the settings of an image (``Env``, ``Cmd``, …).

The builder and the ``--change`` of `docker commit` and `docker import` share this. Each returns
what the history of the image says of the step, in the classic builder's words.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.build.dockerfile.errors import DockerfileError
from wherry.engine.build.dockerfile.instructions import (
    Arg,
    Cmd,
    Command,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from wherry.engine.build.dockerfile.quoting import quote, quote_list
from wherry.engine.build.dockerfile.words import expand, expand_text, expand_to_words
from wherry.engine.container import signals

DEFAULT_SHELL = ("/bin/sh", "-c")
_PROTOCOLS = ("tcp", "udp", "sctp")
_PORTS = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


@dataclass(slots=True)
class Scope:
    """The variables that words are expanded from: those of the image over those of ARG."""

    environment: Mapping[str, str]
    arguments: Mapping[str, str] = field(default_factory=dict)
    escape: str = "\\"

    @property
    def variables(self) -> dict[str, str]:
        return {**self.arguments, **self.environment}

    def expand(self, word: str) -> str:
        """``word`` with its variables and without its quotes."""
        return expand(word, self.variables, self.escape)

    def expand_text(self, text: str) -> str:
        """Replace the variables in a here-document, in which quotes mean nothing."""
        return expand_text(text, self.variables, self.escape)

    def words(self, word: str) -> list[str]:
        """As ``expand``, but a variable may bring several words."""
        return expand_to_words(word, self.variables, self.escape)


@dataclass(slots=True)
class Settings:
    """What an image will hand on; ``command_set`` tells this file's CMD from an inherited one."""

    values: dict[str, Any] = field(default_factory=dict)
    author: str = ""
    command_set: bool = False

    @property
    def environment(self) -> dict[str, str]:
        pairs = (one.partition("=") for one in self.values.get("Env") or [])
        return {name: value for name, _, value in pairs}

    @property
    def shell(self) -> list[str]:
        return list(self.values.get("Shell") or DEFAULT_SHELL)

    def command(self, command: Command) -> list[str]:
        """The exec form as it is, the shell form behind its shell."""
        return [*self.shell, *command.words] if command.shell else list(command.words)

    def apply(self, step: Instruction, scope: Scope) -> str:
        """Carry out ``step``; returns what the history says of it.

        Raises:
            DockerfileError: a word cannot be expanded, or what comes out of it makes no sense.
            BadParameter: there is no such signal.
        """
        match step:
            case Env(pairs=pairs):
                return self._env([(scope.expand(n), scope.expand(v)) for n, v in pairs])
            case Label(pairs=pairs, literal=literal):
                if not literal:
                    pairs = tuple((scope.expand(n), scope.expand(v)) for n, v in pairs)
                self.values["Labels"] = {**(self.values.get("Labels") or {}), **dict(pairs)}
                return " ".join(["LABEL", *(f"{name}={value}" for name, value in pairs)])
            case Maintainer(name=name):
                self.author = name
                return f"MAINTAINER {name}"
            case Cmd(command=command):
                words = self.command(command)
                self.values["Cmd"] = words
                self.command_set = bool(command.words)
                return f"CMD {quote_list(words)}"
            case Entrypoint(command=command):
                words = self.command(command)
                self.values["Entrypoint"] = words
                if not self.command_set:
                    self.values["Cmd"] = None
                return f"ENTRYPOINT {quote_list(words)}"
            case Healthcheck(check=check):
                self.values["Healthcheck"] = dict(check)
                return f"HEALTHCHECK {_shown_check(check)}"
            case Expose(ports=ports):
                return self._expose([one for port in ports for one in scope.words(port)])
            case User(user=user):
                self.values["User"] = scope.expand(user)
                return f"USER {self.values['User']}"
            case Volume(paths=paths):
                return self._volumes([scope.expand(path) for path in paths])
            case StopSignal(signal=signal):
                name = scope.expand(signal)
                signals.parse(name)
                self.values["StopSignal"] = name
                return f"STOPSIGNAL {name}"
            case Shell(words=shell):
                self.values["Shell"] = list(shell)
                return f"SHELL [{' '.join(shell)}]"
            case Onbuild(trigger=trigger):
                self.values["OnBuild"] = [*(self.values.get("OnBuild") or []), trigger]
                return f"ONBUILD {trigger}"
            case Workdir(path=path):
                whole = scope.expand(path)
                # What is absolute stays as it was written.
                self.values["WorkingDir"] = whole if whole[:1] == "/" else self.resolve(whole)
                return f"WORKDIR {self.values['WorkingDir']}"
            case Arg():
                raise AssertionError("arguments are the builder's")
            case _:
                raise AssertionError(f"{step!r} is not about settings")

    def resolve(self, path: str) -> str:
        """``path`` as seen from the working directory."""
        if not path:
            raise DockerfileError("cannot normalize nothing")
        whole = posixpath.join("/", self.values.get("WorkingDir") or "", path)
        return "/" + posixpath.normpath(whole).lstrip("/")

    def _env(self, pairs: Sequence[tuple[str, str]]) -> str:
        variables = list(self.values.get("Env") or [])
        for name, value in pairs:
            for index, one in enumerate(variables):
                if one.partition("=")[0] == name:
                    variables[index] = f"{name}={value}"
                    break
            else:
                variables.append(f"{name}={value}")
        self.values["Env"] = variables
        return " ".join(["ENV", *(f"{name}={value}" for name, value in pairs)])

    def _expose(self, ports: Sequence[str]) -> str:
        found = dict(self.values.get("ExposedPorts") or {})
        for port in ports:
            found.update({key: {} for key in _exposed(port)})
        self.values["ExposedPorts"] = found
        return " ".join(["EXPOSE", *ports])

    def _volumes(self, paths: Sequence[str]) -> str:
        if not all(paths):
            raise DockerfileError("VOLUME specified can not be an empty string")
        self.values["Volumes"] = {
            **(self.values.get("Volumes") or {}),
            **{path: {} for path in paths},
        }
        return f"VOLUME [{' '.join(paths)}]"


def _exposed(text: str) -> list[str]:
    """``80``, ``80/udp`` or ``8000-8010/tcp``, one entry a port."""
    numbers, _, protocol = text.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    match = _PORTS.fullmatch(numbers)
    if match is None:
        raise DockerfileError(f"invalid containerPort: {numbers}")
    if protocol not in _PROTOCOLS:
        raise DockerfileError(f"invalid proto: {protocol}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last > 65535 or last < first:
        raise DockerfileError(f"invalid containerPort: {numbers}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _shown_check(check: Mapping[str, Any]) -> str:
    """``%q`` of a pointer to Go's ``HealthConfig``."""
    times = ("Interval", "Timeout", "StartPeriod", "StartInterval")
    shown = " ".join(quote(_duration(check.get(name, 0))) for name in times)
    retries = check.get("Retries", 0)
    character = chr(retries) if 32 < retries < 127 else f"\\x{retries:02x}"
    return f"&{{{quote_list(check['Test'])} {shown} '{character}'}}"


def _duration(nanoseconds: int) -> str:
    """``time.Duration.String``."""
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if 0 < nanoseconds < size * 1_000:
            return f"{nanoseconds / size:.9f}".rstrip("0").rstrip(".") + unit
    seconds = nanoseconds / 1_000_000_000
    minutes, rest = divmod(seconds, 60)
    shown = f"{rest:.9f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return shown
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{shown}" if hours else f"{minutes}m{shown}"
