"""States of containers, by the real client."""

import json
import time

import pytest
from docker_harness import until

pytest_plugins = ("docker_fixtures",)


def run(engine, name, *command, options=()):
    return engine.docker(
        "run", "-d", "--name", name, *options, "busybox", *(command or ("sleep", "100"))
    ).out.strip()


def state(engine, name):
    return engine.inspect(name, "{{.State.Status}}")


def test_created_running_paused_exited_removed(engine):
    engine.docker("create", "--name", "web", "busybox", "sleep", "100")
    assert state(engine, "web") == "created"
    engine.docker("start", "web")
    assert state(engine, "web") == "running"
    engine.docker("pause", "web")
    assert state(engine, "web") == "paused"
    engine.docker("unpause", "web")
    engine.docker("kill", "web")
    assert state(engine, "web") == "exited"
    assert engine.inspect("web", "{{.State.ExitCode}}") == "137"
    engine.docker("rm", "web")
    assert "No such container: web" in engine.docker("rm", "web", ok=False).err


def test_stop_asks_first_and_kills_then(engine):
    trap = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    run(engine, "polite", "sh", "-c", trap)
    until(lambda: engine.docker("logs", "polite").out)
    engine.docker("stop", "polite")
    assert engine.inspect("polite", "{{.State.ExitCode}}") == "5"
    run(engine, "deaf", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    until(lambda: engine.docker("logs", "deaf").out)
    began = time.monotonic()
    engine.docker("stop", "-t", "1", "deaf")
    assert time.monotonic() - began > 0.9
    assert engine.inspect("deaf", "{{.State.ExitCode}}") == "137"


def test_the_stop_signal_may_be_another(engine):
    trap = "trap 'exit 6' USR1; echo ready; while :; do sleep 0.1; done"
    run(engine, "other", "sh", "-c", trap, options=("--stop-signal", "USR1"))
    until(lambda: engine.docker("logs", "other").out)
    engine.docker("stop", "other")
    assert engine.inspect("other", "{{.State.ExitCode}}") == "6"


def test_a_paused_container_can_be_stopped_and_removed(engine):
    run(engine, "one")
    engine.docker("pause", "one")
    engine.docker("stop", "-t", "1", "one")
    assert state(engine, "one") == "exited"
    run(engine, "two")
    engine.docker("pause", "two")
    engine.docker("rm", "-f", "two")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (
            ("rm", "web"),
            'cannot remove container "/web": container is running: stop the container '
            "before removing or force remove",
        ),
        (("unpause", "web"), "is not paused"),
        (("rename", "web", "web"), "Renaming a container with the same name as its current name"),
        (("kill", "-s", "NOPE", "web"), "invalid signal: NOPE"),
        (("stop", "nope"), "No such container: nope"),
        (("exec", "web", "nope"), 'exec: "nope": executable file not found in $PATH: unknown'),
        (("port", "web", "99"), "No public port '99' published for web"),
    ],
)
def test_refusals_are_worded_as_docker_words_them(engine, command, text):
    run(engine, "web")
    done = engine.docker(*command, ok=False)
    assert done.code != 0
    assert text in done.err + done.out


def test_killing_what_does_not_run_is_refused(engine):
    id = engine.docker("create", "--name", "web", "busybox").out.strip()
    done = engine.docker("kill", "web", ok=False)
    assert f"cannot kill container: web: container {id} is not running" in done.err


def test_starting_twice_and_stopping_twice_is_no_error(engine):
    run(engine, "web")
    engine.docker("start", "web")
    engine.docker("stop", "-t", "0", "web")
    engine.docker("stop", "web")


def test_wait_gives_the_exit_code(engine):
    run(engine, "job", "sh", "-c", "sleep 0.3; exit 9")
    assert engine.docker("wait", "job").out.strip() == "9"
    assert engine.docker("wait", "job").out.strip() == "9"


def test_a_container_keeps_its_files_over_a_restart(engine):
    run(engine, "web", "sh", "-c", "echo x >> /count; sleep 100")
    until(lambda: engine.docker("exec", "web", "cat", "/count", ok=False).out == "x\n")
    engine.docker("restart", "-t", "0", "web")
    until(lambda: engine.docker("exec", "web", "cat", "/count", ok=False).out == "x\nx\n")


def test_start_attached_shows_the_output_of_this_run(engine):
    engine.docker("create", "--name", "job", "busybox", "sh", "-c", "echo hi; exit 3")
    for _ in range(2):
        done = engine.docker("start", "-a", "job", ok=False)
        assert (done.code, done.out) == (3, "hi\n")


def test_a_renamed_container_is_found_by_its_new_name_only(engine):
    id = run(engine, "old")
    engine.docker("rename", "old", "new")
    assert engine.inspect("new", "{{.Id}}") == id
    assert engine.docker("inspect", "old", ok=False).code != 0
    run(engine, "old")


def test_on_failure_restarts_as_often_as_said(engine):
    run(engine, "flaky", "false", options=("--restart", "on-failure:2"))
    until(lambda: state(engine, "flaky") == "exited")
    assert engine.inspect("flaky", "{{.RestartCount}} {{.State.ExitCode}}") == "2 1"


def test_a_stopped_container_is_not_restarted(engine):
    run(engine, "always", options=("--restart", "always"))
    engine.docker("kill", "always")
    time.sleep(0.5)
    assert state(engine, "always") == "exited"


def test_always_restarts_what_ends_by_itself(engine):
    run(engine, "always", "sleep", "0.2", options=("--restart", "always"))
    until(lambda: int(engine.inspect("always", "{{.RestartCount}}")) >= 2)
    engine.docker("stop", "always")
    assert state(engine, "always") == "exited"


def test_rm_removes_a_container_that_waits_for_its_restart(engine):
    run(engine, "flaky", "false", options=("--restart", "always"))
    until(lambda: state(engine, "flaky") == "restarting")
    engine.docker("rm", "-f", "flaky")
    assert engine.docker("ps", "-aq").out == ""


def test_nothing_is_held_by_what_does_not_run(engine):
    run(engine, "job", "true", options=("-p", "80"))
    engine.docker("wait", "job")
    assert engine.holdings()["containers"]

    def held():
        return [values for kind, values in engine.holdings().items() if kind != "containers"]

    until(lambda: not any(held()))


def test_logs_by_stream_tail_time_and_following(engine):
    script = "echo one; echo two >&2; sleep 1.1; echo three"
    run(engine, "job", "sh", "-c", script)
    followed = engine.docker("logs", "-f", "job")
    assert (followed.out, followed.err) == ("one\nthree\n", "two\n")
    assert engine.docker("logs", "--tail", "1", "job").out == "three\n"
    stamped = engine.docker("logs", "-t", "job").out.splitlines()
    moment, text = stamped[-1].split(" ", 1)
    assert text == "three"
    assert engine.docker("logs", "--since", moment, "job").out == "three\n"
    assert engine.docker("logs", "--until", stamped[0].split(" ", 1)[0], "job").out == "one\n"


def test_following_a_quiet_log_ends_with_the_container(engine):
    run(engine, "quiet", "sleep", "1")
    assert engine.docker("logs", "-f", "quiet").out == ""


def test_a_log_that_is_not_kept_cannot_be_read(engine):
    run(engine, "silent", options=("--log-driver", "none"))
    done = engine.docker("logs", "silent", ok=False)
    assert "configured logging driver does not support reading" in done.err


def test_ps_lists_filters_and_formats(engine):
    run(engine, "web", options=("--label", "app=web"))
    engine.docker("create", "--name", "idle", "busybox")
    names = ("ps", "--format", "{{.Names}}")
    assert engine.docker(*names).out.split() == ["web"]
    assert engine.docker(*names, "-a").out.split() == ["idle", "web"]
    assert engine.docker(*names, "-a", "-f", "status=created").out.split() == ["idle"]
    assert engine.docker(*names, "-f", "label=app=web").out.split() == ["web"]
    assert engine.docker(*names, "-a", "-f", "ancestor=busybox").out.split() == ["idle", "web"]
    assert "invalid filter 'colour'" in engine.docker("ps", "-f", "colour=red", ok=False).err


def test_prune_removes_what_does_not_run(engine):
    run(engine, "web")
    idle = engine.docker("create", "busybox").out.strip()
    assert idle in engine.docker("container", "prune", "-f").out
    assert len(engine.docker("ps", "-aq").out.split()) == 1


def test_events_tell_the_whole_story(engine):
    since = f"{time.time():.9f}"  # whenever the listener will have begun to listen
    listening = engine.spawn("events", "--since", since, "--format", "{{json .}}")
    engine.docker("run", "--rm", "--name", "job", "--label", "a=b", "busybox", "true")
    events = []
    while not events or events[-1]["Action"] != "destroy":
        events.append(json.loads(listening.stdout.readline()))
    listening.terminate()
    listening.communicate()
    actions = [e["Action"] for e in events if e["Type"] == "container"]
    assert actions == ["create", "attach", "start", "die", "destroy"]
    die = next(e for e in events if e["Action"] == "die")
    assert die["Actor"]["Attributes"]["exitCode"] == "0"
    assert die["Actor"]["Attributes"]["a"] == "b"
    assert [e["Action"] for e in events if e["Type"] == "network"] == ["connect", "disconnect"]


def test_the_past_can_be_asked_for(engine):
    since = f"{time.time():.9f}"
    run(engine, "web")
    shown = engine.docker(
        *("events", "--since", since, "--until", f"{time.time():.9f}"),
        *("--filter", "container=web", "--filter", "event=start"),
        *("--format", "{{.Action}} {{.Actor.Attributes.name}}"),
    )
    assert shown.out == "start web\n"


def test_system_df_counts_containers(engine):
    run(engine, "web")
    shown = engine.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}").out
    assert "Containers 1 1" in shown
