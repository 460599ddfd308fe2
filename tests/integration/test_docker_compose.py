"""docker-compose 1.29: a project from its file, up, changed and down again."""

import contextlib
import http.client
import json
import subprocess
import time
from types import SimpleNamespace

import pytest
from docker_harness import until

pytest_plugins = ("docker_fixtures",)

PROJECT = """
version: "3.7"
services:
  db:
    image: busybox
    command: ["sh", "-c", "echo ready to serve; exec sleep 1000"]
    environment:
      MODE: ${MODE:-plain}
    env_file: db.env
    healthcheck:
      test: ["CMD", "test", "-f", "/data/mark"]
      interval: 1s
      timeout: 2s
      retries: 20
    volumes: ["data:/data"]
    networks:
      back:
        aliases: [store]
        ipv4_address: 10.77.7.20
  web:
    image: busybox
    command: httpd -f -p 80 -h /site
    hostname: site
    depends_on: [db]
    ports: ["80"]
    links: ["db:base"]
    networks: [front, back]
    tmpfs: /run
    volumes: ["./site:/site:ro"]
    labels: {purpose: test}
  worker:
    image: busybox
    command: sh -c 'trap exit TERM; while true; do echo tick; sleep 0.2; done'
    networks: [back]
    stop_grace_period: 1s
networks:
  front:
  back:
    ipam:
      config: [{subnet: 10.77.7.0/24}]
volumes:
  data:
"""

CONDITIONS = """
version: "2.4"
services:
  db:
    image: busybox
    command: ["sh", "-c", "sleep 0.5; touch /tmp/up; exec sleep 1000"]
    healthcheck: {test: ["CMD", "test", "-f", "/tmp/up"], interval: 300ms, retries: 50}
  web:
    image: busybox
    command: ["sleep", "1000"]
    depends_on:
      db: {condition: service_healthy}
  joined:
    image: busybox
    command: ["hostname"]
    network_mode: "service:web"
    cpus: 0.5
    mem_limit: 32m
"""


@pytest.fixture
def compose(engine, tmp_path):
    """Run docker-compose in a directory of its own; the project is taken down afterwards."""
    directory = tmp_path / "shop"
    (directory / "site").mkdir(parents=True)
    (directory / "site" / "index.html").write_text("hello")
    (directory / "db.env").write_text("SECRET=from file\n")
    (directory / "docker-compose.yml").write_text(PROJECT)

    def run(*arguments, ok=True, **environment):
        done = subprocess.run(
            ["docker-compose", "--ansi", "never", *arguments],
            cwd=directory,
            env={**engine.client_environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not ok or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    run.directory = directory
    run.project = lambda text: (directory / "docker-compose.yml").write_text(text)
    yield run
    run("down", "-v", "-t", "0", "--remove-orphans")
    listed = engine.docker("network", "ls", "--format", "{{.Name}}").out.split()
    assert sorted(listed) == ["bridge", "host", "none"]
    assert engine.docker("volume", "ls", "-q").out == ""


def services(compose):
    return sorted(compose("ps", "--services", "--filter", "status=running").out.split())


def test_a_project_comes_up_and_goes_down(engine, compose):
    compose("up", "-d")
    assert services(compose) == ["db", "web", "worker"]
    published = compose("port", "web", "80").out.strip()

    def page():
        connection = http.client.HTTPConnection(published, timeout=60)
        with contextlib.suppress(OSError, http.client.HTTPException):  # it may only have begun
            connection.request("GET", "/")
            return connection.getresponse().read()

    assert until(page) == b"hello"
    listed = compose("ps").out
    assert f"{published}->80/tcp" in listed and "shop_worker_1" in listed
    assert engine.inspect("shop_web_1", "{{.Config.Labels.purpose}}") == "test"
    assert compose("up", "-d").err.count("is up-to-date") == 3
    compose("down", "-t", "0")
    assert engine.docker("ps", "-aq").out == ""
    assert engine.docker("volume", "ls", "-q").out == "shop_data\n"


def test_services_find_each_other(engine, compose):
    compose("up", "-d", "--scale", "worker=2")
    for name in ("db", "store", "base", "shop_db_1", "db.shop_back"):
        done = compose("exec", "-T", "web", "nslookup", "-type=a", name)
        assert "Address: 10.77.7.20" in done.out, name
    done = compose("exec", "-T", "web", "nslookup", "-type=a", "worker")
    assert done.out.count("Address: 10.77.7.") == 2
    assert compose("exec", "-T", "web", "hostname").out == "site\n"


def test_variables_come_from_the_shell_the_file_and_env_files(compose):
    compose("up", "-d", "db", MODE="special")
    variables = compose("exec", "-T", "db", "env").out.splitlines()
    assert "MODE=special" in variables and "SECRET=from file" in variables
    assert compose("exec", "-T", "-e", "MODE=mine", "db", "sh", "-c", "echo $MODE").out == "mine\n"


def test_logs_of_all_services(compose):
    compose("up", "-d", "db", "worker")

    def told():
        text = compose("logs", "--tail", "2").out
        return "tick" in text and "db_1      | ready to serve\n" in text and text

    assert until(told).count("tick") <= 2


def test_one_off_commands(engine, compose):
    done = compose("run", "--rm", "-e", "X=1", "web", "sh", "-c", "echo $X; exit 3", ok=False)
    assert (done.code, done.out) == (3, "1\n")
    assert services(compose) == ["db"]
    done = compose("run", "--rm", "--no-deps", "web", "ping", "-c", "1", "-W", "5", "store")
    assert "1 packets received" in done.out
    assert engine.docker("ps", "-aq").out.count("\n") == 1


def test_scaling_up_and_down(compose):
    compose("up", "-d", "--scale", "worker=3", "worker")
    assert compose("ps", "-q", "worker").out.count("\n") == 3
    compose("up", "-d", "--scale", "worker=1", "worker")
    assert compose("ps", "-q", "worker").out.count("\n") == 1


def test_stop_start_restart_pause_kill_and_rm(engine, compose):
    compose("up", "-d")
    compose("stop", "-t", "1")
    assert services(compose) == []
    compose("start")
    assert services(compose) == ["db", "web", "worker"]
    before = engine.inspect("shop_web_1", "{{.State.StartedAt}}")
    compose("restart", "-t", "0", "web")
    assert engine.inspect("shop_web_1", "{{.State.StartedAt}}") > before
    compose("pause", "worker")
    assert engine.inspect("shop_worker_1", "{{.State.Status}}") == "paused"
    compose("unpause", "worker")
    compose("kill", "-s", "KILL", "worker")
    compose("rm", "-f", "worker")
    assert compose("ps", "-q", "worker").out == ""
    assert "httpd" in compose("top", "web").out


def test_a_changed_service_is_made_anew_and_keeps_its_volumes(engine, compose):
    compose("up", "-d", "db")
    compose("exec", "-T", "db", "touch", "/data/mark")
    first = engine.inspect("shop_db_1", "{{.Id}}")
    compose("up", "-d", "db", MODE="other")
    assert engine.inspect("shop_db_1", "{{.Id}}") != first
    compose("exec", "-T", "db", "test", "-f", "/data/mark")
    assert "MODE=other" in compose("exec", "-T", "db", "env").out


def test_dependencies_may_have_to_be_healthy(engine, compose):
    compose.project(CONDITIONS)
    compose("up", "-d")
    assert engine.inspect("shop_db_1", "{{.State.Health.Status}}") == "healthy"
    web = engine.inspect("shop_web_1", "{{.Config.Hostname}}")
    until(lambda: f"| {web}" in compose("logs", "joined").out)
    limits = engine.inspect("shop_joined_1", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}")
    assert limits == "33554432 500000000"


def test_attached_until_a_service_ends(compose):
    compose.project(
        'version: "3"\nservices:\n'
        "  long: {image: busybox, command: sleep 1000, stop_grace_period: 0s}\n"
        "  short: {image: busybox, command: sh -c 'echo done; exit 7'}\n"
    )
    done = compose("up", "--abort-on-container-exit", "--exit-code-from", "short", ok=False)
    assert done.code == 7
    assert "short_1  | done" in done.out and "shop_short_1 exited with code 7" in done.out


def test_events_and_images(engine, compose):
    begun = engine.docker("info", "-f", "{{.SystemTime}}").out.strip()
    compose("up", "-d", "worker")
    done = engine.docker(
        *("events", "--since", begun, "--until", f"{time.time():.6f}", "--format", "{{json .}}"),
        *("--filter", "label=com.docker.compose.project=shop"),
    )
    actions = [json.loads(line)["Action"] for line in done.out.splitlines()]
    assert actions == ["create", "attach", "start"] or actions == ["create", "start"]
    assert "busybox" in compose("images").out
