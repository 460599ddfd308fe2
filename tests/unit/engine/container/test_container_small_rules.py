import signal

import pytest

from wherry.engine.container import detach, processes, restart, signals
from wherry.engine.container.failure import exec_error, start_error
from wherry.engine.errors import BadParameter, EngineError
from wherry.runtime.types import RuntimeFailure


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", signal.SIGRTMIN + 3), ("RTMAX", 64)],
)
def test_signals_by_name_and_number(text, number):
    assert signals.parse(text) == number


@pytest.mark.parametrize("text", ["FOO", "0", "65", "-9", "RTMIN+99", "SIG"])
def test_what_is_no_signal_is_refused(text):
    with pytest.raises(BadParameter, match="invalid signal"):
        signals.parse(text)


def test_detach_keys_by_name():
    assert detach.parse("") == detach.DEFAULT == b"\x10\x11"
    assert detach.parse("ctrl-a,d") == b"\x01d"
    assert detach.parse("ctrl-@") == b"\0"
    with pytest.raises(BadParameter):
        detach.parse("ctrl-1")


def test_typing_passes_until_the_keys_are_complete():
    keys = detach.DetachFilter(b"\x10\x11")
    assert keys.feed(b"ls\x10") == (b"ls", False)
    assert keys.feed(b"x") == (b"\x10x", False)
    assert keys.feed(b"a\x10\x10") == (b"a\x10", False)
    assert keys.feed(b"\x11rest") == (b"", True)


def wanted(name, *, code=1, stopped=False, restarts=0, most=0, may_go_on=True):
    policy = {"Name": name, "MaximumRetryCount": most}
    return restart.wanted(
        policy,
        exit_code=code,
        stopped_by_user=stopped,
        restarts=restarts,
        may_go_on=may_go_on,
    )


def test_restart_policies():
    assert not wanted("no")
    assert wanted("always", code=0)
    assert wanted("on-failure") and not wanted("on-failure", code=0)
    assert wanted("on-failure", most=2, restarts=1) and not wanted("on-failure", most=2, restarts=2)
    assert not wanted("always", may_go_on=False)


def test_a_signal_that_was_no_request_to_end_stops_only_what_is_restarted_unless_stopped():
    assert wanted("always", stopped=True)
    assert not wanted("unless-stopped", stopped=True)
    assert wanted("on-failure", stopped=True)


def test_at_boot_always_means_always_and_unless_stopped_what_it_says():
    def at_boot(name):
        return restart.wanted_at_boot({"Name": name}, exit_code=0, stopped_by_user=True, restarts=0)

    assert at_boot("always")
    assert not at_boot("unless-stopped")


def test_the_back_off_doubles_to_a_minute_and_starts_over_after_a_good_run():
    delays = [restart.next_delay(0, 0.1)]
    while delays[-1] < 60:
        delays.append(restart.next_delay(delays[-1], 0.1))
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays[-1] == 60
    assert restart.next_delay(60, 11) == 0.1


def test_a_missing_command_is_told_in_the_words_the_client_looks_for():
    failure = RuntimeFailure('exec: "nope": executable file not found in $PATH', 127)
    error = start_error(failure)
    assert isinstance(error, BadParameter)
    assert error.message == (
        "failed to create task for container: failed to create shim task: OCI runtime create "
        "failed: runc create failed: unable to start container process: "
        'exec: "nope": executable file not found in $PATH: unknown'
    )
    assert exec_error(failure).message.startswith("OCI runtime exec failed: exec failed: ")


def test_a_failure_of_the_runtime_is_none_of_the_request():
    assert type(start_error(RuntimeFailure("cgroup: no space"))) is EngineError


PS = "UID PID PPID CMD\nroot 10 1 sleep 100\nroot 20 1 sh -c x y\n"


def test_top_shows_the_container_s_processes_only():
    table = processes.parse(PS, {20})
    assert table == {
        "Titles": ["UID", "PID", "PPID", "CMD"],
        "Processes": [["root", "20", "1", "sh -c x y"]],
    }


def test_top_needs_the_pid():
    with pytest.raises(EngineError, match="Couldn't find PID field in ps output"):
        processes.parse("CMD\nsh\n", {1})
    with pytest.raises(BadParameter):
        processes.check("-o pid=x")
