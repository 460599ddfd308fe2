"""Networks of users: made, joined, left and removed through the docker client."""

import contextlib
import json
import socket
import subprocess
import time

import docker
import pytest
from docker_harness import until
from network_helper import SERVE, V4, ask, hears, network, place, refuses, routes, serve

from ports import free_port
from wherry.net.link import links

pytest_plugins = ("docker_fixtures",)

PORT = free_port()


@contextlib.contextmanager
def python_client(engine):
    client = docker.DockerClient(base_url=f"unix://{engine.socket}", version="1.44")
    try:
        yield client
    finally:
        client.close()


# ---- making and removing


def test_a_network_is_made_listed_inspected_and_removed(engine):
    id = engine.docker("network", "create", "--label", "a=b", "--attachable", "one").out.strip()
    shown = network(engine, "one")
    assert (shown["Id"], shown["Driver"], shown["Scope"]) == (id, "bridge", "local")
    assert shown["Labels"] == {"a": "b"} and shown["Attachable"] and not shown["Internal"]
    (config,) = shown["IPAM"]["Config"]
    assert config["Gateway"] == config["Subnet"].replace(".0/", ".1/").partition("/")[0]
    bridge = f"br-{id[:12]}"
    assert links.exists(bridge)
    assert engine.docker("network", "inspect", id[:8], "-f", "{{.Name}}").out == "one\n"
    assert engine.docker("network", "rm", "one").out == "one\n"
    assert not links.exists(bridge)

    def routed():
        table = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
        return {word for line in table.splitlines() for word in line.split()[:2]}

    until(lambda: config["Subnet"] not in routed())  # another engine may just have taken it
    assert refuses(engine, "network", "inspect", "one").endswith("network one not found")


def test_what_cannot_be_made_is_told_in_docker_s_words(engine):
    create = ("network", "create")
    engine.docker(*create, "--subnet", f"{V4}.0/24", "one")
    assert refuses(engine, *create, "one") == "network with name one already exists"
    assert refuses(engine, *create, "host") == (
        "operation is not permitted on predefined host network"
    )
    assert refuses(engine, *create, "-d", "weave", "x") == 'plugin "weave" not found'
    assert refuses(engine, *create, "--subnet", f"{V4}.0/25", "x") == (
        "invalid pool request: Pool overlaps with other one on this address space"
    )
    assert refuses(engine, *create, "--subnet", f"{V4}.1/24", "x") == (
        f"invalid network config:\ninvalid subnet {V4}.1/24: it should be {V4}.0/24"
    )
    for body, status, message in (
        ({"Name": ""}, 400, "invalid name: name is empty"),
        ({"Name": "one", "CheckDuplicate": False}, 409, "network with name one already exists"),
        ({"Name": "x", "Driver": 7}, 400, "cannot unmarshal number"),
        ({"Name": "x", "EnableIPv4": False}, 400, "IPv4 or IPv6 must be enabled"),
        ({"Name": "x", "Driver": "host"}, 403, 'only one instance of "host" network is allowed'),
        ({"Name": "x", "Scope": "swarm"}, 403, "cannot create a swarm scoped network"),
        ({"Name": "x", "ConfigFrom": {"Network": "y"}}, 404, "does not exist"),
        ({"Name": "x", "IPAM": {"Driver": "dhcp"}}, 404, 'plugin "dhcp" not found'),
        ({"Name": "x", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}, 400, "invalid subnet"),
    ):
        answer = engine.request("POST", "/v1.50/networks/create", body)
        assert (answer.status, message in answer.body["message"]) == (status, True), answer.body
    assert engine.request("POST", "/networks/create", {"Name": "two"}).status == 201


def test_networks_are_filtered(engine):
    engine.docker("network", "create", "--label", "tier=front", "front")
    engine.docker("network", "create", "--label", "tier=back", "-d", "macvlan", "back")
    serve(engine, "web", "--network", "front")

    def listed(*filters):
        flags = [word for one in filters for word in ("-f", one)]
        names = engine.docker("network", "ls", "--format", "{{.Name}}", *flags).out.split()
        return sorted(names)

    assert listed() == ["back", "bridge", "front", "host", "none"]
    assert listed("driver=macvlan") == ["back"]
    assert listed("label=tier") == ["back", "front"]
    assert listed("label=tier=front") == ["front"]
    assert listed("name=fro") == ["front"]
    assert listed("type=builtin") == ["bridge", "host", "none"]
    assert listed("type=custom", "scope=local") == ["back", "front"]
    assert listed("dangling=true") == ["back"]
    assert "front" not in listed("dangling=true") and "bridge" in listed("dangling=false")
    assert listed(f"id={network(engine, 'front')['Id'][:6]}") == ["front"]
    assert "invalid filter 'colour'" in refuses(engine, "network", "ls", "-f", "colour=red")
    assert "invalid filter: 'type'='x'" in refuses(engine, "network", "ls", "-f", "type=x")


def test_a_network_in_use_stays_and_prune_takes_the_others(engine):
    engine.docker("network", "create", "used")
    engine.docker("network", "create", "--label", "keep", "kept")
    engine.docker("network", "create", "idle")
    serve(engine, "web", "--network", "used")
    endpoint = place(engine, "web", "used")["EndpointID"]
    assert refuses(engine, "network", "rm", "used").startswith(
        "error while removing network: network used has active endpoints "
        f'(name:"web" id:"{endpoint[:12]}")'
    )
    pruned = engine.docker("network", "prune", "-f", "--filter", "label!=keep").out
    assert pruned == "Deleted Networks:\nidle\n\n"
    assert engine.docker("network", "prune", "-f", "--filter", "until=1h").out == ""
    # One that only a stopped container would use is not in use.
    engine.docker("stop", "-t", "0", "web")
    id = network(engine, "used")["Id"]
    assert "used" in engine.docker("network", "prune", "-f").out
    assert f"network {id} not found" in refuses(engine, "start", "web")


def test_a_configuration_is_kept_apart_from_the_networks_made_of_it(engine):
    engine.docker("network", "create", "--config-only", "--subnet", f"{V4}.0/24", "config")
    assert network(engine, "config")["ConfigOnly"]
    engine.docker("network", "create", "--config-from", "config", "one")
    shown = network(engine, "one")
    assert shown["ConfigFrom"] == {"Network": "config"}
    assert shown["IPAM"]["Config"][0]["Subnet"] == f"{V4}.0/24"
    assert 'configuration network "config" is in use' in refuses(engine, "network", "rm", "config")
    engine.docker("network", "rm", "one")


# ---- addresses


def test_addresses_are_given_from_the_range_and_on_demand(engine):
    engine.docker(
        *("network", "create", "--subnet", f"{V4}.0/24", "--gateway", f"{V4}.254"),
        *("--ip-range", f"{V4}.64/26", "--aux-address", f"router={V4}.64", "one"),
    )
    assert network(engine, "one")["IPAM"]["Config"] == [
        {
            "Subnet": f"{V4}.0/24",
            "IPRange": f"{V4}.64/26",
            "Gateway": f"{V4}.254",
            "AuxiliaryAddresses": {"router": f"{V4}.64"},
        }
    ]
    serve(engine, "first", "--network", "one")
    assert place(engine, "first", "one")["IPAddress"] == f"{V4}.65"
    serve(
        engine,
        "wanted",
        "--network",
        "one",
        "--ip",
        f"{V4}.9",
        "--mac-address",
        "02:aa:00:01:02:03",
    )
    settings = place(engine, "wanted", "one")
    assert settings["IPAddress"] == f"{V4}.9" and settings["MacAddress"] == "02:aa:00:01:02:03"
    assert settings["IPAMConfig"] == {"IPv4Address": f"{V4}.9"}
    assert f"{V4}.9/24" in engine.docker("exec", "wanted", "ip", "-o", "addr").out
    for address, problem in (
        (f"{V4}.9", "Address already in use"),
        (f"{V4}.254", "Address already in use"),
        ("10.246.0.1", "no configured subnet or ip-range contain the IP address 10.246.0.1"),
    ):
        assert problem in refuses(engine, "run", "--network", "one", "--ip", address, "busybox")
    engine.docker("rm", "-f", "wanted")
    # It is free again, and kept over a restart.
    serve(engine, "later", "--network", "one", "--ip", f"{V4}.9")
    engine.docker("restart", "-t", "0", "later")
    assert place(engine, "later", "one")["IPAddress"] == f"{V4}.9"


def test_a_small_range_runs_out_and_comes_back(engine):
    engine.docker("network", "create", "--subnet", f"{V4}.0/30", "tiny")
    serve(engine, "only", "--network", "tiny")
    told = refuses(engine, "run", "--network", "tiny", "busybox")
    assert "no available IPv4 addresses on this network's address pools: tiny" in told
    engine.docker("stop", "-t", "0", "only")
    assert engine.docker("run", "--rm", "--network", "tiny", "busybox", "echo", "in").out == "in\n"


def test_static_addresses_and_aliases_need_a_network_of_a_user(engine):
    told = refuses(engine, "create", "--ip", "172.17.0.9", "busybox")
    assert "user specified IP address is supported on user defined networks only" in told
    engine.docker("network", "create", "one")
    told = refuses(engine, "run", "--network", "one", "--ip", "172.31.0.9", "busybox")
    assert "only when connecting to networks with user configured subnets" in told


# ---- joining and leaving


def test_a_running_container_joins_and_leaves(engine):
    for name in ("one", "two"):
        engine.docker("network", "create", name)
    serve(engine, "web", "--network", "one", "-p", f"{PORT}:80")
    serve(engine, "other", "--network", "two")
    target = place(engine, "other", "two")["IPAddress"]
    assert ask(engine, "web", target) is None
    engine.docker("network", "connect", "--alias", "www", "two", "web")
    assert hears(engine, "web", target) == "other"
    joined = place(engine, "web", "two")
    assert joined["Aliases"] == ["www"] and "www" in joined["DNSNames"]
    assert hears(engine, "other", joined["IPAddress"]) == "web"
    members = network(engine, "two")["Containers"]
    assert {m["Name"]: m["IPv4Address"] for m in members.values()} == {
        "other": f"{target}/{joined['IPPrefixLen']}",
        "web": f"{joined['IPAddress']}/{joined['IPPrefixLen']}",
    }
    assert refuses(engine, "network", "connect", "two", "web") == (
        "endpoint with name web already exists in network two"
    )
    # It leaves the network it came with: the other one is its way out, and its port's, from now.
    engine.docker("network", "disconnect", "one", "web")
    assert f"default via {joined['Gateway']} dev eth1" in routes(engine, "web")
    with socket.create_connection(("127.0.0.1", PORT), timeout=60):
        pass
    engine.docker("network", "connect", "one", "web")
    assert "eth0" in engine.docker("exec", "web", "ip", "-o", "addr").out
    engine.docker("network", "disconnect", "two", "web")
    assert ask(engine, "web", target) is None
    id = engine.inspect("web", "{{.Id}}")
    assert refuses(engine, "network", "disconnect", "two", "web") == (
        f"container {id} is not connected to network two"
    )
    engine.docker("network", "disconnect", "-f", "one", "web")
    assert engine.docker("exec", "web", "ls", "/sys/class/net").out == "lo\n"


def test_a_container_that_does_not_run_joins_and_leaves_for_later(engine):
    for name in ("one", "two"):
        engine.docker("network", "create", name)
    id = engine.docker("create", "--name", "idle", "--network", "one", *SERVE).out.strip()
    engine.docker("network", "connect", "two", "idle")
    engine.docker("network", "connect", "--gw-priority", "1", "bridge", "idle")
    assert network(engine, "two")["Containers"] == {}
    engine.docker("start", "idle")
    assert set(engine.inspect("idle")["NetworkSettings"]["Networks"]) == {"one", "two", "bridge"}
    gateway = engine.inspect("idle", "{{.NetworkSettings.Gateway}}")
    assert f"default via {gateway} dev eth2" in routes(engine, "idle")
    engine.docker("stop", "-t", "0", "idle")
    engine.docker("network", "disconnect", "bridge", "idle")
    assert refuses(engine, "network", "disconnect", "bridge", "idle") == (
        f"container {id} is not connected to the network bridge"
    )
    engine.docker("start", "idle")
    assert "default via" in routes(engine, "idle")
    assert refuses(engine, "network", "connect", "nope", "idle") == "network nope not found"
    assert "No such container: nope" in refuses(engine, "network", "connect", "one", "nope")


def test_a_container_is_made_on_several_networks_at_once(engine):
    for name in ("one", "two"):
        engine.docker("network", "create", name)
    engine.docker(
        *("run", "-d", "--name", "web", "--network", "one"),
        *("--network", "name=two,gw-priority=5,driver-opt=com.docker.network.endpoint.ifname=out0"),
        *SERVE,
    )
    settings = engine.inspect("web")["NetworkSettings"]["Networks"]
    assert settings["two"]["GwPriority"] == 5
    assert f"default via {settings['two']['Gateway']} dev out0" in routes(engine, "web")
    body = {
        "Image": "busybox",
        "NetworkingConfig": {"EndpointsConfig": {"one": {}, "two": {}}},
        "HostConfig": {"NetworkMode": "one"},
    }
    assert engine.request("POST", "/v1.44/containers/create", body).status == 201
    answer = engine.request("POST", "/v1.43/containers/create", body)
    assert (answer.status, answer.body["message"]) == (
        400,
        "Container cannot be created with multiple network endpoints: one, two",
    )


def test_host_none_and_shared_networks_go_with_no_other(engine):
    engine.docker("network", "create", "one")
    for mode, told in (
        ("host", "container sharing network namespace with another container or host cannot be"),
        ("none", "container cannot be connected to multiple networks with one of the networks in"),
        ("container:web", "container sharing network namespace with another container or host"),
    ):
        if mode.startswith("container"):
            serve(engine, "web")
        name = f"with-{mode[:4]}"
        engine.docker("run", "-d", "--name", name, "--network", mode, "busybox", "sleep", "600")
        assert told in refuses(engine, "network", "connect", "one", name)
    assert "container must be created in host network mode" in refuses(
        engine, "network", "connect", "host", "web"
    )
    assert "container was created in host network mode" in refuses(
        engine, "network", "disconnect", "host", "with-host"
    )
    assert [c["Name"] for c in network(engine, "host")["Containers"].values()] == ["with-host"]


def test_events_tell_of_all_that_happens_to_networks(engine):
    begun = f"{time.time():.9f}"
    engine.docker("network", "create", "one")
    serve(engine, "web")
    engine.docker("network", "connect", "one", "web")
    engine.docker("network", "disconnect", "one", "web")
    engine.docker("network", "rm", "one")
    engine.docker("network", "prune", "-f")
    lines = engine.docker(
        *("events", "--since", begun, "--until", f"{time.time():.9f}", "-f", "type=network"),
        *("--format", "{{json .}}"),
    ).out.splitlines()
    seen = [json.loads(line) for line in lines]
    container = engine.inspect("web", "{{.Id}}")
    assert [(e["Action"], e["Actor"]["Attributes"]) for e in seen] == [
        ("create", {"name": "one", "type": "bridge"}),
        ("connect", {"name": "bridge", "type": "bridge", "container": container}),
        ("connect", {"name": "one", "type": "bridge", "container": container}),
        ("disconnect", {"name": "one", "type": "bridge", "container": container}),
        ("destroy", {"name": "one", "type": "bridge"}),
        ("prune", {"reclaimed": "0"}),
    ]


# ---- the client for Python


def test_docker_py_makes_joins_and_leaves(engine):
    with python_client(engine) as client:
        pool = docker.types.IPAMPool(subnet=f"{V4}.0/24", gateway=f"{V4}.1")
        made = client.networks.create(
            "one",
            driver="bridge",
            ipam=docker.types.IPAMConfig(pool_configs=[pool]),
            labels={"a": "b"},
            internal=False,
            enable_ipv6=False,
        )
        container = client.containers.run("busybox", "sleep 600", detach=True, name="web")
        made.connect(container, ipv4_address=f"{V4}.20", aliases=["www"])
        made.reload()
        assert [c.name for c in made.containers] == ["web"]
        container.reload()
        settings = container.attrs["NetworkSettings"]["Networks"]["one"]
        assert settings["IPAddress"] == f"{V4}.20"
        # Before API 1.45 the names that all have were among the aliases.
        assert settings["Aliases"] == ["www", container.id[:12]]
        with pytest.raises(docker.errors.APIError) as caught:
            made.remove()
        assert caught.value.status_code == 403
        made.disconnect(container)
        made.remove()
        with pytest.raises(docker.errors.NotFound):
            client.networks.get("one")
        assert client.networks.prune()["NetworksDeleted"] is None
        assert {n.name for n in client.networks.list(names=["bridge"])} == {"bridge"}
