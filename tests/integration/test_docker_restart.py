"""Restart policies, automatic removal, names, waiting and pruning, by the real client."""

import http.client
import json
import select
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker_harness import until

pytest_plugins = ("docker_fixtures",)


def run(engine, name, *options, command=("sleep", "100")):
    return engine.docker("run", "-d", "--name", name, *options, "busybox", *command).out.strip()


def status(engine, name):
    return engine.inspect(name, "{{.State.Status}}")


def restarts(engine, name):
    return int(engine.inspect(name, "{{.RestartCount}}"))


def names(engine, *options):
    return engine.docker("ps", "-a", "--format", "{{.Names}}", *options).out.split()


def test_policies_after_a_restart_of_the_daemon(daemon, engine):
    """Those that run go on; those that ended meanwhile are started where the policy says so."""
    for name, policy in (
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("failure", "on-failure"),
        ("never", "no"),
    ):
        run(engine, name, "--restart", policy)
        run(engine, f"{name}-stopped", "--restart", policy)
        engine.docker("stop", "-t", "0", f"{name}-stopped")
    pids = {n: engine.inspect(n, "{{.State.Pid}}") for n in ("always", "never")}
    daemon.kill()
    daemon.start()
    until(lambda: status(engine, "always-stopped") == "running")
    assert {n: engine.inspect(n, "{{.State.Pid}}") for n in pids} == pids
    for name in ("unless-stopped", "failure-stopped", "never-stopped"):
        assert status(engine, name) == "exited"


def test_what_ended_while_no_daemon_was_there_is_started_again(daemon, engine, host):
    waits = "until [ -e /host/go ]; do sleep 0.1; done"
    script = f"test -e /again && exec sleep 100; touch /again; {waits}; exit 3"
    options = ("--restart", "on-failure", "-v", f"{host}:/host")
    run(engine, "web", *options, command=("sh", "-c", script))
    run(engine, "done", *options, command=("sh", "-c", waits))
    pids = [engine.inspect(name, "{{.State.Pid}}") for name in ("web", "done")]
    daemon.kill()
    (host / "go").touch()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    daemon.start()
    until(lambda: status(engine, "web") == "running")
    assert status(engine, "done") == "exited"


def test_a_container_that_removes_itself_does_so_after_a_daemon_s_restart(daemon, engine, host):
    waits = "until [ -e /host/go ]; do sleep 0.1; done"
    run(engine, "early", "--rm", "-v", f"{host}:/host", command=("sh", "-c", waits))
    run(engine, "late", "--rm")
    pid = engine.inspect("early", "{{.State.Pid}}")
    daemon.kill()
    (host / "go").touch()
    until(lambda: not Path(f"/proc/{pid}").exists())
    daemon.start()
    until(lambda: names(engine) == ["late"])
    engine.docker("kill", "late")
    until(lambda: names(engine) == [])


def test_automatic_removal_and_a_policy_exclude_each_other(engine):
    done = engine.docker("run", "--rm", "--restart", "always", "busybox", ok=False)
    assert "conflicting options" in done.err or "cannot be" in done.err
    host = {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}
    answer = engine.request("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})
    assert answer.status == 400
    assert answer.body["message"] == "can't create 'AutoRemove' container with restart policy"


def test_a_container_that_keeps_failing_waits_longer_and_longer(engine):
    run(engine, "flaky", "--restart", "always", command=("false",))
    until(lambda: restarts(engine, "flaky") >= 5)  # three seconds until the next
    # Between two waits it runs for a moment.
    until(lambda: "Restarting (1)" in engine.docker("ps").out)
    text = "is restarting, wait until the container is running"
    until(lambda: text in engine.docker("exec", "flaky", "true", ok=False).err)
    text = 'cannot remove container "/flaky": container is restarting: stop the container'
    until(lambda: text in engine.docker("rm", "flaky", ok=False).err)
    engine.docker("stop", "flaky")
    assert status(engine, "flaky") == "exited"


def test_the_count_starts_over_when_a_user_starts_it(engine):
    run(engine, "flaky", "--restart", "on-failure:2", command=("false",))
    until(lambda: status(engine, "flaky") == "exited")
    assert restarts(engine, "flaky") == 2
    engine.docker("start", "flaky")
    until(lambda: status(engine, "flaky") == "exited" and restarts(engine, "flaky") == 2)


def test_a_signal_that_is_not_the_stop_signal_leaves_the_policy(engine):
    options = ("--restart", "always", "--stop-signal", "TERM")
    script = "trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done"
    run(engine, "web", *options, command=("sh", "-c", script))
    until(lambda: engine.docker("logs", "web").out)
    engine.docker("kill", "-s", "USR1", "web")
    until(lambda: restarts(engine, "web") == 1)
    engine.docker("kill", "web")
    until(lambda: status(engine, "web") == "exited")


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ("sometimes", "unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or"),
        ("always:3", "maximum retry count can only be used with 'on-failure'"),
        ("on-failure:-1", "maximum retry count cannot be negative"),
    ],
)
def test_policies_that_make_no_sense_are_refused(engine, policy, text):
    done = engine.docker("run", "--rm=false", "--restart", policy, "busybox", ok=False)
    assert done.code == 125
    assert text in done.err


# ---- waiting


def wait(engine, name, condition):
    return engine.request("POST", f"/containers/{name}/wait?condition={condition}").body


class Waiting:
    """One who waits from now on: the answer begins when the condition is being waited for."""

    def __init__(self, engine, name, condition):
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(engine.socket))
        connection.request("POST", f"/containers/{name}/wait?condition={condition}")
        self._answer, self._socket = connection.getresponse(), connection.sock

    def is_over(self, seconds):
        return bool(select.select([self._socket], [], [], seconds)[0])

    def result(self):
        return json.loads(self._answer.read())


def test_conditions_of_waiting(engine):
    script = "until [ -e /go ]; do sleep 0.1; done; exit 3"
    run(engine, "web", command=("sh", "-c", script))
    waiting = [Waiting(engine, "web", condition) for condition in ("next-exit", "not-running")]
    engine.docker("exec", "web", "touch", "/go", ok=False)  # (it may be ended by that)
    assert [each.result() for each in waiting] == [{"StatusCode": 3}] * 2
    removal = Waiting(engine, "web", "removed")
    assert not removal.is_over(0.3)
    engine.docker("rm", "web")
    assert removal.result() == {"StatusCode": 3}


def test_there_is_no_such_condition(engine):
    run(engine, "web")
    answer = engine.request("POST", "/containers/web/wait?condition=tired")
    assert (answer.status, answer.body) == (400, {"message": 'invalid condition: "tired"'})


def test_waiting_tells_why_a_start_failed(engine):
    engine.docker("create", "--name", "web", "busybox", "nope")
    removal = Waiting(engine, "web", "removed")
    assert engine.docker("start", "web", ok=False).code == 1
    answer = wait(engine, "web", "not-running")
    assert answer["StatusCode"] == 127
    assert "executable file not found in $PATH" in answer["Error"]["Message"]
    engine.docker("rm", "web")
    assert removal.result() == {"StatusCode": 127}
    assert "Error waiting" not in engine.docker("run", "--rm", "busybox", "nope", ok=False).err


# ---- names


def test_a_name_that_is_taken_is_refused_with_its_owner(engine):
    id = run(engine, "web")
    done = engine.docker("create", "--name", "web", "busybox", ok=False)
    assert (
        f'Conflict. The container name "/web" is already in use by container "{id}". '
        "You have to remove (or rename) that container to be able to reuse that name." in done.err
    )
    engine.docker("create", "--name", "other", "busybox")
    done = engine.docker("rename", "other", "web", ok=False)
    assert 'Error when allocating new name: Conflict. The container name "/web"' in done.err


def test_names_have_their_rules(engine):
    done = engine.docker("create", "--name", "a b", "busybox", ok=False)
    assert "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" in done.err
    run(engine, "web")
    done = engine.docker("rename", "web", "-x", ok=False)
    assert "Invalid container name (-x)" in done.err or "unknown shorthand" in done.err


def test_names_are_made_up_as_docker_does(engine):
    engine.docker("create", "busybox")
    (name,) = names(engine)
    adjective, _, surname = name.partition("_")
    assert adjective.isalpha() and surname.rstrip("0123456789").isalpha()


def test_the_beginning_of_an_id_must_be_one_s_alone(engine):
    ids = [engine.docker("create", "busybox").out.strip() for _ in range(17)]
    first = next(c for c in "0123456789abcdef" if sum(id.startswith(c) for id in ids) > 1)
    done = engine.request("GET", f"/containers/{first}/json")
    assert (done.status, done.body["message"]) == (
        400,
        f"multiple IDs found with provided prefix: {first}",
    )
    assert engine.inspect(ids[0][:20], "{{.Id}}") == ids[0]


# ---- removal and pruning


def test_two_removals_at_once_exclude_each_other(engine):
    script = "trap '' TERM; while :; do sleep 0.1; done"
    ids = [run(engine, f"web{n}", command=("sh", "-c", script)) for n in range(4)]
    with ThreadPoolExecutor(8) as pool:
        path = "/containers/{}?force=1"
        answers = [
            (id, pool.submit(engine.request, "DELETE", path.format(id))) for id in ids for _ in "12"
        ]
        for id, answer in answers:
            result = answer.result(60)
            if result.status == 409:
                message = f"removal of container {id} is already in progress"
                assert result.body["message"] == message
            else:
                assert result.status in (204, 404)
    assert names(engine) == []


def test_pruning_knows_filters(engine):
    for name, label in (("one", "keep=yes"), ("two", "keep=no"), ("three", "other=1")):
        engine.docker("create", "--name", name, "--label", label, "busybox")
    prune = ("container", "prune", "-f", "--filter")
    engine.docker(*prune, "until=1h")
    assert len(names(engine)) == 3
    engine.docker(*prune, "label!=keep=yes", "--filter", "label=keep")
    assert sorted(names(engine)) == ["one", "three"]
    engine.docker(*prune, "label=other=1")
    assert names(engine) == ["one"]
    engine.docker(*prune, "until=0s")
    assert names(engine) == []
    done = engine.docker(*prune, "colour=red", ok=False)
    assert "invalid filter 'colour'" in done.err


def test_pruning_is_told_of(engine):
    engine.docker("create", "busybox")
    engine.docker("container", "prune", "-f")
    wanted = urllib.parse.quote(json.dumps({"event": ["prune"], "type": ["container"]}))
    query = f"since={time.time() - 60}&until={time.time()}&filters={wanted}"
    body = engine.request("GET", f"/events?{query}").body
    events = body if isinstance(body, dict) else json.loads(body.splitlines()[-1])
    assert events["Actor"]["Attributes"] == {"reclaimed": "0"}


# ---- the column STATUS


def test_the_status_column(engine):
    engine.docker("create", "--name", "new", "busybox")
    run(engine, "frozen")
    engine.docker("pause", "frozen")
    run(engine, "gone", command=("sh", "-c", "exit 7"))
    engine.docker("wait", "gone")
    shown = engine.docker("ps", "-a", "--format", "{{.Names}}={{.Status}}").out
    lines = dict(line.split("=", 1) for line in shown.splitlines())
    assert lines["new"] == "Created"
    assert lines["frozen"].startswith("Up ") and lines["frozen"].endswith(" (Paused)")
    assert lines["gone"].startswith("Exited (7) ") and lines["gone"].endswith(" ago")


def test_what_a_frozen_container_refuses(engine):
    id = run(engine, "web")
    engine.docker("pause", "web")
    for command, text in (
        (("start", "web"), "cannot start a paused container, try unpause instead"),
        (("pause", "web"), f"Container {id} is already paused"),
        (("exec", "web", "true"), "Container web is paused, unpause the container before exec"),
        (("attach", "web"), "paused"),
        (("rm", "web"), 'cannot remove container "/web": container is paused and must be unpaused'),
    ):
        assert text.lower() in engine.docker(*command, ok=False).err.lower()
