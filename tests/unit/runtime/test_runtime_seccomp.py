"""The seccomp profile's conditions are decided, and compiled filters are used again."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from wherry.runtime import capabilities, seccomp

PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": []},
        {"names": ["bdflush"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["arm_only"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["mount"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ", "x": 1}],
        },
    ],
}


def rules(section: Any) -> set[tuple[str, str]]:
    return {(name, rule["action"]) for rule in section["syscalls"] for name in rule["names"]}


def test_conditions_are_decided() -> None:
    section = seccomp.resolve(PROFILE, (), "x86_64")
    assert section["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert section["defaultErrnoRet"] == 38
    assert ("mount", "SCMP_ACT_ERRNO") in rules(section)
    assert ("arm_only", "SCMP_ACT_ALLOW") not in rules(section)
    section = seccomp.resolve(PROFILE, ("CAP_SYS_ADMIN",), "aarch64")
    assert ("mount", "SCMP_ACT_ALLOW") in rules(section)
    assert ("mount", "SCMP_ACT_ERRNO") not in rules(section)
    assert ("arm_only", "SCMP_ACT_ALLOW") in rules(section)
    assert section["architectures"] == ["SCMP_ARCH_AARCH64"]


def test_equal_rules_are_joined_but_not_those_with_arguments() -> None:
    section: Any = seccomp.resolve(PROFILE, (), "x86_64")
    plain = [rule for rule in section["syscalls"] if "args" not in rule]
    assert [rule["names"] for rule in plain] == [["read", "write"], ["bdflush", "mount"]]
    (argument,) = section["syscalls"][-1]["args"]
    assert argument == {"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}


def test_a_missing_profile_is_none(tmp_path: Path) -> None:
    assert seccomp._default_profile(frozenset(capabilities.DEFAULT), tmp_path / "none") is None


def test_a_compiled_filter_is_used_again_also_by_a_later_daemon(tmp_path: Path) -> None:
    program, state, cache = tmp_path / "crun", tmp_path / "state", tmp_path / "cache"
    program.touch()
    state.mkdir()
    section = seccomp.resolve(PROFILE, (), "x86_64")
    filters = seccomp.CompiledFilters(cache, program)
    assert filters.annotations(section) == {}
    filters.learn(section, state)
    assert filters.annotations(section) == {}
    (state / "seccomp.bpf").write_bytes(b"compiled")
    filters.learn(section, state)
    expected = {seccomp.ANNOTATION: base64.b64encode(b"compiled").decode()}
    assert filters.annotations(section) == expected
    assert seccomp.CompiledFilters(cache, program).annotations(section) == expected
    other = seccomp.resolve(PROFILE, ("CAP_SYS_ADMIN",), "x86_64")
    assert filters.annotations(other) == {}
    program.write_text("a newer one")
    assert seccomp.CompiledFilters(cache, program).annotations(section) == {}


def test_names_of_capabilities_follow_their_numbers() -> None:
    assert capabilities.from_mask(0b1001) == {"CAP_CHOWN", "CAP_FOWNER"}
    assert len(capabilities.DEFAULT) == 14
    assert capabilities.from_mask(0x00000000A80425FB) == set(capabilities.DEFAULT)


def test_new_namespaces_need_the_capability_for_them() -> None:
    loose = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "unshare", "clone", "clone3", "keyctl"], "action": "SCMP_ACT_ALLOW"}
        ],
    }
    tight = seccomp.dockers(loose)
    plain = rules(seccomp.resolve(tight, (), "x86_64"))
    assert ("read", "SCMP_ACT_ALLOW") in plain
    assert ("unshare", "SCMP_ACT_ERRNO") in plain and ("unshare", "SCMP_ACT_ALLOW") not in plain
    assert ("clone3", "SCMP_ACT_ERRNO") in plain
    assert ("clone", "SCMP_ACT_ALLOW") in plain  # that makes no namespace
    strong = rules(seccomp.resolve(tight, ("CAP_SYS_ADMIN",), "x86_64"))
    assert {("unshare", "SCMP_ACT_ALLOW"), ("clone3", "SCMP_ACT_ALLOW")} <= strong
    assert ("unshare", "SCMP_ACT_ERRNO") not in strong
    assert ("keyctl", "SCMP_ACT_ALLOW") not in strong


def test_a_rule_may_ask_for_a_kernel() -> None:
    def rule(version: str) -> dict[str, Any]:
        return {"names": ["x"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": version}}

    for version, there in (("2.6", True), ("99.0", False)):
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(version)]}
        assert bool(rules(seccomp.resolve(profile, (), "x86_64"))) is there
