"""What the OCI runtimes say, in the words and exit codes Docker's users know."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from wherry.runtime.oci import OCIRuntime, failure, find, preference
from wherry.runtime.types import ExitStatus, RuntimeFailure

NOT_FOUND = 'exec: "nope": executable file not found in $PATH'


@pytest.mark.parametrize(
    ("said", "command", "message", "code"),
    [
        (
            "executable file `nope` not found in $PATH: No such file or directory\n",
            ["nope"],
            NOT_FOUND,
            127,
        ),
        (
            "2026-01-02T03:04:05.678901Z: executable file `nope` not found in $PATH: No such file",
            ["nope"],
            NOT_FOUND,
            127,
        ),
        (
            "executable file `/nope` not found in $PATH: No such file or directory",
            ["/nope"],
            'exec: "/nope": stat /nope: no such file or directory',
            127,
        ),
        ("open executable: Permission denied", ["/x"], 'exec: "/x": permission denied', 126),
        (
            "chdir `/none`: No such file or directory",
            ["true"],
            'chdir to cwd ("/none") set in config.json failed: no such file or directory',
            127,
        ),
        (
            'time="2026-01-02T03:04:05Z" level=error msg="runc create failed: unable to start '
            'container process: exec: \\"nope\\": executable file not found in $PATH"',
            ["nope"],
            NOT_FOUND,
            127,
        ),
        (
            '{"level":"error","msg":"exec failed: unable to start container process: '
            'exec: \\"/x\\": permission denied","time":"2026-01-02T03:04:05Z"}',
            ["/x"],
            'exec: "/x": permission denied',
            126,
        ),
        ("cgroups: cannot find path", ["true"], "cgroups: cannot find path", 128),
        (
            "mount `/a` to `b`: Not a directory",
            ["true"],
            'error during container init: error mounting "/a" to rootfs at "/b": '
            "mount /a:/b: not a directory",
            127,
        ),
        ("", ["true"], "the OCI runtime failed without a word", 128),
    ],
)
def test_complaints(said: str, command: list[str], message: str, code: int) -> None:
    found = failure(said, command)
    assert (found.message, found.exit_code) == (message, code)


def test_a_directory_is_no_command(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for said in (
        "executable file `/etc` not found in $PATH: No such file or directory",
        "open executable: Operation not permitted",
        'runc create failed: unable to start container process: exec: "/etc": permission denied',
    ):
        found = failure(said, ["/etc"], tmp_path)
        assert (found.message, found.exit_code) == ('exec: "/etc": is a directory', 126)


def test_a_file_that_may_not_be_executed_is_there(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    said = "executable file `/plain` not found in $PATH: No such file or directory"
    found = failure(said, ["/plain"], tmp_path)
    assert (found.message, found.exit_code) == ('exec: "/plain": permission denied', 126)


def test_a_missing_runtime_is_named() -> None:
    with pytest.raises(RuntimeFailure, match="install none-such or other"):
        find(("none-such", "other"))


def test_crun_is_preferred_where_it_can_work() -> None:
    assert preference(is_v2=False, privileges=())[0] == "crun"
    assert preference(is_v2=True, privileges=("CAP_SYS_RESOURCE",))[0] == "crun"
    assert preference(is_v2=True, privileges=())[0] == "runc"


def test_state_is_looked_up_by_id(tmp_path: Path) -> None:
    runtime = OCIRuntime(Path("/usr/bin/crun"), tmp_path)
    assert runtime.command("start", "x") == ["/usr/bin/crun", f"--root={tmp_path}", "start", "x"]
    (tmp_path / "x").mkdir()
    assert not runtime.waits_for_start("x")
    (tmp_path / "x/exec.fifo").touch()
    assert runtime.waits_for_start("x")


# Like crun's ``start``, which waits at the FIFO until the container's process reads from it.
_AT_THE_FIFO = """#!/bin/sh
echo "$*" > "${1#--root=}/$3/said"
echo x > "${1#--root=}/$3/exec.fifo"
"""


async def test_the_start_of_a_process_that_was_killed_before_comes_to_an_end(
    tmp_path: Path,
) -> None:
    program = tmp_path / "crun"
    program.write_text(_AT_THE_FIFO)
    program.chmod(0o755)
    (tmp_path / "one").mkdir()
    for name in ("exec.fifo", "said"):
        os.mkfifo(tmp_path / "one" / name)
    ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
    runtime = OCIRuntime(program, tmp_path)
    starting = asyncio.create_task(runtime.start("one", ["true"], ended))
    async with asyncio.timeout(60):
        said = await asyncio.to_thread((tmp_path / "one" / "said").read_text)
        assert not starting.done()
        ended.set_result(ExitStatus("one", 137, False, 0))
        await starting
    assert said == f"--root={tmp_path} start one\n"
