"""Names of containers: the embedded name server, /etc/hosts, /etc/resolv.conf, links."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from docker_harness import Daemon

pytest_plugins = ("docker_fixtures",)

IDLE = ("busybox", "sleep", "1000")


@pytest.fixture
def networks(engine: Daemon):
    """Make networks; they go with the test."""

    def make(name, *options):
        engine.docker("network", "create", *options, name)
        return name

    return make


def idle(engine, name, *options):
    return engine.docker("run", "-d", "--name", name, *options, *IDLE).out.strip()


def address(engine, name, network):
    return engine.inspect(name, f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}')


def lookup(engine, container, name, kind="a"):
    """The addresses (or names) that busybox's nslookup finds from inside ``container``."""
    wanted = [f"-type={kind}"] if kind else []
    done = engine.docker("exec", container, "nslookup", *wanted, name, ok=False)
    _, _, answers = done.out.partition("\n\n")
    return sorted(re.findall(r"^(?:Address: |.*name = )(\S+)$", answers, re.MULTILINE))


def hosts(engine, container):
    return engine.docker("exec", container, "cat", "/etc/hosts").out.splitlines()[6:]


def test_containers_find_each_other_by_all_their_names(engine, networks):
    net = networks("names-a")
    id = idle(engine, "web", "--network", net, "--network-alias", "www", "--hostname", "site")
    idle(engine, "client", "--network", net)
    at = address(engine, "web", net)
    for name in ("web", "WEB", "www", "site", id[:12], f"web.{net}", f"www.{net}"):
        assert lookup(engine, "client", name) == [at], name
    assert lookup(engine, "client", "web", "aaaa") == []
    assert lookup(engine, "client", at, "") == [f"web.{net}"]
    engine.docker("exec", "client", "ping", "-c", "1", "-W", "5", "web")
    text = engine.docker("exec", "client", "cat", "/etc/resolv.conf").out
    assert text.startswith("nameserver 127.0.0.11\n") and "ndots:0" in text


def test_several_containers_may_share_an_alias(engine, networks):
    net = networks("names-a")
    for name in ("one", "two", "three"):
        idle(engine, name, "--network", net, "--network-alias", "all")
    everyone = sorted(address(engine, name, net) for name in ("one", "two", "three"))
    assert lookup(engine, "one", "all") == everyone
    engine.docker("rm", "-f", "two")
    assert len(lookup(engine, "one", "all")) == 2


def test_there_are_no_names_on_the_default_bridge(engine):
    idle(engine, "web")
    idle(engine, "client")
    text = engine.docker("exec", "client", "cat", "/etc/resolv.conf").out
    assert "127.0.0.11" not in text


def test_names_follow_connections_and_renames(engine, networks):
    front, back = networks("names-a"), networks("names-b")
    idle(engine, "web", "--network", front)
    idle(engine, "db", "--network", back)
    assert lookup(engine, "web", "db") == []
    engine.docker("network", "connect", "--alias", "store", back, "web")
    assert lookup(engine, "web", "db") == [address(engine, "db", back)]
    assert lookup(engine, "db", "store") == [address(engine, "web", back)]
    assert lookup(engine, "web", f"store.{front}") == []
    assert len(hosts(engine, "web")) == 2
    engine.docker("rename", "db", "base")
    assert lookup(engine, "web", "db") == []
    assert lookup(engine, "web", "base") == [address(engine, "base", back)]
    engine.docker("network", "disconnect", back, "web")
    assert lookup(engine, "web", "base") == [] and lookup(engine, "base", "web") == []
    assert len(hosts(engine, "web")) == 1


def test_a_container_of_the_default_bridge_gets_its_name_server_when_connected(engine, networks):
    net = networks("names-a")
    idle(engine, "web", "--network", net)
    idle(engine, "client")
    idle(engine, "edited")
    engine.docker("exec", "edited", "sh", "-c", "echo nameserver 10.9.9.9 > /etc/resolv.conf")
    for name in ("client", "edited"):
        engine.docker("network", "connect", net, name)
    assert lookup(engine, "client", "web") == [address(engine, "web", net)]
    assert engine.docker("exec", "edited", "cat", "/etc/resolv.conf").out == (
        "nameserver 10.9.9.9\n"
    )


def test_names_outlive_the_daemon(engine, networks):
    net = networks("names-a")
    idle(engine, "web", "--network", net, "--network-alias", "www")
    idle(engine, "client", "--network", net)
    engine.kill()
    engine.start()
    assert lookup(engine, "client", "www") == [address(engine, "web", net)]
    engine.stop()
    engine.start()
    assert lookup(engine, "client", "web") == [address(engine, "web", net)]


SERVER = """
import socket
from dnslib import A, DNSRecord, RR
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    data, client = own.recvfrom(4096)
    query = DNSRecord.parse(data)
    reply = query.reply()
    if query.q.qtype == 1:
        reply.add_answer(RR(query.q.qname, rdata=A("10.7.7.7"), ttl=5))
    own.sendto(reply.pack(), client)
"""


@pytest.fixture
def name_server(engine, networks):
    """A container called ``dns`` that answers every question at port 53 of all its addresses."""
    idle(engine, "dns", "--network", networks("names-a"))
    pid = engine.inspect("dns", "{{.State.Pid}}")
    inside = ["nsenter", "--target", pid, "--net", sys.executable, "-c", SERVER]
    with subprocess.Popen(inside, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"ready\n"
        yield address(engine, "dns", "names-a")
        server.kill()


def test_a_container_may_serve_port_53_itself_and_be_asked_by_others(engine, name_server):
    """What it knows is found by a client with --dns; names of containers still come first."""
    idle(engine, "client", "--network", "names-a", "--dns", name_server)
    assert lookup(engine, "client", "outside.example") == ["10.7.7.7"]
    assert lookup(engine, "client", "dns") == [name_server]
    assert engine.inspect("client", "{{.HostConfig.Dns}}") == f"[{name_server}]"
    # A server on the loopback of the user's choice is the container's own.
    idle(engine, "own", "--network", "container:dns")
    assert lookup(engine, "own", "dns") == [name_server]
    done = engine.docker("exec", "own", "nslookup", "-type=a", "dns", "127.0.0.1")
    assert "10.7.7.7" in done.out


def test_a_name_without_a_dot_stays_inside_where_the_user_set_ndots(engine, name_server):
    options = ("--network", "names-a", "--dns", name_server)
    idle(engine, "client", *options, "--dns-option", "ndots:2")
    idle(engine, "free", *options)
    assert lookup(engine, "free", "single") == ["10.7.7.7"]
    assert lookup(engine, "client", "single") == []
    assert lookup(engine, "client", "dns") == [name_server]


def test_an_internal_network_asks_nobody(engine, networks):
    inside = networks("names-a", "--internal")
    idle(engine, "web", "--network", inside)
    idle(engine, "client", "--network", inside)
    assert lookup(engine, "client", "web") == [address(engine, "web", inside)]
    done = engine.docker("exec", "client", "nslookup", "outside.example", ok=False)
    assert "SERVFAIL" in done.out


def test_links_are_names_of_one_container_on_user_defined_networks(engine, networks):
    net = networks("names-a")
    idle(engine, "db", "--network", net)
    idle(engine, "web", "--network", net, "--link", "db:store")
    idle(engine, "other", "--network", net)
    assert lookup(engine, "web", "store") == [address(engine, "db", net)]
    assert lookup(engine, "other", "store") == []
    assert engine.inspect("web", "{{.HostConfig.Links}}") == "[]"
    engine.docker("network", "disconnect", net, "other")
    engine.docker("network", "connect", "--link", "db:base", net, "other")
    assert lookup(engine, "other", "base") == [address(engine, "db", net)]


def test_many_queries_at_once_are_answered(engine, networks):
    net = networks("names-a")
    idle(engine, "web", "--network", net)
    idle(engine, "client", "--network", net)
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do nslookup -type=a web >/dev/null || echo bad; done"
    outputs = []

    def ask():
        outputs.append(engine.docker("exec", "client", "sh", "-c", script).out)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == [""] * 8


def test_garbage_does_not_end_the_name_server(engine, networks):
    net = networks("names-a")
    idle(engine, "web", "--network", net)
    script = (
        "for i in 1 2 3 4 5; do head -c 300 /dev/urandom | nc -u -w 1 127.0.0.11 53 & done;"
        "head -c 3000 /dev/urandom | nc -w 1 127.0.0.11 53; wait"
    )
    engine.docker("exec", "web", "sh", "-c", script, ok=False)
    assert lookup(engine, "web", "web") == [address(engine, "web", net)]


# ---- files


def test_hosts_has_added_hosts_and_the_host_itself(engine, networks):
    net = networks("names-a")
    gateway = engine.docker(
        "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"
    ).out.strip()
    idle(
        *(engine, "web", "--network", net, "--hostname", "a.b.c"),
        *(
            "--add-host",
            "db:10.1.2.3",
            "--add-host",
            "me=host-gateway",
            "--add-host",
            "six:fd00::9",
        ),
    )
    assert hosts(engine, "web") == [
        "10.1.2.3\tdb",
        f"{gateway}\tme",
        "fd00::9\tsix",
        f"{address(engine, 'web', net)}\ta.b.c a",
    ]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("x:1.2.3", 'invalid IP address in add-host: "1.2.3"'),
        (":1.2.3.4", 'bad format for add-host: ":1.2.3.4"'),
        ("nothing", 'bad format for add-host: "nothing"'),
    ],
)
def test_added_hosts_are_judged(engine, entry, problem):
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"ExtraHosts": [entry]}}
    answer = engine.request("POST", "/containers/create", body)
    assert (answer.status, answer.body["message"]) == (400, problem)


def test_host_names(engine):
    script = "hostname; cat /etc/hostname /proc/sys/kernel/domainname; tail -1 /etc/hosts"
    command = ("busybox", "sh", "-c", script)

    def told(*options):
        return engine.docker("run", "--rm", *options, *command).out.splitlines()

    name, file, domain, line = told("--hostname", "web", "--domainname", "example.org")
    assert (name, file, domain) == ("web", "web", "example.org")
    assert line.endswith("\tweb.example.org web")
    name, file, domain, line = told("--hostname", "a.b.c")
    assert (name, file, domain) == ("a.b.c", "a.b.c", "(none)")
    assert line.endswith("\ta.b.c a")
    host = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()
    assert told("--network", "host")[:2] == [host, host]
    name, file, *_ = told("--uts", "host")
    assert name == host and re.fullmatch("[0-9a-f]{12}", file)
    done = engine.docker("run", "--uts", "host", "--hostname", "x", "busybox", ok=False)
    assert "conflicting options: hostname and the UTS mode" in done.err


def test_the_user_s_choices_in_resolv_conf(engine, networks):
    show = ("busybox", "cat", "/etc/resolv.conf")
    chosen = ("--dns", "10.9.9.9", "--dns", "127.0.0.1", "--dns-search", "example.org")
    assert engine.docker("run", "--rm", *chosen, "--dns-option", "rotate", *show).out == (
        "nameserver 10.9.9.9\nnameserver 127.0.0.1\nsearch example.org\noptions rotate\n"
    )
    net = networks("names-a")
    assert engine.docker("run", "--rm", "--network", net, *chosen, *show).out == (
        "nameserver 127.0.0.11\nsearch example.org\noptions ndots:0\n"
    )
    text = engine.docker("run", "--rm", "--network", net, "--dns-option", "ndots:3", *show).out
    assert "options ndots:3\n" in text
    assert "search" not in engine.docker("run", "--rm", "--dns-search", ".", *show).out


def test_a_start_writes_the_files_anew(engine):
    idle(engine, "web")
    engine.docker("exec", "web", "sh", "-c", "echo 1.1.1.1 mine >> /etc/hosts")
    assert "1.1.1.1 mine" in hosts(engine, "web")
    engine.docker("restart", "-t", "0", "web")
    assert "1.1.1.1 mine" not in hosts(engine, "web")


# ---- links on the default bridge


def test_a_link_brings_names_and_variables(engine):
    idle(engine, "db", "-e", "SECRET=1", "--expose", "5432", "--hostname", "dbh")
    at = address(engine, "db", "bridge")
    idle(engine, "web", "--link", "db:data-base")
    assert hosts(engine, "web")[0] == f"{at}\tdata-base dbh db"
    variables = engine.docker("exec", "web", "env").out.splitlines()
    for expected in (
        f"DATA_BASE_PORT=tcp://{at}:5432",
        f"DATA_BASE_PORT_5432_TCP_ADDR={at}",
        "DATA_BASE_NAME=/web/data-base",
        "DATA_BASE_ENV_SECRET=1",
    ):
        assert expected in variables
    engine.docker("exec", "web", "ping", "-c", "1", "-W", "5", "data-base")
    assert engine.inspect("web", "{{json .HostConfig.Links}}") == '["/db:/web/data-base"]'
    listed = engine.request("GET", "/containers/json").body
    assert {name for c in listed for name in c["Names"]} == {"/web", "/db", "/web/data-base"}
    assert engine.inspect("web/data-base", "{{.Name}}") == "/db"


def test_a_linked_container_that_moves_is_found(engine):
    idle(engine, "db")
    idle(engine, "web", "--link", "db")
    engine.docker("stop", "-t", "0", "db")
    idle(engine, "squatter")
    engine.docker("start", "db")
    at = address(engine, "db", "bridge")
    assert hosts(engine, "web")[0].split()[:2] == [at, "db"]
    engine.docker("exec", "web", "ping", "-c", "1", "-W", "5", "db")


def test_links_need_a_container_that_runs(engine):
    idle(engine, "db")
    engine.docker("create", "--name", "web", "--link", "db:store", *IDLE)
    engine.docker("stop", "-t", "0", "db")
    done = engine.docker("start", "web", ok=False)
    assert "Cannot link to a non running container: /db AS /web/store" in done.err
    engine.docker("rm", "db")
    done = engine.docker("start", "web", ok=False)
    assert "Cannot link to a non running container: /db AS /web/store" in done.err
    engine.docker("rm", "--link", "web/store")
    engine.docker("start", "web")


def test_links_that_cannot_be(engine, networks):
    net = networks("names-a")
    idle(engine, "hosted", "--network", "host")
    idle(engine, "far", "--network", net)
    idle(engine, "web")

    def refused(*options):
        return engine.docker("run", "--rm", *options, "busybox", "true", ok=False).err

    assert "could not get container for nope: No such container: nope" in refused("--link", "nope")
    both = "network can't be used with links. This would result in undefined behavior"
    assert f"conflicting options: host type {both.replace('network', 'networking')}" in refused(
        "--link", "hosted"
    )
    assert "conflicting options: host type networking can't be used with links" in refused(
        "--network", "host", "--link", "web"
    )
    assert f"conflicting options: container type {both}" in refused(
        "--network", "container:web", "--link", "web"
    )
    assert "Cannot link to /far, as it does not belong to the default network" in refused(
        "--link", "far"
    )


def test_links_are_removed_and_follow_renames(engine):
    idle(engine, "db")
    idle(engine, "web", "--link", "db:a", "--link", "db:b")
    engine.docker("rename", "web", "site")
    engine.docker("rename", "db", "base")
    assert engine.inspect("site", "{{.HostConfig.Links}}") == "[/base:/site/a /base:/site/b]"
    assert engine.docker("rm", "--link", "site/a").out == "site/a\n"
    assert engine.inspect("site", "{{.HostConfig.Links}}") == "[/base:/site/b]"
    assert len(hosts(engine, "site")) == 2
    done = engine.docker("rm", "--link", "site/a", ok=False)
    assert "No such container: site/a" in done.err
    done = engine.docker("rm", "--link", "base", ok=False)
    assert "Conflict, cannot remove the default link name of the container" in done.err
    engine.kill()
    engine.start()
    assert engine.inspect("site/b", "{{.Name}}") == "/base"


def test_nothing_stays_of_containers_that_asked_and_went(engine, networks):
    net = networks("names-a")
    id = engine.docker("network", "inspect", "-f", "{{.Id}}", net).out
    ask = ("busybox", "sh", "-c", "nslookup -type=a outside.example >/dev/null & nslookup web")
    for _ in range(2):
        clients = [
            engine.spawn("run", "--rm", "--network", net, "--dns", "127.0.0.1", *ask)
            for _ in range(5)
        ]
        for client in clients:
            client.communicate(timeout=60)
    idle(engine, "kept", "--network", net)
    engine.kill()
    engine.start()
    assert lookup(engine, "kept", "kept")
    engine.docker("rm", "-f", "kept")
    plugged = Path(f"/sys/class/net/br-{id[:12]}/brif")
    deadline = time.monotonic() + 60  # the kernel takes namespaces away in its own time
    while left := list(plugged.iterdir()):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
