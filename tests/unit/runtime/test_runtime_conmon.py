"""How we speak with conmon, and what we keep of it for a later daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.runtime import conmon
from wherry.runtime.oci import OCIRuntime

MONITOR = conmon.Monitor(
    pid=7,
    cgroup="/wherry0/x",
    terminal=False,
    stdin_open=True,
    stdin_once=True,
    shares_pids=False,
    command=["cat"],
    rootfs="/r",
)


def arguments(**changes: object) -> list[str]:
    options: dict[str, object] = {
        "id": "a" * 64,
        "bundle": Path("/run/b"),
        "exits": Path("/state/exits"),
        "log_path": Path("/log"),
        "terminal": False,
        "stdin_open": False,
        "stdin_once": False,
    }
    runtime = OCIRuntime(Path("/usr/bin/crun"), Path("/run/oci"))
    return conmon.arguments(Path("/usr/bin/conmon"), runtime, **(options | changes))  # type: ignore[arg-type]


def test_the_command_line_names_what_belongs_to_the_container() -> None:
    made = arguments()
    for words in (
        ["--bundle", "/run/b"],
        ["--exit-dir", "/state/exits"],
        ["--log-path", "k8s-file:/log"],
        ["--runtime", "/usr/bin/crun"],
    ):
        assert made[made.index(words[0]) + 1] == words[1]
    assert "--runtime-arg=--root=/run/oci" in made
    assert "--stdin" not in made


def test_without_a_log_there_is_none() -> None:
    made = arguments(log_path=None)
    assert made[made.index("--log-path") + 1] == "off:"


@pytest.mark.parametrize(
    ("terminal", "once", "stays_open"),
    [(False, True, False), (False, False, True), (True, True, True)],
)
def test_input_ends_with_its_client_only_without_a_terminal_and_once(
    terminal: bool, once: bool, stays_open: bool
) -> None:
    made = arguments(stdin_open=True, terminal=terminal, stdin_once=once)
    assert "--stdin" in made
    assert ("--leave-stdin-open" in made) is stays_open
    assert ("--terminal" in made) is terminal


@pytest.mark.parametrize(
    ("data", "parsed"),
    [
        (b'{"data": 123}\n', (123, "")),
        (b'{"pid": 123}\n', (123, "")),
        (b'{"data": -1, "message": "no\tway"}\n', (-1, "no\tway")),
        (b"", (-1, "")),
        (b"not json\n", (-1, "not json")),
    ],
)
def test_the_sync_pipe_tells_the_pid_or_why_there_is_none(
    data: bytes, parsed: tuple[int, str]
) -> None:
    assert conmon.parse_sync(data) == parsed


def test_a_size_is_told_as_height_and_width() -> None:
    assert conmon.resize_command(80, 24) == b"1 24 80\n"


def test_a_monitor_is_found_again(tmp_path: Path) -> None:
    assert conmon.Monitor.load(tmp_path) is None
    MONITOR.save(tmp_path)
    assert conmon.Monitor.load(tmp_path) == MONITOR
