"""Which system calls a container may make, as the OCI specification's ``linux.seccomp`` says it.

The profile is the one that Debian ships for podman and buildah. Its rules carry conditions (the
processor's architecture, capabilities of the container) that the OCI section knows nothing of; they
are decided here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from wherry.host.files import write_atomic
from wherry.runtime import capabilities as capability_sets

PROFILE = Path("/usr/share/containers/seccomp.json")
ANNOTATION = "run.oci.seccomp_bpf_data"

# What the profile, after Go, calls the machine, and what libseccomp calls it.
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
}


def default_profile(
    capabilities: Collection[str] = capability_sets.DEFAULT,
) -> Mapping[str, object] | None:
    """The section for a container that has ``capabilities``; None where the profile is missing.

    The same object is returned for the same capabilities: it must not be changed.
    """
    return _default_profile(frozenset(capabilities), PROFILE)


@lru_cache(maxsize=16)
def _default_profile(capabilities: frozenset[str], path: Path) -> Mapping[str, object] | None:
    try:
        profile = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return resolve(profile, capabilities, platform.machine())


def resolve(
    profile: Mapping[str, Any], capabilities: Collection[str], machine: str
) -> Mapping[str, object]:
    """Decide the conditions of ``profile`` and keep what the OCI specification defines.

    Rules with the same action and without arguments are joined: the runtime compiles the filter at
    each start of a container, and its time goes with the number of rules.
    """
    go_name, native = _ARCHITECTURES.get(machine, (machine, ""))
    section: dict[str, object] = {"defaultAction": profile["defaultAction"]}
    if "defaultErrnoRet" in profile:
        section["defaultErrnoRet"] = profile["defaultErrnoRet"]
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == native:
            section["architectures"] = [native, *(entry.get("subArchitectures") or ())]
    plain: dict[tuple[str, int | None], dict[str, Any]] = {}
    with_arguments: list[dict[str, Any]] = []
    for rule in profile.get("syscalls") or ():
        if not _applies(rule, capabilities, go_name):
            continue
        names = rule.get("names") or [rule["name"]]
        if arguments := rule.get("args"):
            with_arguments.append(_rule(rule, names) | {"args": _arguments(arguments)})
            continue
        joined = plain.setdefault((rule["action"], rule.get("errnoRet")), _rule(rule, ()))
        joined["names"].extend(names)
    section["syscalls"] = [*plain.values(), *with_arguments]
    return section


class CompiledFilters:
    """Filters that crun has compiled, to be given to it again.

    To compile the default profile takes some 15 ms, more than all the rest of a start. crun keeps
    the result with the container; given back as an annotation (crun(1),
    ``run.oci.seccomp_bpf_data``) it is used in place of the section. A runtime that does not know
    the annotation compiles the section as ever. ``directory`` must be our own alone: what is in it
    decides what containers may do.
    """

    def __init__(self, directory: Path, program: Path) -> None:
        self._directory = directory
        self._compiler = str(program.stat().st_mtime_ns).encode()
        self._known: dict[str, str] = {}

    def _key(self, section: Mapping[str, object]) -> str:
        return hashlib.sha256(orjson.dumps(section) + self._compiler).hexdigest()

    def annotations(self, section: Mapping[str, object]) -> dict[str, str]:
        """What to add to the annotations of a container with ``section``."""
        key = self._key(section)
        if key not in self._known:
            try:
                compiled = (self._directory / key).read_bytes()
            except FileNotFoundError:
                return {}
            self._known[key] = base64.b64encode(compiled).decode()
        return {ANNOTATION: self._known[key]}

    def learn(self, section: Mapping[str, object], state: Path) -> None:
        """Keep the filter of a container just created; ``state`` is crun's directory for it."""
        if (key := self._key(section)) in self._known:
            return
        try:
            compiled = (state / "seccomp.bpf").read_bytes()
        except FileNotFoundError:
            return  # a runtime that does not keep it
        self._directory.mkdir(mode=0o700, exist_ok=True)
        write_atomic(self._directory / key, compiled, durable=False)


def _applies(rule: Mapping[str, Any], capabilities: Collection[str], architecture: str) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if (wanted := includes.get("arches")) and architecture not in wanted:
        return False
    if (wanted := includes.get("caps")) and not all(name in capabilities for name in wanted):
        return False
    if architecture in (excludes.get("arches") or ()):
        return False
    return not any(name in capabilities for name in excludes.get("caps") or ())


def _rule(rule: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"names": list(names), "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        out["errnoRet"] = rule["errnoRet"]
    return out


def _arguments(arguments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: argument[key] for key in ("index", "value", "valueTwo", "op") if key in argument}
        for argument in arguments
    ]
