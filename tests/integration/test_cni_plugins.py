"""Pods connected by Debian's CNI plugins: bridge, host-local, portmap and bandwidth in a chain, and
one of our own that writes down how it was called."""

from __future__ import annotations

import json
import os
import signal
import subprocess
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
        witness = programs / "witness"
        witness.write_text(
            WITNESS.replace("HOME", str(self.home)).replace("PYTHON", sys.executable)
        )
        witness.chmod(0o755)
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
            self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")

    def delete(self, *names: str) -> None:
        self.kubectl("delete", "pod", *names, "--wait=true")

    def address(self, name: str) -> str:
        return str(self.instance.get("pod", name)["status"]["podIP"])

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
        argv = [sys.executable, "-m", "wherry", "up", "--data-dir", str(made.instance.data_dir)]
        up = subprocess.Popen(
            [*made.instance.machine.prefix, *argv, "--node-name", "a", *made.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            # Without a configuration the node is not ready, and says why.
            kubeconfig = made.instance.data_dir / "admin.conf"
            eventually(lambda: kubeconfig.exists() or up.poll() is not None)
            assert up.poll() is None, up.communicate()
            said = eventually(lambda: _unready(made))
            assert said == (
                "container runtime network not ready: NetworkReady=false "
                "reason:NetworkPluginNotReady message:docker: network plugin is not ready: "
                "cni config uninitialized"
            )
            (made.confs / "05-broken.conflist").write_text("{")
            made.configure()
            out, _ = up.communicate(timeout=90)
            assert up.returncode == 0, out
        finally:
            up.kill()
            up.wait()
        made.instance.wherry("images bootstrap", "busybox")
        yield made
        # What a pod that still runs has, goes with the instance.
        made.create("last", container={"ports": [{"containerPort": 80, "hostPort": 8099}]})
        made.instance.wherry("down", "--purge", "--grace", "0")
        assert not made.leased()
        assert "-A CNI-DN-" not in made.run("iptables", "-t", "nat", "-S")
        assert "veth" not in made.run("ip", "-o", "link")


def _unready(node: Node) -> str:
    done = node.instance.kubectl("get", "node", "a", "-o", "json", ok=False)
    if done.code:
        return ""
    conditions = json.loads(done.out)["status"].get("conditions") or ()
    ready = next((c for c in conditions if c["type"] == "Ready"), {})
    message = str(ready.get("message", ""))
    return message if "NetworkPluginNotReady" in message else ""


def test_pods_have_the_addresses_that_the_plugins_gave(node: Node) -> None:
    node.create("one")
    node.create("two")
    addresses = {name: node.address(name) for name in ("one", "two")}
    assert set(addresses.values()) == node.leased()
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
        assert "ContainerCreating" in node.kubectl("get", "pod", "unlucky")
    finally:
        node.refuse.unlink()
    node.kubectl("wait", "--for=condition=Ready", "pod/unlucky", "--timeout=90s")
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
    node.kubectl("wait", "--for=condition=Ready", "pod/waiting", "--timeout=90s")
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
        assert ("CHECK", "pods") in [(c, call["name"]) for c, call in node.calls_for("survivor")]
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
    node.kubectl("wait", "--for=condition=Ready", "pod/half", "--timeout=60s")
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
