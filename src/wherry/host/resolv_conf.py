"""This machine's ``/etc/resolv.conf``, resolv.conf(5): whom it asks for names.

A file that names systemd-resolved alone is of use on this machine only. Whom that one asks itself
stands in another file, which kubeadm, too, has the kubelet read in place of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.host.files import state

PATH = "/etc/resolv.conf"
_STUB = ("127.0.0.53",)
_BEHIND_STUB = "/run/systemd/resolve/resolv.conf"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What the file says."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [f"nameserver {server}\n" for server in self.servers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}\n")
        if self.options:
            lines.append(f"options {' '.join(self.options)}\n")
        return "".join(lines)


def parse(text: str) -> ResolvConf:
    """Read a file; what it has besides is dropped."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        match words[0]:
            case "nameserver":
                servers += words[1:2]
            case "search" | "domain":
                search = words[1:]
            case "options":
                options += words[1:]
    return ResolvConf(tuple(servers), tuple(search), tuple(options))


def host_file(root: Path = Path("/"), path: str = PATH, *, direct: bool) -> str:
    """The host's file as it is now; ``direct``: one whose servers answer more than the host alone.

    Empty where there is none.
    """
    return _read([f"{root}{name}" for name in ((path, _BEHIND_STUB) if direct else (path,))])


def _read(names: Sequence[str]) -> str:
    """The first file, or the next one in place of one that names the stub alone."""
    found = ""
    for name in names:
        try:
            text = Path(name).read_text(errors="replace")
        except OSError:
            break
        found = text
        if parse(text).servers != _STUB:
            break
    return found


class Latest:
    """What the ``direct`` file says now: looked at with each use, read again when it is another.

    That costs a microsecond or two, sees every way in which files change (links that lead
    elsewhere, mounts), and needs no watching.
    """

    def __init__(self, path: str = PATH, root: Path = Path("/")) -> None:
        self._names = [f"{root}{name}" for name in (path, _BEHIND_STUB)]
        self._then: list[object] | None = None
        self._found = ResolvConf()

    def now(self) -> ResolvConf:
        """The same object as before where nothing has changed."""
        if self._then is None or any(map(_differs, self._names, self._then)):
            self._then = [state(name) for name in self._names]
            found = parse(_read(self._names))
            if found != self._found:
                self._found = found
        return self._found


def _differs(name: str, then: object) -> bool:
    return state(name) != then
