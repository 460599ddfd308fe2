"""An engine whose containers' root is nobody on the host, by the real client."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from docker_harness import Daemon

FIRST = 500_000


class Remapped(Daemon):
    """It sees subordinate ids that the host does not have, in a mount namespace of its own."""

    def __init__(self, root):
        super().__init__(root)
        ids = root / "ids"
        ids.write_text(f"root:{FIRST}:65536\n")
        script = "for f in subuid subgid; do mount --bind $0 /etc/$f; done; echo; read _"
        slave = ("unshare", "--mount", "--propagation", "slave")
        self.holder = subprocess.Popen(
            [*slave, "sh", "-c", script, str(ids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.holder.stdout.readline()

    def _command(self, *extra):
        place = f"--mount=/proc/{self.holder.pid}/ns/mnt"
        return ["nsenter", place, *super()._command("--userns-remap", "root", *extra)]


@pytest.fixture(scope="module")
def daemon():
    if not all(Path("/etc", name).exists() for name in ("subuid", "subgid")):
        pytest.skip("needs /etc/subuid and /etc/subgid to mount on")
    root = Path(tempfile.mkdtemp(prefix="wherry-engine-"))
    root.chmod(0o755)
    daemon = Remapped(root)
    try:
        daemon.start()
        daemon.import_busybox()
        yield daemon
        daemon.stop()
    finally:
        daemon.purge()
        daemon.holder.communicate()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def engine(daemon):
    yield daemon
    daemon.remove_all()


def start(engine, name, *options, command=("sleep", "100")):
    engine.docker("run", "-d", "--name", name, *options, "busybox", *command)
    return int(engine.inspect(name, "{{.State.Pid}}"))


def test_root_is_nobody_on_the_host(engine):
    pid = start(engine, "web")
    assert engine.docker("exec", "web", "id", "-u").out == "0\n"
    assert Path(f"/proc/{pid}").stat().st_uid == FIRST
    assert "name=userns" in engine.docker("info", "-f", "{{.SecurityOptions}}").out


def test_the_files_of_the_image_are_its_own(engine):
    script = (
        "stat -c %u:%g /bin/busybox /etc/passwd; touch /x && chown 33:34 /x; echo y >> /etc/hosts"
    )
    engine.docker("run", "--name", "web", "busybox", "sh", "-c", script)
    assert engine.docker("logs", "web").out == "0:0\n0:0\n"
    id = engine.inspect("web", "{{.Id}}")
    found = (engine.data / "containers" / id / "overlay" / "upper" / "x").stat()
    assert (found.st_uid, found.st_gid) == (33, 34)  # as the image would have it
    assert "A /x" in engine.docker("diff", "web").out


def test_a_working_directory_is_made_for_root(engine):
    out = engine.docker("run", "--rm", "-w", "/a/b", "busybox", "stat", "-c", "%u", ".").out
    assert out == "0\n"


def test_a_network_belongs_to_the_container(engine):
    out = engine.docker(
        "run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "ip", "link", "set", "eth0", "down"
    )
    assert out.code == 0


def test_those_who_share_a_network_share_the_user_namespace(engine):
    first = start(engine, "first")
    second = start(engine, "second", "--network", "container:first")
    spaces = {os.readlink(f"/proc/{pid}/ns/user") for pid in (first, second)}
    assert len(spaces) == 1
    assert spaces != {os.readlink("/proc/self/ns/user")}


def test_a_container_may_opt_out(engine):
    pid = start(engine, "web", "--userns", "host", "--privileged")
    assert os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--privileged",), "privileged mode is incompatible with user namespaces."),
        (("--pid", "host"), "cannot share the host PID namespace when user namespaces are enabled"),
        (
            ("--network", "host"),
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
    ],
)
def test_power_over_the_host_is_refused(engine, option, text):
    done = engine.docker("run", "--rm", *option, "busybox", "true", ok=False)
    assert done.code == 125
    assert text in done.err


def test_nothing_is_left_of_a_namespace(engine):
    start(engine, "web")
    engine.docker("rm", "-f", "web")
    mounts = Path(f"/proc/{engine.holder.pid}/mounts").read_text()
    assert f"{engine.root}/data/containers" not in mounts


def test_it_goes_on_without_its_daemon(daemon, engine):
    pid = start(engine, "web")
    daemon.kill()
    daemon.start()
    assert int(engine.inspect("web", "{{.State.Pid}}")) == pid
    engine.docker("exec", "web", "touch", "/x")
    engine.docker("restart", "-t", "0", "web")
    assert engine.docker("exec", "web", "stat", "-c", "%u", "/x").out == "0\n"


def test_output_can_be_opened_again(engine):
    for user in ("root", "web"):
        script = "echo one > /dev/stdout; echo two > /dev/stderr"
        done = engine.docker("run", "--rm", "--user", user, "busybox", "sh", "-c", script)
        assert (done.out, done.err) == ("one\n", "two\n")


def test_volumes_belong_to_the_users_of_the_image(engine):
    options = ("run", "--rm", "-v", "data:/etc")
    script = "touch /etc/new && chown 33 /etc/new; stat -c %u /etc/new /etc/passwd /etc"
    assert engine.docker(*options, "busybox", "sh", "-c", script).out == "33\n0\n0\n"
    out = engine.docker(*options, "--userns", "host", "busybox", "stat", "-c", "%u", "/etc/new").out
    assert out == "33\n"
    engine.docker("volume", "rm", "data")


@pytest.mark.parametrize("user", ["0", "33"])
def test_its_own_streams_can_be_opened_by_name(engine, user):
    script = "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin"
    run = ("run", "--rm", "-i", "--user", user, "busybox", "sh", "-c", script)
    done = engine.docker(*run, input=b"in")
    assert (done.out, done.err) == ("out\nin", "err\n")
    engine.docker("run", "-d", "--name", "box", "--user", user, "busybox", "sleep", "1000")
    done = engine.docker("exec", "-i", "box", "sh", "-c", script, input=b"in")
    assert (done.out, done.err) == ("out\nin", "err\n")
