"""Networks of users when the daemon is killed, at any moment, and when an instance is purged."""

import json
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from docker_harness import BRIDGE, Daemon
from network_helper import SERVE, V4, V6, hears, place, serve

from ports import free_port
from wherry.net.link import links

PORT = free_port()


@pytest.fixture
def own():
    """An engine of the test's own."""
    root = Path(tempfile.mkdtemp(prefix="wherry-engine-"))
    daemon = Daemon(root)
    try:
        daemon.start()
        daemon.import_busybox()
        yield daemon
    finally:
        daemon.stop()
        daemon.purge()
        shutil.rmtree(root, ignore_errors=True)


def output(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def elements(family, name):
    """The keys that a set of the engine's tables holds."""
    listed = json.loads(output("nft", "-j", "list", "set", family, BRIDGE, name))
    return {json.dumps(e) for e in listed["nftables"][1]["set"].get("elem", ())}


def held(daemon):
    """What the kernel holds for networks: links, blocked ranges, elements; and for containers."""
    networks = json.loads((daemon.data / "network" / "networks.json").read_text())["networks"]
    bridges = {n["link"] for n in networks if n["driver"] == "bridge"}
    on_them = set()
    for bridge in bridges:
        on_them |= {p.name for p in Path(f"/sys/class/net/{bridge}/brif").glob("*")}
    ours = {link for link in bridges if links.exists(link)}
    blocked = {line.split()[1] for line in output("ip", "route").splitlines() if "unreach" in line}
    wanted = {s["cidr"] for n in networks if n["driver"] == "bridge" for s in n["subnets"]}
    return {
        "bridges": ours == bridges,
        "routes": {c for c in wanted if ":" not in c} <= blocked,
        "set": elements("ip", "bridges") == {json.dumps(bridge) for bridge in bridges},
        "set of ipv6": elements("ip6", "bridges") == {json.dumps(bridge) for bridge in bridges},
        "phases": [n["name"] for n in networks if n["phase"]],
        "cables": on_them,
    }


def without_cables(daemon):
    """As ``held``, when the kernel has cleared away the cables of namespaces that are gone."""
    deadline = time.monotonic() + 60
    while (state := held(daemon))["cables"]:
        assert time.monotonic() < deadline, state["cables"]
        time.sleep(0.05)
    return state


def connects(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60):
        return True


def test_networks_go_on_while_no_daemon_is_there_and_are_taken_up(own):
    own.docker("network", "create", "--ipv6", "--subnet", f"{V4}.0/24", "one")
    own.docker("network", "create", "--internal", "two")
    serve(own, "web", "--network", "one", "-p", f"{PORT}:80")
    serve(own, "other", "--network", "one")
    own.docker("network", "connect", "two", "web")
    before = own.inspect("web")["NetworkSettings"]
    own.kill()
    assert connects(PORT)
    own.start()
    assert own.inspect("web")["NetworkSettings"] == before
    assert connects(PORT)
    serve(own, "third", "--network", "one")
    taken = {place(own, name, "one")["IPAddress"] for name in ("web", "other", "third")}
    assert len(taken) == 3
    assert hears(own, "third", place(own, "web", "one")["GlobalIPv6Address"]) == "web"
    own.docker("network", "disconnect", "two", "web")
    own.docker("rm", "-f", "web", "other", "third")
    own.docker("network", "rm", "one", "two")
    state = without_cables(own)
    assert all(state[k] for k in ("bridges", "routes", "set"))


@pytest.mark.parametrize("seed", range(3))
def test_a_daemon_killed_at_any_step_leaves_networks_whole_or_gone(own, seed):
    dice = random.Random(seed)
    serve(own, "web")
    own.docker("network", "create", "stays")
    for _ in range(4):
        commands = (
            ("network", "create", "--ipv6", "--subnet", f"{V6}:1::/64", "comes"),
            ("network", "connect", "comes", "web"),
            ("network", "connect", "stays", "web"),
            ("network", "disconnect", "stays", "web"),
            ("network", "disconnect", "comes", "web"),
            ("network", "rm", "comes"),
        )
        stop = threading.Event()

        def work(commands=commands, stop=stop):
            while not stop.is_set():
                for command in commands:
                    if not stop.is_set():
                        own.docker(*command, ok=False)

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(dice.uniform(0.05, 0.9))
        own.kill()
        stop.set()
        worker.join()
        own.start()
        state = held(own)
        on = own.inspect("web")["NetworkSettings"]["Networks"]
        assert all(state[k] for k in ("bridges", "routes", "set", "set of ipv6")), state
        assert not state["phases"]
        assert len(state["cables"]) == len(on), (state["cables"], on)
        interfaces = own.docker("exec", "web", "ls", "/sys/class/net").out.split()
        assert len(interfaces) == 1 + len(on)
    own.docker("rm", "-f", "web")
    own.docker("network", "prune", "-f")
    state = without_cables(own)
    assert all(state[k] for k in ("bridges", "routes", "set"))
    assert elements("ip6", "inside") == set()


def test_purging_leaves_no_link_route_or_rule_of_networks(own):
    # Ranges that no other engine of this machine takes once they are free.
    ranges = ("--subnet", f"{V4}.0/25", "--subnet", f"{V6}:2::/64")
    own.docker("network", "create", "--ipv6", *ranges, "one")
    own.docker("network", "create", "-d", "macvlan", "--subnet", f"{V4}.128/25", "alone")
    own.docker("run", "-d", "--network", "one", "-p", f"{PORT}:80", *SERVE)
    made = {link for _, link in socket.if_nameindex() if link.startswith(("br-", "dm-"))}
    documents = json.loads((own.data / "network" / "networks.json").read_text())["networks"]
    ours = {n["link"] for n in documents if n["link"]}
    assert len(ours & made) == 2
    own.stop()
    own.purge()
    assert not any(links.exists(link) for link in ours)
    assert BRIDGE not in {line.split()[-1] for line in output("nft", "list", "tables").splitlines()}
    for version in ("-4", "-6"):
        routes = output("ip", version, "route")
        assert not any(s["cidr"] in routes for n in documents for s in n["subnets"])
    own.start()
