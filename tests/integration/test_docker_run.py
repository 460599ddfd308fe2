"""``docker run``: the real client against the real engine."""

import os
import re

import pytest
from docker_harness import Terminal

pytest_plugins = ("docker_fixtures",)


def test_output_and_exit_code_come_through(engine):
    done = engine.docker(
        "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", ok=False
    )
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")


def test_a_signal_s_exit_code_is_128_and_its_number(engine):
    client = engine.spawn("run", "--name", "victim", "busybox", "sh", "-c", "echo up; sleep 100")
    assert client.stdout.readline() == b"up\n"
    engine.docker("kill", "victim")
    assert client.wait(60) == 137


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH: unknown'),
        ("/nope", 127, 'exec: "/nope": stat /nope: no such file or directory: unknown'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied: unknown'),
        ("/etc", 126, 'exec: "/etc": is a directory: unknown'),
    ],
)
def test_what_cannot_run_is_told_in_docker_s_words(engine, command, code, text):
    done = engine.docker("run", "--name", "no", "busybox", command, ok=False)
    assert done.code == code
    assert "Error response from daemon: failed to create task for container: " in done.err
    assert text in done.err
    assert engine.inspect("no", "{{.State.Status}} {{.State.ExitCode}}") == f"created {code}"


def test_a_failed_run_with_rm_leaves_nothing(engine):
    engine.docker("run", "--rm", "busybox", "nope", ok=False)
    assert engine.docker("ps", "-aq").out == ""


def test_a_missing_image_is_told_and_nothing_is_made(engine):
    done = engine.docker("run", "no-such-image:1", ok=False)
    assert done.code == 125
    assert "Unable to find image 'no-such-image:1' locally" in done.err
    assert engine.docker("ps", "-aq").out == ""


def test_a_taken_name_is_told(engine):
    first = engine.docker("create", "--name", "web", "busybox").out.strip()
    done = engine.docker("create", "--name", "web", "busybox", ok=False)
    assert done.code == 1
    assert (
        f'Conflict. The container name "/web" is already in use by container "{first}". You have '
        "to remove (or rename) that container to be able to reuse that name."
    ) in done.err


def test_a_filter_moves_its_input_without_loss(engine):
    data = os.urandom(8 << 20)
    done = engine.docker("run", "--rm", "-i", "busybox", "cat", input=data)
    assert done.raw == data


def test_the_end_of_input_is_the_end_of_the_program(engine):
    done = engine.docker("run", "--rm", "-i", "busybox", "wc", "-c", input=b"12345")
    assert done.out.strip() == "5"


def test_environment_directory_user_hostname_and_entrypoint(engine, tmp_path):
    (tmp_path / "env").write_text("B=2\n# comment\n")
    script = "echo $A$B $(pwd) $(id -u):$(id -g) $(id -G) $(hostname) $HOME"
    done = engine.docker(
        *("run", "--rm", "-e", "A=1", "--env-file", str(tmp_path / "env"), "-w", "/made/here"),
        *("-u", "web", "--hostname", "box", "--entrypoint", "sh", "busybox", "-c", script),
    )
    assert done.out == "12 /made/here 33:33 33 50 box /tmp\n"


def test_an_unknown_user_is_told(engine):
    done = engine.docker("run", "--rm", "-u", "nobody", "busybox", ok=False)
    assert "unable to find user nobody: no matching entries in passwd file" in done.err


def test_a_directory_of_the_host_is_mounted(engine, tmp_path):
    (tmp_path / "in").write_text("hello")
    script = "cat /x/in; echo new > /x/out; touch /r/in 2>&1"
    done = engine.docker(
        *("run", "--rm", "-v", f"{tmp_path}:/x", "-v", f"{tmp_path}:/r:ro"),
        *("-v", f"{tmp_path}/made:/made", "busybox", "sh", "-c", script),
        ok=False,
    )
    assert done.out.startswith("hello")
    assert "Read-only file system" in done.out
    assert (tmp_path / "out").read_text() == "new\n"
    assert (tmp_path / "made").is_dir()


def test_mount_wants_its_source_to_exist(engine):
    done = engine.docker(
        "run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", "busybox", ok=False
    )
    assert 'invalid mount config for type "bind": bind source path does not exist: /no/such' in (
        done.err
    )


def test_a_read_only_root_with_a_tmpfs(engine):
    script = "touch /x 2>&1; touch /t/x && stat -f -c %T /t"
    done = engine.docker(
        *("run", "--rm", "--read-only", "--tmpfs", "/t:size=1m", "busybox", "sh", "-c", script)
    )
    assert "Read-only file system" in done.out
    assert done.out.endswith("tmpfs\n")


def test_limits_reach_the_kernel(engine):
    engine.docker(
        *("run", "-d", "--name", "small", "-m", "64m", "--cpus", "0.5", "--pids-limit", "20"),
        *("busybox", "sleep", "100"),
    )
    limits = engine.inspect("small")["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (64 << 20, 5 * 10**8, 20)
    shown = engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "small")
    assert "/ 64MiB 1" in shown.out
    engine.docker("update", "--memory", "128m", "--memory-swap", "-1", "small")
    shown = engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "small")
    assert "/ 128MiB" in shown.out


def test_too_much_memory_ends_in_an_oom_kill(engine):
    done = engine.docker(
        *("run", "--name", "hungry", "-m", "8m", "busybox"),
        *("sh", "-c", "x=a; while :; do x=$x$x; done"),
        ok=False,
    )
    assert done.code == 137
    assert engine.inspect("hungry", "{{.State.OOMKilled}}") == "true"


def test_capabilities_are_those_asked_for(engine):
    def effective(*options):
        script = "grep CapEff /proc/self/status"
        text = engine.docker("run", "--rm", *options, "busybox", "sh", "-c", script).out
        return int(text.split()[1], 16)

    chown = 1
    assert effective() & chown
    assert not effective("--cap-drop", "CHOWN") & chown
    assert effective("--cap-drop", "ALL", "--cap-add", "CHOWN") == chown


def test_an_init_reaps_and_passes_signals(engine):
    engine.docker("run", "-d", "--name", "tini", "--init", "busybox", "sleep", "100")
    processes = engine.docker("top", "tini", "-o", "pid,comm").out
    assert re.search(r"docker-init|catatonit", processes)
    engine.docker("stop", "tini")
    assert engine.inspect("tini", "{{.State.ExitCode}}") == "143"  # as its child: SIGTERM


def test_unsafe_places_of_proc_are_masked_unless_privileged(engine):
    def size(*options):
        return engine.docker(
            "run", "--rm", *options, "busybox", "sh", "-c", "cat /proc/timer_list | wc -c"
        ).out.strip()

    assert size() == "0"
    assert size("--privileged") != "0"


def test_a_terminal_has_the_client_s_size_from_the_start(engine):
    terminal = Terminal(engine, "run", "--rm", "-it", "busybox", "stty", "size", size=(33, 99))
    terminal.until("33 99")
    assert terminal.client.wait(60) == 0


def test_a_terminal_has_the_client_s_size_and_follows_it(engine):
    terminal = Terminal(engine, "run", "--rm", "-it", "busybox", "sh", size=(33, 99))
    terminal.until("# ")
    waits = "until [ \"$(stty size)\" = '{}' ]; do sleep 0.1; done; {}\n"
    terminal.type(waits.format("33 99", "tty").encode())
    terminal.until("/dev/pts/0")
    terminal.resize(40, 120)
    terminal.client.send_signal(28)  # SIGWINCH
    terminal.type(waits.format("40 120", "exit 4").encode())
    assert terminal.client.wait(60) == 4


def test_detach_keys_leave_the_container_running_and_attach_takes_it_up(engine):
    terminal = Terminal(engine, "run", "-it", "--name", "shell", "busybox", "sh")
    terminal.until("# ")
    terminal.type(b"\x10\x11")
    assert terminal.client.wait(60) == 0
    assert engine.inspect("shell", "{{.State.Running}}") == "true"
    again = Terminal(engine, "attach", "shell")
    again.type(b"echo a$((1+1))b; exit 3\n")
    again.until("a2b")
    assert again.client.wait(60) == 3


def test_attached_output_is_complete_from_the_first_byte(engine):
    for _ in range(5):
        done = engine.docker("run", "--rm", "busybox", "sh", "-c", "seq 1 5000")
        assert done.out.split() == [str(n) for n in range(1, 5001)]


def test_ids_are_printed_and_may_be_shortened(engine):
    id = engine.docker("run", "-d", "busybox", "sleep", "100").out.strip()
    assert re.fullmatch("[0-9a-f]{64}", id)
    assert engine.inspect(id[:5], "{{.Id}}") == id
    assert engine.inspect(id, "{{.Config.Hostname}}") == id[:12]


def test_generated_names_look_like_docker_s(engine):
    id = engine.docker("create", "busybox").out.strip()
    assert re.fullmatch(r"/[a-z]+_[a-z]+", engine.inspect(id, "{{.Name}}"))
