"""Files of environment variables that ``fileKeyRef`` reads. No I/O.

A strict part of the shell's syntax: ``NAME='value'``, the value in single quotes and taken as it
is, over several lines if need be. Follows ParseEnv of pkg/kubelet/util/env and
https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-via-file/.
"""

from __future__ import annotations

_BLANK = " \t"


class EnvFileFault(Exception):
    """The file is not of this form; ``str()`` says where and why."""


def find(text: str, key: str) -> str | None:
    """The value of ``key``, the first where there are several; None where there is none.

    Lines behind it are not looked at. ``NAME= 'x'`` is empty, as to a shell.

    Raises:
        EnvFileFault: a line up to the key is no assignment.
    """
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        line = line.removesuffix("\r").lstrip(_BLANK)
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        _check_name(name, equals, number)
        if value[:1] in tuple(_BLANK):
            found = ""
        elif not value.startswith("'"):
            raise _fault(number, "value must be enclosed in single quotes")
        else:
            found, quote, behind = value[1:].partition("'")
            while not quote:
                last, line = next(lines, (0, ""))
                if not last:
                    raise EnvFileFault(
                        "invalid environment variable format starting at line "
                        f"{number}: unclosed single quote"
                    )
                more, quote, behind = line.partition("'")
                found += "\n" + more
                if quote:
                    number = last
            behind = behind.strip(_BLANK + "\r")
            if behind and not behind.startswith("#"):
                raise _fault(number, "unexpected content after closing quote")
        if name == key:
            return found
    return None


def _check_name(name: str, equals: str, number: int) -> None:
    if not equals:
        raise _fault(number, "missing '='")
    if not name.strip(_BLANK):
        raise _fault(number, "empty variable name")
    if name != name.rstrip(_BLANK):
        raise _fault(number, "whitespace before '=' is not allowed")


def _fault(number: int, why: str) -> EnvFileFault:
    return EnvFileFault(f"invalid environment variable format at line {number}: {why}")
