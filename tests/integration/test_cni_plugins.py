"""Pods connected by Debian's CNI plugins: bridge, host-local, portmap and bandwidth in a chain, and
one of our own that writes down how it was called."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from machines import Machines, NodeInstance, machines

from wherry.launcher import instance as instances

PROGRAMS = Path("/usr/lib/cni")
WITNESS = """#!/bin/sh
call=$(cat)
printf '%s\\t%s\\t%s\\t%s\\n' "$CNI_COMMAND" "$CNI_IFNAME" "$CNI_ARGS" "$call" >> HOME/calls
while [ -e HOME/hang ]; do sleep 0.1; done
if [ -e HOME/refuse ]; then
    echo '{"cniVersion":"1.0.0","code":11,"msg":"no luck","details":"today"}'
    exit 1
fi
[ "$CNI_COMMAND" != ADD ] || printf '%s' "$call" | PYTHON -c \\
    'import json, sys; print(json.dumps(json.load(sys.stdin)["prevResult"]))'
"""

# Knows version 1.1 of the specification, and has the bridge's plugin do what that can.
MODERN = """#!/bin/sh
call=$(cat)
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'; exit;;
STATUS)
    if [ -e HOME/unready ]; then
        echo '{"cniVersion":"1.1.0","code":50,"msg":"the fabric is down","details":"since noon"}'
        exit 1
    fi
    exit;;
GC) printf '%s\\n' "$call" >> HOME/collections; exit;;
esac
printf '%s' "$call" | sed 's/"cniVersion":"1.1.0"/"cniVersion":"1.0.0"/; s/"modern"/"bridge"/' |
    PROGRAMS/bridge
"""

pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "bridge").exists(), reason="needs the package containernetworking-plugins"
)


class Node:
    """One node, its directories of configuration and programs, and what its plugins keep."""

    def __init__(self, bench: Machines) -> None:
        self.home = bench.home
        self.instance: NodeInstance = bench.instance("a")
        self.confs, programs = self.home / "net.d", self.home / "programs"
        for directory in (self.confs, programs):
            directory.mkdir()
        for name, script in (("witness", WITNESS), ("modern", MODERN)):
            for word, meant in (
                ("HOME", self.home),
                ("PYTHON", sys.executable),
                ("PROGRAMS", PROGRAMS),
            ):
                script = script.replace(word, str(meant))
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
        self.options = (
            "--cni-conf-dir",
            str(self.confs),
            "--cni-bin-dir",
            f"{programs}:{PROGRAMS}",
        )
        self.calls_file, self.refuse = self.home / "calls", self.home / "refuse"
        self.leases = self.home / "leases" / "pods"
        self.conf: dict[str, Any] = {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "ipMasq": True,
                    "hairpinMode": True,
                    "mtu": 1400,
                    "capabilities": {"ipRanges": True},
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.leases.parent),
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
                {"type": "witness", "capabilities": {"portMappings": True, "dns": False}},
                # At the end: version 1.1.1 does not outlive the CHECK of a pod without a limit.
                {"type": "bandwidth", "capabilities": {"bandwidth": True}},
            ],
        }

    def configure(self) -> None:
        (self.confs / "10-pods.conflist").write_text(json.dumps(self.conf))

    def run(self, *argv: str, ok: bool = True) -> str:
        return self.instance.machine.run(*argv, ok=ok).out

    def kubectl(self, *arguments: str, stdin: str | None = None, ok: bool = True) -> str:
        done = self.instance.kubectl(*arguments, stdin=stdin, ok=ok)
        return done.out if ok else done.out + done.err

    def create(self, name: str, *, ready: bool = True, **changes: Any) -> None:
        container = {
            "name": "web",
            "image": "busybox:latest",
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", "mkdir /www; hostname > /www/name; httpd -f -p 80 -h /www"],
            "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
            **changes.pop("container", {}),
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web"}, **changes.pop("metadata", {})},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **changes},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        if ready:
            self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=110s")

    def delete(self, *names: str) -> None:
        self.kubectl("delete", "pod", *names, "--wait=true")

    def address(self, name: str) -> str:
        return str(self.instance.get("pod", name)["status"]["podIP"])

    def unready(self) -> str:
        """Why the node is not Ready; empty where it is."""
        conditions = self.instance.get("node", "a")["status"]["conditions"]
        ready = next(c for c in conditions if c["type"] == "Ready")
        return "" if ready["status"] == "True" else str(ready["message"])

    def events(self, name: str) -> str:
        return self.kubectl("get", "events", "--field-selector", f"involvedObject.name={name}")

    def install(self) -> None:
        """By a pod of a DaemonSet that is on the node's own network."""
        conf = json.dumps(self.conf)
        script = f"echo '{conf}' > /net.d/.new; mv /net.d/.new /net.d/10-pods.conflist; sleep 1d"
        container = {
            "name": "main",
            "image": "busybox:latest",
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "net-d", "mountPath": "/net.d"}],
        }
        spec = {
            "hostNetwork": True,
            "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
            "containers": [container],
            "volumes": [{"name": "net-d", "hostPath": {"path": str(self.confs)}}],
            "terminationGracePeriodSeconds": 0,
        }
        labels = {"app": "installer"}
        daemons = {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "installer"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(daemons))
        self.kubectl("wait", "--for=condition=Ready", "node/a", "--timeout=110s")
        self.kubectl("delete", "ds", "installer")

    def leased(self) -> set[str]:
        return {p.name for p in self.leases.iterdir() if p.name[0].isdigit()}

    def calls(self) -> list[tuple[str, str, dict[str, str], dict[str, Any]]]:
        found = []
        for line in self.calls_file.read_text().splitlines():
            command, interface, arguments, call = line.split("\t", 3)
            pairs = dict(pair.split("=", 1) for pair in arguments.split(";"))
            found.append((command, interface, pairs, json.loads(call)))
        return found

    def calls_for(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        return [(c, call) for c, _, pairs, call in self.calls() if pairs["K8S_POD_NAME"] == name]

    def nothing_left(self) -> bool:
        """Whether no pod has anything of the plugins any more."""
        records = self.instance.data_dir / "engine" / "network" / "cni"
        links = [w for w in self.run("ip", "-o", "link").split() if w.startswith(("veth", "bwp"))]
        rules = self.run("iptables", "-t", "nat", "-S")
        return not (self.leased() or links or "-A CNI-DN-" in rules or any(records.glob("*.json")))


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with machines() as bench:
        made = Node(bench)
        # Without a configuration the node is not ready, and says why.
        why = (
            "container runtime network not ready: NetworkReady=false "
            "reason:NetworkPluginNotReady message:docker: network plugin is not ready: "
            "cni config uninitialized"
        )
        said = made.instance.wherry("up", "--node-name", "a", *made.options).out
        assert f"node a is not Ready yet: {why}\n" in said
        assert made.unready() == why
        (made.confs / "05-broken.conflist").write_text("{")
        made.instance.wherry("images bootstrap", "busybox")
        # What brings the configuration is a pod itself, as manifests of network plugins have it.
        made.create("early", ready=False, nodeName="a")  # no scheduler would put it there
        eventually(lambda: f"network is not ready: {why}" in made.events("early"))
        made.install()
        made.kubectl("wait", "--for=condition=Ready", "pod/early", "--timeout=110s")
        made.delete("early")
        yield made
        # What a pod that still runs has, goes with the instance.
        made.create("last", container={"ports": [{"containerPort": 80, "hostPort": 8099}]})
        made.instance.wherry("down", "--purge", "--grace", "0")
        assert not made.leased()
        assert "-A CNI-DN-" not in made.run("iptables", "-t", "nat", "-S")
        assert "veth" not in made.run("ip", "-o", "link")


def test_pods_have_the_addresses_that_the_plugins_gave(node: Node) -> None:
    node.create("one")
    node.create("two")
    addresses = {name: node.address(name) for name in ("one", "two")}
    eventually(lambda: node.leased() == set(addresses.values()))
    for name, other in (("one", "two"), ("two", "one")):
        inside = node.kubectl("exec", name, "--", "ip", "addr", "show", "dev", "eth0")
        assert f"inet {addresses[name]}/24" in inside and "mtu 1400" in inside
        url = f"http://{addresses[other]}/name"
        assert node.kubectl("exec", name, "--", "wget", "-qO-", url).strip() == other
        assert node.run("curl", "-s", f"http://{addresses[name]}/name").strip() == name
    wide = node.kubectl("get", "pods", "-o", "wide")
    assert all(address in wide for address in addresses.values())
    # The bridge is the plugin's; ours is not there.
    assert f"{node.address('one').rpartition('.')[0]}.1/24" in node.run(
        "ip", "addr", "show", "cni0"
    )
    node.delete("one", "two")
    eventually(node.nothing_left)


def test_services_and_names_work_for_them(node: Node) -> None:
    node.create("first")
    node.create("second")
    node.kubectl("expose", "pod", "first", "--name=web", "--port=80", "--selector=app=web")
    try:
        # By a service a pod reaches the other, and itself.
        command = (
            "for i in 1 2 3 4 5 6; do wget -qO- http://web.default.svc.cluster.local/name; done"
        )

        def both() -> bool:
            said = node.kubectl("exec", "first", "--", "sh", "-c", command, ok=False).split()
            return said.count("first") == said.count("second") == 3

        eventually(both)
    finally:
        node.kubectl("delete", "service", "web")
        node.delete("first", "second")


def test_network_policies_hold_for_them(node: Node) -> None:
    node.create("guarded")
    node.create("visitor")
    url = f"http://{node.address('guarded')}/name"
    visit = ("exec", "visitor", "--", "timeout", "2", "wget", "-qO-", url)
    eventually(lambda: node.kubectl(*visit, ok=False).strip() == "guarded")
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    node.kubectl("apply", "-f", "-", stdin=json.dumps(policy))
    try:
        eventually(lambda: "guarded" not in node.kubectl(*visit, ok=False))
    finally:
        node.kubectl("delete", "networkpolicy", "closed")
    eventually(lambda: node.kubectl(*visit, ok=False).strip() == "guarded")
    node.delete("guarded", "visitor")


def test_plugins_are_told_of_the_pod_and_of_what_they_want_to_know(node: Node) -> None:
    annotations = {"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "4M"}
    ports = [{"containerPort": 80, "hostPort": 8081, "hostIP": "198.18.0.1"}]
    node.create("known", container={"ports": ports}, metadata={"annotations": annotations})
    pod = node.instance.get("pod", "known")
    command, interface, arguments, call = next(
        entry for entry in node.calls() if entry[2]["K8S_POD_NAME"] == "known"
    )
    assert (command, interface) == ("ADD", "eth0")
    assert arguments["K8S_POD_NAMESPACE"] == "default" and arguments["IgnoreUnknown"] == "1"
    assert arguments["K8S_POD_UID"] == pod["metadata"]["uid"]
    assert (call["name"], call["cniVersion"]) == ("pods", "1.0.0")
    mapping = {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "198.18.0.1"}
    assert call["runtimeConfig"] == {"portMappings": [mapping]}
    assert call["prevResult"]["ips"][0]["address"] == f"{node.address('known')}/24"
    assert node.run("curl", "-s", "http://198.18.0.1:8081/name").strip() == "known"
    limits = node.run("tc", "qdisc", "show")
    assert "rate 8Mbit" in limits and "rate 4Mbit" in limits
    node.delete("known")
    eventually(node.nothing_left)
    last, call = node.calls_for("known")[-1]
    # In the end they are told what they had answered.
    assert last == "DEL" and call["prevResult"]["ips"] and call["runtimeConfig"]


def test_a_plugin_that_refuses_is_told_of_in_an_event_and_undone(node: Node) -> None:
    node.refuse.touch()
    try:
        node.create("unlucky", ready=False)
        wanted = (
            'networkPlugin cni failed to set up pod "unlucky_default" network: '
            'plugin type="witness" failed (add): no luck; today'
        )
        events = ("get", "events", "--field-selector", "involvedObject.name=unlucky")

        def told() -> bool:
            said = node.kubectl(*events)
            begins = 'Failed to create pod sandbox: failed to set up sandbox container "'
            return all(text in said for text in (begins, wanted, "FailedCreatePodSandBox"))

        eventually(told)
        eventually(lambda: "ContainerCreating" in node.kubectl("get", "pod", "unlucky"))
    finally:
        node.refuse.unlink()
    node.kubectl("wait", "--for=condition=Ready", "pod/unlucky", "--timeout=110s")
    eventually(lambda: node.leased() == {node.address("unlucky")})
    node.delete("unlucky")
    eventually(node.nothing_left)


def test_a_plugin_that_is_not_there_is_named(node: Node) -> None:
    plugins = [*node.conf["plugins"], {"type": "missing"}]
    ahead = node.confs / "01-ahead.conflist"
    ahead.write_text(json.dumps({**node.conf, "plugins": plugins}))
    node.create("waiting", ready=False)
    events = ("get", "events", "--field-selector", "involvedObject.name=waiting")
    eventually(
        lambda: 'failed to find plugin "missing" in path' in node.kubectl(*events), seconds=60
    )
    ahead.unlink()
    node.kubectl("wait", "--for=condition=Ready", "pod/waiting", "--timeout=110s")
    node.delete("waiting")
    eventually(node.nothing_left)


def test_a_bandwidth_that_makes_no_sense_is_told(node: Node) -> None:
    annotations = {"kubernetes.io/ingress-bandwidth": "5"}
    node.create("slow", ready=False, metadata={"annotations": annotations})
    events = ("get", "events", "--field-selector", "involvedObject.name=slow")
    wanted = (
        "failed to get pod bandwidth from annotations: resource is unreasonably small (< 1kbit)"
    )
    eventually(lambda: wanted in node.kubectl(*events))
    node.delete("slow")


def test_plugins_of_version_1_1_say_how_they_are_and_hear_which_pods_there_are(
    node: Node,
) -> None:
    versions = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"]}
    modern = {**node.conf["plugins"][0], "type": "modern"}
    ahead = node.confs / "01-modern.conflist"
    unready, collections = node.home / "unready", node.home / "collections"
    try:
        # With one that knows no more than 1.0, that is what is spoken.
        plugins = [modern, {"type": "tuning"}]
        unready.touch()
        ahead.write_text(json.dumps({**versions, "name": "old", "plugins": plugins}))
        node.create("plain")
        assert not node.unready()

        ahead.write_text(json.dumps({**versions, "name": "modern", "plugins": [modern]}))
        wanted = (
            "container runtime network not ready: NetworkReady=false "
            "reason:NetworkPluginNotReady message:docker: network plugin is not ready: "
            'plugin type="modern" failed (status): the fabric is down; since noon'
        )
        eventually(lambda: node.unready() == wanted)
        assert node.run("curl", "-s", f"http://{node.address('plain')}/name").strip() == "plain"
        bound = {"nodeName": "a"}  # no scheduler would put it there now
        node.create("kept", ready=False, **bound)
        eventually(lambda: f"network is not ready: {wanted}" in node.events("kept"))
        unready.unlink()
        node.kubectl("wait", "--for=condition=Ready", "node/a", "pod/kept", "--timeout=110s")

        assert not collections.exists()
        os.kill(node.instance.pid("node"), signal.SIGKILL)
        node.instance.wherry("up")
        (line,) = eventually(lambda: collections.exists() and collections.read_text().splitlines())
        told = json.loads(line)
        (valid,) = told["cni.dev/valid-attachments"]  # the other is on another network
        assert valid["ifname"] == "eth0" and told["name"] == "modern"
        records = node.instance.data_dir / "engine" / "network" / "cni"
        names = {json.loads(r.read_text())["attachment"]["name"]: r.stem for r in records.iterdir()}
        assert valid["containerID"] == names["kept"]
        node.kubectl("wait", "--for=condition=Ready", "node/a", "--timeout=110s")
    finally:
        ahead.unlink()
        unready.unlink(missing_ok=True)
    eventually(lambda: not node.unready())
    node.delete("plain", "kept")
    eventually(node.nothing_left)


def test_without_its_configuration_a_node_is_unready_until_it_returns(node: Node) -> None:
    configuration = node.confs / "10-pods.conflist"
    aside = node.home / "aside"
    configuration.rename(aside)
    try:
        eventually(lambda: "cni config uninitialized" in node.unready())
    finally:
        aside.rename(configuration)
    eventually(lambda: not node.unready())


def test_pods_outlive_a_killed_node_and_go_with_all_they_had(node: Node) -> None:
    node.create("survivor")
    node.create("gone", container={"ports": [{"containerPort": 80, "hostPort": 8082}]})
    address = node.address("survivor")
    os.kill(node.instance.pid("node"), signal.SIGKILL)
    # While nobody looks, one pod is deleted, and another configuration comes.
    (node.confs / "10-pods.conflist").write_text(json.dumps({**node.conf, "name": "others"}))
    node.kubectl("delete", "pod", "gone", "--force", "--grace-period=0")
    try:
        node.instance.wherry("up")
        wanted = ("CHECK", "pods")
        eventually(lambda: wanted in [(c, call["name"]) for c, call in node.calls_for("survivor")])
        assert node.run("curl", "-s", f"http://{address}/name").strip() == "survivor"
        # What was given by the former configuration is taken back by it.
        eventually(lambda: node.leased() == {address})
        last, call = node.calls_for("gone")[-1]
        assert (last, call["name"]) == ("DEL", "pods")
        assert "-A CNI-DN-" not in node.run("iptables", "-t", "nat", "-S")
    finally:
        node.configure()
    node.delete("survivor")
    eventually(node.nothing_left)


def test_what_was_half_given_when_the_node_was_killed_is_taken_back(node: Node) -> None:
    hang = node.home / "hang"
    hang.touch()
    try:
        node.create("half", ready=False)
        eventually(lambda: node.calls_for("half"))
        given = node.leased()
        assert len(given) == 1
        os.kill(node.instance.pid("node"), signal.SIGKILL)
    finally:
        hang.unlink()
    node.instance.wherry("up")
    node.kubectl("wait", "--for=condition=Ready", "pod/half", "--timeout=110s")
    assert [command for command, _ in node.calls_for("half")] == ["ADD", "DEL", "ADD"]
    eventually(lambda: node.leased() == {node.address("half")})
    assert not given & node.leased()
    node.delete("half")
    eventually(node.nothing_left)


def test_what_a_stopped_node_had_is_given_back(node: Node) -> None:
    node.create("sleeper")
    node.instance.wherry("down", "--grace", "0")
    assert node.nothing_left()
    node.instance.wherry("up")
    # It runs again, with a place that is new.
    eventually(lambda: "1/1" in node.kubectl("get", "pod", "sleeper") and node.leased())
    node.delete("sleeper")
    eventually(node.nothing_left)


def test_pods_are_ours_again_when_the_plugins_are_forgotten(node: Node) -> None:
    bridge = f"{instances.find(node.instance.data_dir).pod_bridge}:"  # type: ignore[union-attr]
    assert bridge not in node.run("ip", "-o", "link").split()
    node.instance.wherry("down", "--grace", "0")
    node.run("ip", "link", "delete", "cni0")  # it has the range of the pods
    node.instance.wherry("up", "--cni-conf-dir", "")
    try:
        node.create("ours")
        assert node.run("curl", "-s", f"http://{node.address('ours')}/name").strip() == "ours"
        assert node.leased() == set()
        assert bridge in node.run("ip", "-o", "link").split()
        node.delete("ours")
    finally:
        node.instance.wherry("down", "--grace", "0")
        node.instance.wherry("up", *node.options)
    assert bridge not in node.run("ip", "-o", "link").split()
    node.create("theirs")
    assert node.leased() == {node.address("theirs")}
    node.delete("theirs")
    eventually(node.nothing_left)


def test_options_are_kept_and_refused_while_it_runs(node: Node) -> None:
    done = node.instance.wherry("up", "--cni-conf-dir", str(node.home / "elsewhere"), ok=False)
    assert done.code == 1
    assert f"the node runs already, with {node.confs} for its plugins" in done.err
