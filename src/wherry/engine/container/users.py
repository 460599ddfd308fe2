"""Who ``--user`` means: names and numbers looked up in the image's own passwd and group.

The rules are those of runc's user package: a number needs no entry; a name does; without a group,
the user's own group and those that list the user as a member apply.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wherry.engine.container import confined
from wherry.engine.container.container import Container
from wherry.engine.errors import BadParameter
from wherry.runtime.types import User

_MAXIMUM = (1 << 31) - 1
# The annotation of a container that gets no groups from its image's /etc/group.
STRICT_GROUPS = "io.wherry.strict-groups"


@dataclass(frozen=True, slots=True)
class Account:
    """A resolved user and its home directory."""

    user: User
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _Passwd:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: Sequence[str]


def account_of(container: Container, user: str = "") -> Account:
    """Who runs in ``container``; ``user`` in the place of its own.

    Raises:
        BadParameter: there is no such user or group.
    """
    host = container.host_config
    account = resolve(container.rootfs, user or container.config["User"], host["GroupAdd"] or ())
    if STRICT_GROUPS not in (host.get("Annotations") or {}):
        return account
    named = tuple(int(group) for group in host["GroupAdd"] or ())
    groups = tuple(dict.fromkeys((account.user.gid, *named)))
    return replace(account, user=replace(account.user, additional_gids=groups))


def resolve(rootfs: Path, text: str, additional: Sequence[str] = ()) -> Account:
    """The account of ``text`` (``user``, ``uid``, ``user:group`` …) in the image at ``rootfs``.

    ``additional`` are the groups of ``--group-add``.

    Raises:
        BadParameter: a name has no entry, or a number is out of range.
    """
    passwd = _read(rootfs, "/etc/passwd")
    # The group file is long on some systems and mostly not needed.
    return look_up(text, additional, passwd, _read(rootfs, "/etc/group"))


def _read(rootfs: Path, path: str) -> str:
    return (confined.read_file(rootfs, path) or b"").decode("utf-8", "replace")


def look_up(text: str, additional: Sequence[str], passwd_file: str, group_file: str) -> Account:
    """As ``resolve``, from the contents of the two files."""
    users, groups = _parse_passwd(passwd_file), _parse_group(group_file)
    wanted, _, wanted_group = text.partition(":")
    wanted = wanted or "0"
    entry = next((u for u in users if u.name == wanted or str(u.uid) == wanted), None)
    if entry is None:
        if not re.fullmatch(r"-?[0-9]+", wanted):
            raise BadParameter(f"unable to find user {wanted}: no matching entries in passwd file")
        entry = _Passwd("", _number(wanted), 0, "/")
    gid = entry.gid
    extra: list[int] = []
    if wanted_group:
        gid = _find_group(wanted_group, groups)
    elif entry.name:
        extra = [g.gid for g in groups if entry.name in g.members and g.gid != gid]
    for name in additional:
        number = _find_group(name, groups)
        if number not in extra:
            extra.append(number)
    # The own group is among them, as otherwise a file that denies it something would be open.
    return Account(User(entry.uid, gid, tuple(dict.fromkeys((gid, *extra)))), entry.home or "/")


def _find_group(wanted: str, groups: Sequence[_Group]) -> int:
    for group in groups:
        if group.name == wanted or str(group.gid) == wanted:
            return group.gid
    if wanted.isdigit():
        return _number(wanted)
    raise BadParameter(f"unable to find group {wanted}: no matching entries in group file")


def _number(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MAXIMUM:
        raise BadParameter(f"uids and gids must be in range 0-{_MAXIMUM}")
    return value


def _lines(text: str) -> list[list[str]]:
    return [
        line.strip().split(":")
        for line in text.splitlines()
        if line.strip() and not line.startswith("#")
    ]


def _parse_passwd(text: str) -> list[_Passwd]:
    return [
        _Passwd(parts[0], int(parts[2]), int(parts[3]), parts[5] if len(parts) > 5 else "/")
        for parts in _lines(text)
        if len(parts) >= 4 and parts[2].isdigit() and parts[3].isdigit()
    ]


def _parse_group(text: str) -> list[_Group]:
    return [
        _Group(parts[0], int(parts[2]), [m for m in parts[3].split(",") if m])
        for parts in _lines(text)
        if len(parts) >= 4 and parts[2].isdigit()
    ]
