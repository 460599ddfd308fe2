"""Health checks, by the real client."""

import json
import time
import urllib.parse

import pytest
from docker_harness import until

pytest_plugins = ("docker_fixtures",)


def run(engine, name, *options, command=("sleep", "100")):
    quick = ("--health-interval", "100ms")
    engine.docker("run", "-d", "--name", name, *quick, *options, "busybox", *command)


def health(engine, name):
    return json.loads(engine.inspect(name, "{{json .State.Health}}"))


def events(engine, name):
    """The actions so far; the client would leave out those of the current second."""
    wanted = urllib.parse.quote(json.dumps({"container": [name]}))
    query = f"since={time.time() - 300}&until={time.time()}&filters={wanted}"
    body = engine.request("GET", f"/events?{query}").body
    return [json.loads(line)["Action"] for line in body.splitlines()]


def status(engine, name, wanted):
    until(lambda: health(engine, name)["Status"] == wanted)


def test_a_container_starts_and_gets_healthy(engine):
    patient = ("--health-retries", "100000")
    run(engine, "web", "--health-cmd", "test -e /ok && echo fine", *patient)
    assert "(health: starting)" in engine.docker("ps").out
    assert engine.docker("ps", "-q", "-f", "health=starting").out
    engine.docker("exec", "web", "touch", "/ok")
    status(engine, "web", "healthy")
    assert "(healthy)" in engine.docker("ps").out
    assert engine.docker("ps", "-q", "-f", "health=healthy").out
    shown = health(engine, "web")
    assert shown["FailingStreak"] == 0
    assert shown["Log"][-1]["ExitCode"] == 0
    assert shown["Log"][-1]["Output"] == "fine\n"
    until(lambda: "health_status: healthy" in events(engine, "web"))
    told = events(engine, "web")
    probe = "/bin/sh -c test -e /ok && echo fine"
    assert f"exec_create: {probe}" in told
    assert f"exec_start: {probe}" in told
    until(lambda: "exec_die" in events(engine, "web"))


def test_a_container_gets_unhealthy_after_its_retries_and_recovers(engine):
    run(engine, "web", "--health-cmd", "cat /ok", "--health-retries", "2")
    status(engine, "web", "unhealthy")
    shown = health(engine, "web")
    assert shown["FailingStreak"] >= 2
    assert "can't open '/ok'" in shown["Log"][-1]["Output"]
    assert len(shown["Log"]) <= 5
    engine.docker("exec", "web", "touch", "/ok")
    status(engine, "web", "healthy")
    until(lambda: "health_status: unhealthy" in events(engine, "web"))


def test_a_probe_that_takes_too_long_is_killed(engine):
    run(engine, "web", "--health-cmd", "echo slow; exec sleep 77", "--health-timeout", "2s")
    expected = {"ExitCode": -1, "Output": "Health check exceeded timeout (2s): slow\n"}
    # The time also runs while a probe begins, which has not said anything then.
    until(lambda: any(r.items() >= expected.items() for r in health(engine, "web")["Log"]))
    # One at a time, at most.
    assert engine.docker("top", "web").out.count("sleep 77") <= 1


def test_long_output_is_cut(engine):
    run(engine, "web", "--health-cmd", "head -c 10000 /dev/zero | tr '\\0' x")
    until(lambda: health(engine, "web")["Log"])
    output = health(engine, "web")["Log"][0]["Output"]
    assert output == "x" * 4096 + "..."


def test_a_probe_that_cannot_be_executed_is_a_failure(engine):
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "100"],
        "Healthcheck": {"Test": ["CMD", "/nope"], "Interval": 100_000_000},
    }
    engine.request("POST", "/containers/create?name=web", body)
    engine.docker("start", "web")
    until(lambda: health(engine, "web")["Log"])
    assert health(engine, "web")["Log"][0]["ExitCode"] == -1
    assert "/nope" in health(engine, "web")["Log"][0]["Output"]


def test_a_paused_container_is_not_probed(engine):
    run(engine, "web", "--health-cmd", "true")
    status(engine, "web", "healthy")
    engine.docker("pause", "web")
    assert health(engine, "web")["Status"] == "unhealthy"

    def quiet():  # the end of one that was under way may still be written down
        last = health(engine, "web")["Log"][-1]
        time.sleep(0.5)
        return health(engine, "web")["Log"][-1] == last

    assert quiet() or quiet()
    engine.docker("unpause", "web")
    status(engine, "web", "healthy")


def test_the_image_s_check_is_inherited_and_can_be_switched_off(engine):
    engine.docker("create", "--name", "base", "busybox")
    check = 'HEALTHCHECK --interval=100ms --retries=7 CMD ["true"]'
    archive = engine.docker("export", "base", ok=False)
    if archive.code:
        pytest.skip("export is not there yet")
    engine.docker(
        "import", "-c", check, "-c", 'CMD ["sleep", "100"]', "-", "checked", input=archive.raw
    )
    engine.docker("run", "-d", "--name", "one", "checked")
    status(engine, "one", "healthy")
    assert engine.inspect("one", "{{.Config.Healthcheck.Retries}}") == "7"
    engine.docker("run", "-d", "--name", "two", "--no-healthcheck", "checked")
    assert health(engine, "two") is None
    assert "health" not in engine.docker("ps", "-f", "name=two").out


def test_checks_survive_the_daemon(daemon, engine):
    run(engine, "web", "--health-cmd", "test ! -e /bad", "--health-retries", "1")
    status(engine, "web", "healthy")
    daemon.kill()
    daemon.start()
    assert health(engine, "web")["Status"] in ("starting", "healthy")
    engine.docker("exec", "web", "touch", "/bad")
    status(engine, "web", "unhealthy")


def test_a_stopped_container_keeps_its_log(engine):
    run(engine, "web", "--health-cmd", "true")
    status(engine, "web", "healthy")
    engine.docker("stop", "-t", "0", "web")
    shown = health(engine, "web")
    assert shown["Status"] == "unhealthy"
    assert shown["Log"]
    engine.docker("start", "web")
    assert health(engine, "web")["Status"] in ("starting", "healthy")


def test_removing_a_container_ends_a_slow_probe(engine):
    run(engine, "web", "--health-cmd", "sleep 60")
    until(lambda: "sleep 60" in engine.docker("top", "web").out)
    engine.docker("rm", "-f", "web")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"Interval": 1}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_checks_that_make_no_sense_are_refused(engine, given, text):
    body = {"Image": "busybox", "Healthcheck": given}
    done = engine.request("POST", "/containers/create", body)
    assert (done.status, done.body) == (400, {"message": text})


def test_there_is_no_such_health(engine):
    done = engine.docker("ps", "-f", "health=fine", ok=False)
    assert "unrecognized filter value for health: fine" in done.err
