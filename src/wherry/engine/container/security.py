"""What a container's processes may do: capabilities, system calls, hidden paths, privileges.

Texts are dockerd's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from wherry.engine.errors import BadParameter
from wherry.runtime import capabilities, seccomp
from wherry.runtime.bundle import MASKED_PATHS, READONLY_PATHS

_KEYS = ("label", "apparmor", "seccomp", "no-new-privileges", "writable-cgroups")
_FLAGS = ("no-new-privileges", "writable-cgroups")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def check(host: Mapping[str, Any]) -> list[str]:
    """Judge capabilities and security options; returns warnings.

    Raises:
        BadParameter: there is no such capability or option, or it has no such value.
    """
    known = {"ALL", *capabilities.ALL}
    for field in ("CapAdd", "CapDrop"):
        for name in host[field] or ():
            full = name.upper()
            if full != "ALL" and not full.startswith("CAP_"):
                full = f"CAP_{full}"
            if full not in known:
                raise BadParameter(f'invalid {field}: unknown capability: "{full}"')
    warnings = []
    for option in host["SecurityOpt"] or ():
        key, separator, value = _split(option)
        if option == "disable" or (not separator and key in _FLAGS):
            continue
        if not separator:
            raise BadParameter(f'invalid --security-opt 1: "{option}"')
        if key not in _KEYS or (key in _FLAGS and value not in (*_TRUE, *_FALSE)):
            raise BadParameter(f'invalid --security-opt 2: "{option}"')
        if key == "label" and value != "disable":
            warnings.append(f"SELinux is not available here: --security-opt {option} is discarded.")
    if "" in (host.get("Annotations") or {}):
        raise BadParameter(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    return warnings


def complete(host: dict[str, Any]) -> None:
    """Fill in, in place, what ``docker inspect`` shows of options that were left out."""
    given = host["SecurityOpt"] or []
    shares = host["Privileged"] or "host" in (host["IpcMode"], host["PidMode"])
    if shares and not any(option.startswith("label") for option in given):
        host["SecurityOpt"] = [*given, "label=disable"]
    if not host["Privileged"]:
        if host["MaskedPaths"] is None:
            host["MaskedPaths"] = list(MASKED_PATHS)
        if host["ReadonlyPaths"] is None:
            host["ReadonlyPaths"] = list(READONLY_PATHS)


def _split(option: str) -> tuple[str, str, str]:
    return option.partition("=" if "=" in option else ":")


def options(host: Mapping[str, Any]) -> dict[str, str]:
    """``--security-opt`` values by key; an option without a value is "true"."""
    found = {}
    for option in host["SecurityOpt"] or ():
        key, separator, value = _split(option)
        found[key] = value if separator else "true"
    return found


def no_new_privileges(host: Mapping[str, Any]) -> bool:
    """Whether set-user-id programs and file capabilities have no effect."""
    return options(host).get("no-new-privileges") in _TRUE


def writable_cgroups(host: Mapping[str, Any]) -> bool:
    """Whether its own groups can be changed from within."""
    return bool(host["Privileged"]) or options(host).get("writable-cgroups") in _TRUE


def chosen_capabilities(host: Mapping[str, Any], *, privileged: bool = False) -> tuple[str, ...]:
    """The set after ``--privileged``, ``--cap-add`` and ``--cap-drop``, in the kernel's order."""
    if privileged or host["Privileged"]:
        return tuple(capabilities.ALL)

    def names(values: Sequence[str] | None) -> set[str]:
        return {f"CAP_{value.upper().removeprefix('CAP_')}" for value in values or ()}

    added, dropped = names(host["CapAdd"]), names(host["CapDrop"])
    if "CAP_ALL" in added:
        chosen = set(capabilities.ALL) - dropped
    elif "CAP_ALL" in dropped:
        chosen = added
    else:
        chosen = (set(capabilities.DEFAULT) - dropped) | added
    return tuple(name for name in capabilities.ALL if name in chosen)


def confinement(
    host: Mapping[str, Any],
) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Masked and read-only paths; None stands for Docker's default lists."""
    default: Sequence[str] | None = () if host["Privileged"] else None
    masked, readonly = host["MaskedPaths"], host["ReadonlyPaths"]
    return (default if masked is None else masked), (default if readonly is None else readonly)


def seccomp_section(host: Mapping[str, Any]) -> Mapping[str, object] | None:
    """The filter of system calls; None is unconfined.

    Raises:
        BadParameter: the profile given by the client cannot be read.
    """
    chosen = options(host).get("seccomp", "")
    if chosen == "unconfined" or (host["Privileged"] and not chosen):
        return None
    granted = chosen_capabilities(host)
    if not chosen or chosen in ("builtin", "default"):
        return seccomp.default_profile(granted)
    try:
        profile = json.loads(chosen)
        return seccomp.resolve(profile, granted, os.uname().machine)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadParameter(f"Decoding seccomp profile failed: {error}") from None
