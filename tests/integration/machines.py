"""Machines that are network namespaces: two on one link, two more on another, a router between.

All links lie in the router's namespace, so nothing of this machine's own network is touched.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conftest import CLIENTS, Finished, Instance, _run

V6 = Path("/proc/sys/net/ipv6").exists()
"""Whether the kernel knows IPv6."""


_ADDRESSES = {"a": "198.18.0.1", "b": "198.18.0.2", "c": "198.18.1.3", "d": "198.18.1.4"}


@dataclass(frozen=True)
class Machine:
    """A namespace called ``namespace`` with one interface, at ``address`` and ``address6``."""

    namespace: str
    address: str

    @property
    def address6(self) -> str:
        """In IPv6: 2001:db8:N::M, where the other is 198.18.N.M."""
        _, _, net, own = self.address.split(".")
        return str(ipaddress.ip_address(f"2001:db8:{net}::{own}"))

    @property
    def prefix(self) -> list[str]:
        """What runs a command there."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]

    def run(self, *argv: str, ok: bool = True) -> Finished:
        return _run([*self.prefix, *argv], dict(os.environ), ok=ok)


class NodeInstance(Instance):
    """An instance on a machine of its own."""

    def __init__(self, data_dir: Path, machine: Machine) -> None:
        super().__init__(data_dir)
        self.machine = machine

    def wherry(self, command: str, *arguments: str, ok: bool = True) -> Finished:
        argv = [*self.machine.prefix, sys.executable, "-m", "wherry", *command.split(), *arguments]
        return _run([*argv, "--data-dir", str(self.data_dir)], dict(os.environ), ok=ok)

    @property
    def environment(self) -> dict[str, str]:
        return dict(
            os.environ,
            PATH=f"{CLIENTS}:{os.environ['PATH']}",
            KUBECONFIG=str(self.data_dir / "admin.conf"),
        )

    def kubectl(self, *arguments: str, ok: bool = True, stdin: str | None = None) -> Finished:
        argv = [*self.machine.prefix, self.kubectl_name, *arguments]
        return _run(argv, self.environment, ok=ok, stdin=stdin)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return super().start(*self.machine.prefix, *argv)


class Machines:
    """``a`` and ``b`` on one link, ``c`` and ``d`` on another; instances in ``home``.

    ``v4`` is whether there is IPv4 besides loopback.
    """

    def __init__(self, home: Path, *, v4: bool = True) -> None:
        self.home = home
        self._v4 = v4
        tag = f"w{secrets.token_hex(3)}"
        self.router = f"{tag}r"
        self.by_name: Mapping[str, Machine] = {
            name: Machine(f"{tag}{name}", address) for name, address in _ADDRESSES.items()
        }
        self._made: list[NodeInstance] = []

    def open(self) -> None:
        _namespace(self.router)
        inside = ("-n", self.router)
        _ip(*inside, "link", "set", "lo", "up")
        for net in ("0", "1"):
            _ip(*inside, "link", "add", f"net{net}", "type", "bridge")
            if self._v4:
                _ip(*inside, "addr", "add", f"198.18.{net}.254/24", "dev", f"net{net}")
            address = f"2001:db8:{net}::254/64"
            _ip(*inside, "addr", "add", address, "dev", f"net{net}", "nodad", ok=V6)
            _ip(*inside, "link", "set", f"net{net}", "up")
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        if V6:
            forward += "; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
        _call("nsenter", f"--net=/run/netns/{self.router}", "sh", "-c", forward)
        for name, machine in self.by_name.items():
            net = machine.address.split(".")[2]
            there = ("-n", machine.namespace)
            _namespace(machine.namespace)
            ends = ("type", "veth", "peer", "name", "eth0", "netns", machine.namespace)
            _ip(*inside, "link", "add", f"to-{name}", *ends)
            _ip(*inside, "link", "set", f"to-{name}", "master", f"net{net}", "up")
            _ip(*there, "link", "set", "lo", "up")
            if self._v4:
                _ip(*there, "addr", "add", f"{machine.address}/24", "dev", "eth0")
            _ip(*there, "addr", "add", f"{machine.address6}/64", "dev", "eth0", "nodad", ok=V6)
            _ip(*there, "link", "set", "eth0", "up")
            if self._v4:
                _ip(*there, "route", "add", "default", "via", f"198.18.{net}.254")
            _ip(*there, "route", "add", "default", "via", f"2001:db8:{net}::254", ok=V6)

    def close(self) -> None:
        for instance in reversed(self._made):
            instance.purge()
        for name in (*(m.namespace for m in self.by_name.values()), self.router):
            _ip("netns", "del", name, ok=False)

    def cut(self, name: str) -> None:
        """Pull the cable of a machine."""
        _ip("-n", self.router, "link", "set", f"to-{name}", "down")

    def mend(self, name: str) -> None:
        _ip("-n", self.router, "link", "set", f"to-{name}", "up")

    def narrow(self, name: str, mtu: int) -> None:
        """Packets on the link of a machine may have ``mtu`` bytes."""
        machine = self.by_name[name]
        net = f"net{machine.address.split('.')[2]}"
        for link in (f"to-{name}", net):
            _ip("-n", self.router, "link", "set", link, "mtu", str(mtu))
        _ip("-n", machine.namespace, "link", "set", "eth0", "mtu", str(mtu))

    def instance(self, name: str, directory: str = "") -> NodeInstance:
        """The instance of that name on the machine of that name."""
        made = NodeInstance(self.home / (directory or name), self.by_name[name])
        self._made.append(made)
        return made


def _ip(*arguments: str, ok: bool = True) -> None:
    _call("ip", *arguments, ok=ok)


def _namespace(name: str) -> None:
    _ip("netns", "add", name)
    if V6:
        conf = "/proc/sys/net/ipv6/conf"
        script = f"echo 0 | tee {conf}/all/disable_ipv6 {conf}/default/disable_ipv6"
        _call("nsenter", f"--net=/run/netns/{name}", "sh", "-c", script)


def _call(*argv: str, ok: bool = True) -> None:
    subprocess.run(argv, check=ok, capture_output=True)


@contextlib.contextmanager
def machines(*, v4: bool = True) -> Iterator[Machines]:
    """The machines, and afterwards no trace of them or of what was made on them."""
    home = Path(tempfile.mkdtemp(prefix="wherry-nodes-"))
    made = Machines(home, v4=v4)
    try:
        made.open()
        yield made
    finally:
        made.close()
        shutil.rmtree(home, ignore_errors=True)


def join(node: NodeInstance, command: str, *arguments: str, ok: bool = True) -> Finished:
    """Run the join command that ``token create`` printed."""
    words: Sequence[str] = command.split()[2:]
    return node.wherry("join", *words, *arguments, ok=ok)
