"""Tables of iptables that others use, too: ours are the chains of one beginning, theirs all else.

By the programs that keep such tables in nftables (Debian's package iptables): what is there can be
looked at without them, and an empty table of theirs can be taken away. iptables-restore(8).
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from wherry.net.nftables.elements import Table
from wherry.net.nftables.nft import NftError
from wherry.net.service.iptables.chains import TABLES, Chain, Names, Rules

PROGRAMS = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}
PACKAGE = "iptables"


def missing() -> str:
    """What must be installed, as a sentence; empty when all is there."""
    for program in PROGRAMS.values():
        if shutil.which(f"{program}-restore") is None:
            return f"{program}-restore is not installed (Debian package {PACKAGE})"
    return ""


@dataclass(slots=True)
class Listed:
    """The chains of one family."""

    chains: set[Chain] = field(default_factory=set)  # without those of the kernel's hooks
    rules: dict[Chain, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Change:
    """What is to become of the chains of one family.

    ``whole`` are written anew, ``added`` (at the end, or ``inserted`` at the beginning) and ``cut``
    are single rules of others, ``gone`` are chains to take away.
    """

    whole: dict[Chain, Rules] = field(default_factory=dict)
    cut: list[tuple[Chain, str]] = field(default_factory=list)
    added: list[tuple[Chain, str]] = field(default_factory=list)
    inserted: list[tuple[Chain, str]] = field(default_factory=list)
    gone: set[Chain] = field(default_factory=set)

    def script(self) -> str:
        """The same for iptables-restore, which takes each table as one transaction."""
        # What is not refused any more is translated first, what is not translated any more
        # refused first: either way it meets one of the two.
        return "".join(_table(self, table) for table in reversed(TABLES))


def _table(change: Change, table: str) -> str:
    lines: list[str] = []
    own = [(name, rules) for (at, name), rules in change.whole.items() if at == table]
    gone = sorted(name for at, name in change.gone if at == table)
    # Last names first: the program puts each into a sorted list, walking from its front.
    names = sorted([name for name, _ in own] + gone, reverse=True)
    lines += [f":{name} - [0:0]" for name in names]
    lines += [f"-A {name} {rule}" for name, rules in own for rule in rules]
    for verb, some in (("-A", change.added), ("-I", change.inserted), ("-D", change.cut)):
        lines += [f"{verb} {name} {rule}" for (at, name), rule in some if at == table]
    lines += [f"-X {name}" for name in gone]
    return "\n".join([f"*{table}", *lines, "COMMIT\n"]) if lines else ""


def apply(family: str, script: str) -> None:
    """Make ``script`` true, besides what others have there (blocking).

    Raises:
        NftError: it was refused, the table concerned is as it was.
        OSError: there is no such program.
    """
    argv = [f"{PROGRAMS[family]}-restore", "--noflush", "--wait", "30"]
    done = subprocess.run(argv, input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NftError(done.stderr.strip() or f"{argv[0]} ended with {done.returncode}")


def read(family: str, names: Names) -> Listed:
    """Our chains, their rules, and those of others that lead to them (blocking).

    Raises:
        NftError, OSError: they cannot be read.
    """
    found = Listed()
    for table in TABLES:
        argv = [f"{PROGRAMS[family]}-save", "-t", table]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NftError(done.stderr.strip() or f"{argv[0]} ended with {done.returncode}")
        for name, rule in _saved(done.stdout):
            if not rule and names.has(name):
                found.chains.add((table, name))
            elif rule and (names.has(name) or names.has(_target(rule))):
                found.rules.setdefault((table, name), []).append(rule)
    return found


def _saved(text: str) -> Iterator[tuple[str, str]]:
    """The chains that are declared, without a rule, and the rules."""
    for line in text.splitlines():
        if line.startswith(":"):
            yield line[1:].split(" ", 1)[0], ""
        elif line.startswith("-A "):
            _, name, rule = line.split(" ", 2)
            yield name, rule


def _target(rule: str) -> str:
    found = re.search(r"(?:^| )-[jg] (\S+)", re.sub(r'"(\\.|[^"\\])*"', '""', rule))
    return found.group(1) if found else ""


def present(family: str, names: Names) -> bool:
    """Whether there are chains of ours; what others call the same is none (blocking).

    Raises:
        OSError: the kernel refuses.
    """
    return names.owner in _chains(family)


def check_owner(family: str, names: Names) -> None:
    """See to it that chains of our names are ours (blocking).

    Raises:
        NftError: they are another proxy's.
        OSError: the kernel refuses.
    """
    there = _chains(family)
    if names.of("SERVICES") in there and names.owner not in there:
        raise NftError(
            f"another kube-proxy has chains of iptables on this machine ({names.of('SERVICES')}): "
            "stop it and remove them, or choose another mode"
        )


def _chains(family: str) -> set[str]:
    return {chain for table in TABLES for chain in Table(table).chains(family)}


def link_of(rule: str) -> str:
    """The link by which packets come in that a rule is about; empty for all."""
    found = re.match(r"(?:.* )?-i (\S+) ", rule)
    return found.group(1) if found else ""


def leading(listed: Listed, names: Names) -> list[tuple[Chain, str]]:
    """The rules of others' chains that lead to ours."""
    return [
        (chain, rule)
        for chain, rules in listed.rules.items()
        if not names.has(chain[1])
        for rule in rules
    ]


def clear(family: str, names: Names) -> None:
    """Take all of ours away, and what is empty then (blocking).

    Raises:
        NftError, OSError: it was refused.
    """
    if not present(family, names):
        return
    listed = read(family, names)
    apply(family, Change(cut=leading(listed, names), gone=set(listed.chains)).script())
    for table in TABLES:
        left = Table(table).chains(family)
        if left <= _HOOKS[table]:
            # One with a rule or a policy in it stays, and so does its table.
            for name in sorted(left):
                with contextlib.suppress(NftError):
                    apply(family, f"*{table}\n-X {name}\nCOMMIT\n")
            Table(table).remove_empty(family)


_HOOKS = {
    "filter": {"INPUT", "FORWARD", "OUTPUT"},
    "nat": {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
}
