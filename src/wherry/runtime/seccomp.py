"""Which system calls a container may make, as the OCI specification's ``linux.seccomp`` says it.

The profile is the one that Debian ships for podman and buildah, tightened to what Docker allows
(``dockers``): those want containers in containers. The rules carry conditions (the processor's
architecture, capabilities of the container) that the OCI section knows nothing of; they are decided
here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import re
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
    return resolve(dockers(profile), capabilities, platform.machine())


# Which capability Docker asks for these, any of them where there are several; none is enough for
# the last. (Nobody needs a capability to make a user namespace, and most holes in the kernel are
# reached from within one.)
_RESERVED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("CAP_SYS_ADMIN",): (
        *("clone", "clone3", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr"),
        *("move_mount", "name_to_handle_at", "open_tree", "setns", "umount", "umount2", "unshare"),
    ),
    ("CAP_SYS_ADMIN", "CAP_SYSLOG"): ("syslog",),
    ("CAP_SYS_BOOT",): ("reboot",),
    ("CAP_SYS_NICE",): ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    ("CAP_SYS_PTRACE",): ("pidfd_getfd", "process_vm_readv", "process_vm_writev"),
    (): ("keyctl", "pivot_root"),
}
_ALLOWED_AS_WELL = ("futex_waitv", "io_pgetevents", "io_pgetevents_time64", "vmsplice")
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of clone(2).
_NEW_NAMESPACES = 0x7E020000
_EPERM, _ENOSYS = 1, 38


def dockers(profile: Mapping[str, Any]) -> dict[str, Any]:
    """``profile`` with its rules tightened to Docker's.

    A process without CAP_SYS_ADMIN may call clone(2) as long as it makes no namespace. It is told
    that there is no clone3(2), whose flags a filter cannot see; the C library then uses the other.
    """
    reserved = {name for names in _RESERVED.values() for name in names}
    taken = reserved | set(_ALLOWED_AS_WELL)
    rules = []
    for rule in profile["syscalls"]:
        names = [name for name in rule.get("names") or [rule["name"]] if name not in taken]
        if names:
            rules.append({**rule, "names": names})
    allow, refuse = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
    rules.append({"names": list(_ALLOWED_AS_WELL), "action": allow})
    for granting, calls in _RESERVED.items():
        without = [name for name in calls if name not in ("clone", "clone3")]
        for capability in granting:
            rules.append(
                {"names": list(calls), "action": allow, "includes": {"caps": [capability]}}
            )
        excludes = {"caps": list(granting)}
        rules.append({"names": without, "action": refuse, "errnoRet": _EPERM, "excludes": excludes})
    harmless = {"index": 0, "value": _NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    excludes = {"caps": ["CAP_SYS_ADMIN"]}
    rules.append({"names": ["clone"], "action": allow, "args": [harmless], "excludes": excludes})
    rules.append({"names": ["clone3"], "action": refuse, "errnoRet": _ENOSYS, "excludes": excludes})
    return {**profile, "syscalls": rules}


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
    if "archMap" in profile and "architectures" in profile:
        raise ValueError("use either 'architectures' or 'archMap'")
    for name in ("architectures", "flags"):
        if profile.get(name):
            section[name] = list(profile[name])
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
        status = program.stat()  # two that were written in one tick of the clock differ in size
        self._compiler = f"{status.st_mtime_ns} {status.st_size} {status.st_ino}".encode()
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
    if any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    least, less = includes.get("minKernel"), excludes.get("minKernel")
    if least and kernel_release() < _release(least):
        return False
    return not (less and kernel_release() >= _release(less))


def kernel_release() -> tuple[int, int]:
    """The version of the running kernel, its first two numbers."""
    return _release(platform.release())


def _release(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    if not match:
        raise ValueError(f"{text} is no version of a kernel")
    return int(match[1]), int(match[2])


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
