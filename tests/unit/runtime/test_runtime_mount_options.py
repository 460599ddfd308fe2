import pytest

from wherry.host import syscalls
from wherry.runtime import mount_options
from wherry.runtime.mount_options import BadOption, Options, merge_tmpfs, parse


def test_flags_are_told_from_data():
    assert parse("ro,nosuid,size=1m,fast") == Options(
        syscalls.MS_RDONLY | syscalls.MS_NOSUID, "size=1m,fast"
    )
    assert parse("ro,rw,defaults") == Options(0, "")
    assert parse("") == Options(0, "")


@pytest.mark.parametrize(
    ("options", "merged"),
    [
        (["noexec", "nosuid", "exec"], ["nosuid", "exec"]),
        (["size=1m", "mode=700", "size=2m"], ["mode=700", "size=2m"]),
        (["rprivate", "shared"], ["shared"]),
        (["ro", "rw", "defaults"], ["rw"]),
    ],
)
def test_of_contradicting_options_the_last_holds(options, merged):
    assert merge_tmpfs(options) == merged


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("foo", 'invalid tmpfs option ["foo"]'),
        ("foo=bar", 'invalid tmpfs option ["foo" "bar"]'),
    ],
)
def test_a_tmpfs_knows_few_options(option, message):
    with pytest.raises(BadOption) as caught:
        merge_tmpfs([option])
    assert str(caught.value) == message


def test_a_read_only_bind_takes_two_steps(monkeypatch):
    steps = []
    monkeypatch.setattr(syscalls, "mount", lambda *step: steps.append(step))
    mount_options.mount("/a", "/b", "none", "bind,ro,shared")
    bind, ro, again = syscalls.MS_BIND, syscalls.MS_RDONLY, syscalls.MS_REMOUNT
    assert steps == [
        ("/a", "/b", "none", bind | ro, ""),
        ("", "/b", "", 1 << 20, ""),
        ("", "/b", "", bind | ro | again, ""),
    ]


def test_a_refusal_tells_what_was_asked(monkeypatch):
    def refuse(*step):
        raise OSError(19, "No such device")

    monkeypatch.setattr(syscalls, "mount", refuse)
    with pytest.raises(mount_options.MountError) as caught:
        mount_options.mount("/a", "/b", "foofs", "ro,fast")
    assert str(caught.value) == "mount /a:/b, flags: 0x1, data: fast: no such device"
