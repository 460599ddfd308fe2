"""Networks of containers: addresses, ports, modes, names."""

import http.client
import socket
import time
from pathlib import Path

import pytest
from docker_harness import SLOT
from network_helper import listens

from ports import free_port
from wherry.engine.network.pools import default_bridge
from wherry.net import namespaces

pytest_plugins = ("docker_fixtures",)

RANGE = default_bridge(SLOT)
GATEWAY = RANGE.replace(".0.0/16", ".0.1")

PORT, OTHER = free_port(), free_port()

SERVE = ("httpd", "-f", "-p", "80", "-h", "/etc")


def serve(engine, name, *options):
    engine.docker("run", "-d", "--name", name, *options, "busybox", *SERVE)
    listens(engine, name)
    return engine.inspect(name, "{{.NetworkSettings.IPAddress}}")


def host_port(engine, name, port="80"):
    """On which port of the host, the same on IPv4 and IPv6."""
    (number,) = {line.rpartition(":")[2] for line in engine.docker("port", name, port).out.split()}
    return int(number)


def fetch(address, port, path="/hostname"):
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = http.client.HTTPConnection(address, port, timeout=20)
            connection.request("GET", path)
            return connection.getresponse().read().decode().strip()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_each_container_has_its_own_address_and_name(engine):
    one, two = serve(engine, "one"), serve(engine, "two", "--hostname", "zwei")
    assert one != two
    assert fetch(two, 80) == "zwei"
    hosts = engine.docker("exec", "two", "cat", "/etc/hosts").out
    assert f"{two}\tzwei" in hosts
    assert engine.docker("exec", "one", "wget", "-qO-", f"http://{two}/hostname").out == "zwei\n"


def test_a_published_port_answers_from_the_host_and_from_containers(engine):
    serve(engine, "web", "-p", f"{PORT}:80", "--hostname", "web")
    assert fetch("127.0.0.1", PORT) == "web"
    gateway = engine.inspect("web", "{{.NetworkSettings.Gateway}}")
    assert fetch(gateway, PORT) == "web"
    inside = ("wget", "-qO-", f"http://{gateway}:{PORT}/hostname")
    assert engine.docker("exec", "web", *inside).out == "web\n"
    assert engine.docker("port", "web").out == (
        f"80/tcp -> 0.0.0.0:{PORT}\n80/tcp -> [::]:{PORT}\n"
    )


def test_a_taken_port_is_told_and_the_container_can_start_later(engine):
    serve(engine, "web", "-p", f"{PORT}:80")
    done = engine.docker(
        "run", "-d", "--name", "second", "-p", f"{PORT}:80", "busybox", *SERVE, ok=False
    )
    assert done.code == 125
    assert f"Bind for 0.0.0.0:{PORT} failed: port is already allocated" in done.err
    assert "driver failed programming external connectivity on endpoint second" in done.err
    engine.docker("rm", "-f", "web")
    engine.docker("start", "second")


def test_a_port_that_another_program_has_is_told(engine):
    with socket.socket() as other:
        other.bind(("0.0.0.0", OTHER))
        other.listen()
        done = engine.docker("run", "--rm", "-p", f"{OTHER}:80", "busybox", "true", ok=False)
    assert done.code == 125
    assert "address already in use" in done.err


def test_random_ports_and_ranges(engine):
    serve(engine, "any", "-p", "80")
    port = host_port(engine, "any")
    assert port > 1024
    fetch("127.0.0.1", port)
    serve(engine, "first", "-p", "18190-18191:80")
    serve(engine, "second", "-p", "18190-18191:80")
    assert {host_port(engine, name) for name in ("first", "second")} == {18190, 18191}


def test_publish_all_takes_the_exposed_ports(engine):
    serve(engine, "web", "-P", "--expose", "80")
    fetch("127.0.0.1", host_port(engine, "web"))


def test_a_port_on_one_address_is_on_no_other(engine):
    serve(engine, "web", "-p", f"127.0.0.1:{PORT}:80")
    fetch("127.0.0.1", PORT)
    gateway = engine.inspect("web", "{{.NetworkSettings.Gateway}}")
    with pytest.raises(OSError):
        socket.create_connection((gateway, PORT), timeout=1).close()


def test_a_port_is_reached_by_ipv6_though_the_container_has_none(engine):
    serve(engine, "web", "-p", f"{PORT}:80", "--hostname", "web")
    assert fetch("::1", PORT) == "web"
    serve(engine, "local", "-p", f"[::1]:{OTHER}:80", "--hostname", "local")
    assert fetch("::1", OTHER) == "local"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", OTHER), timeout=1).close()
    assert engine.docker("port", "local").out == f"80/tcp -> [::1]:{OTHER}\n"


def test_datagrams_are_published_beside_connections(engine):
    program = ("busybox", "sh", "-c", "while true; do echo pong | nc -l -p 80; done")
    engine.docker("run", "-d", "-p", f"{PORT}:80/tcp", "-p", f"{PORT}:81/udp", *program)
    engine.docker("run", "-d", "--name", "udp", "-p", f"{OTHER}:80/udp", "busybox", "sleep", "600")
    with pytest.raises(AssertionError, match="port is already allocated"):
        engine.docker("run", "-d", "-p", f"{OTHER}:81/udp", "busybox", "sleep", "600")
    engine.docker("run", "-d", "-p", f"{OTHER}:81/tcp", "busybox", "sleep", "600")
    path = engine.inspect("udp", "{{.NetworkSettings.SandboxKey}}")
    with namespaces.enter(Path(path)):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server:
        server.bind(("0.0.0.0", 80))
        server.settimeout(60)
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.settimeout(60)
                client.connect((address, OTHER))
                for word in (b"one", b"two"):
                    client.send(word)
                    data, peer = server.recvfrom(100)
                    assert data == word
                    server.sendto(word.upper(), peer)
                    assert client.recv(100) == word.upper()


def test_ranges_of_ports_are_published_pairwise(engine):
    engine.docker(
        "run", "-d", "--name", "range", "-p", "18190-18192:80-82", "busybox", "sleep", "600"
    )
    lines = engine.docker("port", "range").out.splitlines()
    assert [line for line in lines if "0.0.0.0" in line] == [
        f"{80 + n}/tcp -> 0.0.0.0:{18190 + n}" for n in range(3)
    ]
    done = engine.docker("run", "-p", "18190-18191:80-82", "busybox", "true", ok=False)
    assert done.code == 125


def test_several_addresses_for_one_port(engine):
    serve(engine, "web", "-p", f"127.0.0.1:{PORT}:80", "-p", f"127.0.0.2:{OTHER}:80")
    fetch("127.0.0.1", PORT)
    fetch("127.0.0.2", OTHER)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", OTHER), timeout=1).close()
    serve(engine, "other", "-p", f"127.0.0.2:{PORT}:80")  # free on this address
    done = engine.docker("run", "-p", f"{PORT}:80", "busybox", "true", ok=False)
    assert f"Bind for 0.0.0.0:{PORT} failed: port is already allocated" in done.err


def test_addresses_and_ports_are_free_after_the_end(engine):
    serve(engine, "web", "-p", f"{PORT}:80")
    engine.docker("rm", "-f", "web")
    held = engine.holdings()
    assert not held["ports"] and not held["namespaces"]
    serve(engine, "web", "-p", f"{PORT}:80")


def test_host_none_and_another_container_s_network(engine):
    links = ("busybox", "sh", "-c", "ls /sys/class/net; cat /proc/net/route | wc -l")
    assert engine.docker("run", "--rm", "--network", "none", *links).out == "lo\n1\n"
    shared = engine.docker("run", "--rm", "--network", "host", *links).out
    assert "lo" in shared and shared != "lo\n1\n"
    serve(engine, "web", "--hostname", "web")
    joined = engine.docker(
        *("run", "--rm", "--network", "container:web", "busybox"),
        *("sh", "-c", "hostname; wget -qO- http://127.0.0.1/hostname; tail -1 /etc/hosts"),
    ).out
    address = engine.inspect("web", "{{.NetworkSettings.IPAddress}}")
    assert joined == f"web\nweb\n{address}\tweb\n"


def test_joining_what_does_not_run_is_refused(engine):
    id = engine.docker("create", "--name", "idle", "busybox").out.strip()
    done = engine.docker("run", "--rm", "--network", "container:idle", "busybox", ok=False)
    assert f"cannot join network of a non running container: {id}" in done.err


def test_joining_itself_is_refused(engine):
    engine.docker("create", "--name", "self", "--network", "container:self", "busybox")
    done = engine.docker("start", "self", ok=False)
    assert "cannot join own network namespace" in done.err


def test_a_network_that_is_not_there(engine):
    done = engine.docker("run", "--rm", "--network", "nope", "busybox", ok=False)
    assert done.code == 125
    assert "network nope not found" in done.err


def test_names_and_servers_given_by_the_user(engine):
    done = engine.docker(
        *("run", "--rm", "--add-host", "db:10.1.2.3", "--add-host", "me:host-gateway"),
        *("--dns", "10.9.9.9", "--dns-search", "example.org", "busybox"),
        *("cat", "/etc/hosts", "/etc/resolv.conf"),
    ).out
    assert "10.1.2.3\tdb\n" in done
    assert f"{GATEWAY}\tme\n" in done
    assert "nameserver 10.9.9.9\nsearch example.org\n" in done


def test_networks_are_listed_and_inspected(engine):
    names = engine.docker("network", "ls", "--format", "{{.Name}} {{.Driver}}").out.splitlines()
    assert sorted(names) == ["bridge bridge", "host host", "none null"]
    serve(engine, "web")
    template = "{{range .Containers}}{{.Name}}{{end}} {{(index .IPAM.Config 0).Subnet}}"
    assert engine.docker("network", "inspect", "-f", template, "bridge").out == (f"web {RANGE}\n")
    done = engine.docker("network", "rm", "bridge", ok=False)
    assert "bridge is a pre-defined network and cannot be removed" in done.err


def test_the_outside_is_reached_by_the_host_s_address(engine):
    """No packet leaves the machine: an address of the host stands for the outside."""
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        server.settimeout(60)
        gateway = GATEWAY
        port = server.getsockname()[1]
        engine.docker("run", "-d", "busybox", "nc", gateway, str(port), "-e", "echo", "hi")
        connection, peer = server.accept()
        with connection:
            assert connection.recv(10) == b"hi\n"
            assert peer[0].startswith(RANGE.removesuffix("0.0/16"))
