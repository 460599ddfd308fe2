"""What each instruction says: its arguments and flags, judged; variables are not replaced yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.build.dockerfile.errors import DockerfileError
from wherry.engine.build.dockerfile.mounts import RunMount, parse_mount
from wherry.engine.build.dockerfile.parser import Heredoc, Node, heredoc_start
from wherry.engine.build.dockerfile.quoting import boolean, duration

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_MILLISECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Command:
    """The command line of RUN, CMD, ENTRYPOINT: for the shell, or a list to execute."""

    words: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; ``text`` is as it was written, on one line."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class From(Instruction):
    base: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    names: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]
    literal: bool = False  # given beside the file: nothing is to be replaced in it


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """COPY, and ADD where ``add``. ``heredocs`` are the sources written in the file itself."""

    sources: tuple[str, ...]
    destination: str
    add: bool = False
    origin: str = ""  # --from
    chown: str = ""
    chmod: str = ""
    checksum: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    command: Command
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True, slots=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """``check`` is HealthConfig of the Engine API."""

    check: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Onbuild(Instruction):
    trigger: str


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, slots=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    name: str


def instruction(node: Node) -> Instruction:
    """The instruction of a node.

    Raises:
        DockerfileError: there is no such instruction, or it says what it cannot say.
    """
    maker = _MAKERS.get(node.keyword)
    if maker is None:
        raise DockerfileError(f"unknown instruction: {node.keyword.upper()}")
    return maker(node)


# ---- flags


class _Flags:
    """The flags of one instruction; each may be given once, but for those in ``many``."""

    def __init__(
        self,
        node: Node,
        known: Sequence[str],
        booleans: Sequence[str] = (),
        many: Sequence[str] = (),
    ) -> None:
        self._values: dict[str, list[str]] = {}
        for flag in node.flags:
            name, equals, value = flag[2:].partition("=")
            if name in booleans:
                if not equals:
                    value = "true"
                elif boolean(value) is None:
                    raise DockerfileError(f"Expecting boolean value for flag {name}, not: {value}")
            elif name not in known and name not in many:
                raise DockerfileError(f"Unknown flag: {name}")
            elif not equals:
                raise DockerfileError(f"Missing a value on flag: {name}")
            if name in self._values and name not in many:
                raise DockerfileError(f"Duplicate flag specified: {name}")
            self._values.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[-1]

    def is_set(self, name: str) -> bool:
        return bool(boolean(self.text(name, "false")))

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))


def _no_flags(node: Node) -> None:
    _Flags(node, ())


# ---- counts of arguments


def _one(node: Node) -> str:
    _no_flags(node)
    if len(node.args) != 1:
        raise DockerfileError(f"{node.keyword.upper()} requires exactly one argument")
    return node.args[0]


def _at_least_one(node: Node, arguments: Sequence[Any]) -> None:
    if not arguments:
        raise DockerfileError(f"{node.keyword.upper()} requires at least one argument")


# ---- one maker an instruction


def _from(node: Node) -> Instruction:
    flags = _Flags(node, ("platform",))
    args = node.args
    name = ""
    if len(args) == 3 and args[1].lower() == "as":
        name = args[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise DockerfileError(
                f'invalid name for build stage: "{args[2]}", name can\'t start with a number or'
                " contain symbols"
            )
    elif len(args) != 1:
        raise DockerfileError("FROM requires either one or three arguments")
    return From(node.original, node.line, args[0], name, flags.text("platform"))


def _arg(node: Node) -> Instruction:
    _no_flags(node)
    _at_least_one(node, node.pairs)
    if not all(name for name, _ in node.pairs):
        raise DockerfileError("ARG names can not be blank")
    return Arg(node.original, node.line, tuple(node.pairs))


def _pairs(node: Node) -> tuple[tuple[str, str], ...]:
    _no_flags(node)
    _at_least_one(node, node.pairs)
    if not all(name for name, _ in node.pairs):
        raise DockerfileError(f"{node.keyword.upper()} names can not be blank")
    return tuple((name, value or "") for name, value in node.pairs)


def _env(node: Node) -> Instruction:
    return Env(node.original, node.line, _pairs(node))


def _label(node: Node) -> Instruction:
    return Label(node.original, node.line, _pairs(node))


def _copy(node: Node) -> Instruction:
    add = node.keyword == "add"
    flags = _Flags(
        node,
        ("chown", "chmod", *(("checksum",) if add else ("from",))),
        ("link", *(("keep-git-dir",) if add else ("parents",))),
        ("exclude",),
    )
    if len(node.args) < 2:
        raise DockerfileError(
            f"{node.keyword.upper()} requires at least two arguments, but only one was provided."
            " Destination could not be determined"
        )
    *sources, destination = node.args
    if not node.json:
        if heredoc_start(destination):
            raise DockerfileError(
                f"{node.keyword.upper()} cannot accept a heredoc as a destination"
            )
        sources = [source for source in sources if not heredoc_start(source)]
    return Copy(
        node.original,
        node.line,
        tuple(sources),
        destination,
        add=add,
        origin=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        checksum=flags.text("checksum"),
        link=flags.is_set("link"),
        parents=flags.is_set("parents"),
        exclude=flags.all("exclude"),
        heredocs=tuple(node.heredocs),
    )


def _command(node: Node) -> Command:
    return Command(tuple(node.args), shell=not node.json)


def _run(node: Node) -> Instruction:
    flags = _Flags(node, ("network", "security"), (), ("mount",))
    if not node.json:
        _at_least_one(node, node.args)
    network, security = flags.text("network", "default"), flags.text("security", "sandbox")
    if network not in ("default", "none", "host"):
        raise DockerfileError(f'invalid network mode "{network}"')
    if security not in ("sandbox", "insecure"):
        raise DockerfileError(f'security "{security}" is not valid')
    return Run(
        node.original,
        node.line,
        _command(node),
        tuple(parse_mount(text) for text in flags.all("mount")),
        network,
        security,
        tuple(node.heredocs),
    )


def _cmd(node: Node) -> Instruction:
    _no_flags(node)
    return Cmd(node.original, node.line, _command(node))


def _entrypoint(node: Node) -> Instruction:
    _no_flags(node)
    return Entrypoint(node.original, node.line, _command(node))


def _healthcheck(node: Node) -> Instruction:
    durations = ("interval", "timeout", "start-period", "start-interval")
    flags = _Flags(node, (*durations, "retries"))
    _at_least_one(node, node.args)
    kind, *rest = node.args
    check: dict[str, Any]
    match kind.upper():
        case "NONE":
            if rest:
                raise DockerfileError("HEALTHCHECK NONE takes no arguments")
            check = {"Test": ["NONE"]}
        case "CMD":
            if not rest:
                raise DockerfileError("Missing command after HEALTHCHECK CMD")
            check = {"Test": ["CMD" if node.json else "CMD-SHELL", *rest]}
            for name in durations:
                if text := flags.text(name):
                    value = duration(text)
                    if value and value < _MILLISECOND:
                        raise DockerfileError(f'Interval "{name}" cannot be less than 1ms')
                    check["".join(part.title() for part in name.split("-"))] = value
            if text := flags.text("retries"):
                check["Retries"] = _retries(text)
        case _:
            raise DockerfileError(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    return Healthcheck(node.original, node.line, check)


def _retries(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise DockerfileError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if int(text) < 0:
        raise DockerfileError(f"--retries must be at least 1 (not {int(text)})")
    return int(text)


def _expose(node: Node) -> Instruction:
    _no_flags(node)
    _at_least_one(node, node.args)
    return Expose(node.original, node.line, tuple(sorted(node.args)))


def _volume(node: Node) -> Instruction:
    _no_flags(node)
    _at_least_one(node, node.args)
    paths = tuple(path.strip() for path in node.args)
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Volume(node.original, node.line, paths)


def _shell(node: Node) -> Instruction:
    _no_flags(node)
    _at_least_one(node, node.args)
    if not node.json:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    return Shell(node.original, node.line, tuple(node.args))


def _onbuild(node: Node) -> Instruction:
    _no_flags(node)
    _at_least_one(node, node.args)
    first = node.rest.split(None, 1)[0].upper()
    if first == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if first in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{first} isn't allowed as an ONBUILD trigger")
    trigger = node.original.split(None, 1)[1]
    for heredoc in node.heredocs:
        trigger += f"\n{heredoc.content}{heredoc.name}"
    return Onbuild(node.original, node.line, trigger)


def _workdir(node: Node) -> Instruction:
    return Workdir(node.original, node.line, _one(node))


def _user(node: Node) -> Instruction:
    return User(node.original, node.line, _one(node))


def _stop_signal(node: Node) -> Instruction:
    return StopSignal(node.original, node.line, _one(node))


def _maintainer(node: Node) -> Instruction:
    return Maintainer(node.original, node.line, _one(node))


_MAKERS: Mapping[str, Callable[[Node], Instruction]] = {
    "add": _copy,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stop_signal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
