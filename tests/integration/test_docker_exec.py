"""``docker exec``: more processes in a running container."""

import pytest
from docker_harness import Terminal, until

pytest_plugins = ("docker_fixtures",)


@pytest.fixture
def web(engine):
    engine.docker("run", "-d", "--name", "web", "-e", "A=1", "busybox", "sleep", "100")
    return engine


def test_output_streams_and_exit_code(web):
    done = web.docker("exec", "web", "sh", "-c", "echo out; echo err >&2; exit 3", ok=False)
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


def test_input_and_its_end(web):
    data = bytes(range(256)) * 4096
    assert web.docker("exec", "-i", "web", "cat", input=data).raw == data


def test_environment_directory_and_user(web):
    done = web.docker(
        "exec",
        "-e",
        "B=2",
        "-w",
        "/tmp",
        "-u",
        "web",
        "web",
        "sh",
        "-c",
        "echo $A$B $(pwd) $(id -un)",
    )
    assert done.out == "12 /tmp web\n"


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/etc/passwd", 126)])
def test_what_cannot_run(web, command, code):
    done = web.docker("exec", "web", command, ok=False)
    assert done.code == code
    assert "OCI runtime exec failed: exec failed: unable to start container process: " in (
        done.out + done.err
    )


def test_a_detached_exec_goes_on_by_itself(web):
    web.docker("exec", "web", "mkfifo", "/go", "/done")
    web.docker("exec", "-d", "web", "sh", "-c", "read word </go; echo $word >/done")
    # A client that waited for it would never come here.
    assert web.docker("exec", "web", "sh", "-c", "echo on >/go; cat /done").out == "on\n"


def test_a_terminal_in_an_exec(web):
    terminal = Terminal(web, "exec", "-it", "web", "sh", size=(30, 90))
    terminal.until("# ")
    terminal.type(b'until [ "$(stty size)" = "30 90" ]; do sleep 0.1; done; exit 5\n')
    assert terminal.client.wait(60) == 5


def test_what_an_exec_leaves_in_the_background_does_not_hold_the_client(web):
    assert web.docker("exec", "web", "sh", "-c", "sleep 500 & echo started").out == "started\n"


def test_only_running_containers_take_an_exec(web):
    web.docker("pause", "web")
    assert "is paused, unpause the container before exec" in (
        web.docker("exec", "web", "true", ok=False).err
    )
    web.docker("unpause", "web")
    web.docker("kill", "web")
    assert "is not running" in web.docker("exec", "web", "true", ok=False).err


def test_exec_can_be_inspected_after_its_end(web):
    made = web.request("POST", "/containers/web/exec", {"Cmd": ["sh", "-c", "exit 4"]}).body["Id"]
    started = web.request("POST", f"/exec/{made}/start", {"Detach": True})
    assert started.status == 200
    until(lambda: not web.request("GET", f"/exec/{made}/json").body["Running"])
    shown = web.request("GET", f"/exec/{made}/json").body
    assert (shown["ExitCode"], shown["Running"]) == (4, False)
    assert shown["Pid"] > 1
    assert shown["ProcessConfig"]["entrypoint"] == "sh"
    again = web.request("POST", f"/exec/{made}/start", {"Detach": True})
    assert again.status == 409
    assert web.request("GET", "/exec/nope/json").body == {"message": "No such exec instance: nope"}
