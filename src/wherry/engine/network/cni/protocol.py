"""What plugins are told, and what they answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from wherry.engine.network.cni.conf import ConfList, wanted

INTERFACE = "eth0"
# As libcni and dockershim have it: bursts are not what is to be limited.
_BURST = 2**31 - 1


class BadResult(ValueError):
    """A plugin's answer makes no sense."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One pod's place: who it is, and what plugins that want to know it are told besides."""

    id: str
    namespace: str = ""
    name: str = ""
    uid: str = ""
    capabilities: Mapping[str, Any] | None = None

    @property
    def arguments(self) -> str:
        """CNI_ARGS, as every runtime of pods gives them."""
        pairs = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": self.namespace,
            "K8S_POD_NAME": self.name,
            "K8S_POD_INFRA_CONTAINER_ID": self.id,
            "K8S_POD_UID": self.uid,
        }
        return ";".join(f"{key}={value}" for key, value in pairs.items())


@dataclass(frozen=True, slots=True)
class Place:
    """What a pod has been given: addresses with prefix length, ways out, and the links of this
    machine that its interface hangs on."""

    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    mac: str = ""
    links: tuple[str, ...] = ()


def environment(
    command: str, path: Sequence[Path], attachment: Attachment | None, namespace: Path | None
) -> dict[str, str]:
    """The parameters of one call, of an ``attachment`` or of the network as a whole; without a
    ``namespace`` that is still there, it is empty."""
    told = {"CNI_COMMAND": command, "CNI_PATH": ":".join(map(str, path))}
    if attachment is None:
        return told
    return {
        **told,
        "CNI_CONTAINERID": attachment.id,
        "CNI_NETNS": str(namespace or ""),
        "CNI_IFNAME": INTERFACE,
        "CNI_ARGS": attachment.arguments,
    }


def stdin(
    conf: ConfList,
    plugin: Mapping[str, Any],
    attachment: Attachment | None = None,
    previous: Mapping[str, Any] | None = None,
    valid: Sequence[str] | None = None,
) -> bytes:
    """The configuration of one plugin of a list for one call; ``valid`` are the ids of all pods
    that are on the network, for GC."""
    told: dict[str, Any] = {**plugin, "name": conf.name, "cniVersion": conf.version}
    told.pop("runtimeConfig", None)
    told.pop("prevResult", None)
    if valid is not None:
        # The specification first called it otherwise: libcni says both.
        for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
            told[key] = [{"containerID": id, "ifname": INTERFACE} for id in valid]
    given = (attachment and attachment.capabilities) or {}
    runtime = {key: given[key] for key in sorted(wanted(plugin)) if given.get(key)}
    if runtime:
        told["runtimeConfig"] = runtime
    if previous is not None:
        told["prevResult"] = previous
    return orjson.dumps(told)


def capabilities(
    *,
    ports: Mapping[str, Sequence[Mapping[str, str]]],
    ranges: Sequence[str],
    ingress: int = 0,
    egress: int = 0,
    dns: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """What plugins may want to know: ``ports`` as the Engine API binds them, ``ranges`` of the
    node's pods, bits a second to and from the pod (0: as many as go)."""
    mappings = []
    for inside, bindings in ports.items():
        number, _, protocol = inside.partition("/")
        for binding in bindings:
            mapping: dict[str, Any] = {
                "hostPort": int(binding["HostPort"]),
                "containerPort": int(number),
                "protocol": protocol or "tcp",
            }
            if binding.get("HostIp"):
                mapping["hostIP"] = binding["HostIp"]
            mappings.append(mapping)
    bandwidth: dict[str, int] = {}
    if ingress:
        bandwidth |= {"ingressRate": ingress, "ingressBurst": _BURST}
    if egress:
        bandwidth |= {"egressRate": egress, "egressBurst": _BURST}
    return {
        "portMappings": mappings,
        "bandwidth": bandwidth,
        "ipRanges": [[{"subnet": cidr}] for cidr in ranges],
        "dns": {key: list(value) for key, value in (dns or {}).items() if value},
    }


def fault(exit_code: int, stdout: bytes, stderr: bytes) -> str:
    """What a plugin that failed says."""
    try:
        said = orjson.loads(stdout)
        message, details = str(said["msg"]), str(said.get("details") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = (stderr.strip() or stdout.strip()).decode(errors="replace")
        if not text:
            return f"netplugin failed with no error message: exit status {exit_code}"
        return f"netplugin failed: {_quoted(text.splitlines()[0])}"
    return f"{message}; {details}" if details else message


def _quoted(text: str) -> str:
    return orjson.dumps(text[:1000]).decode()


def result(stdout: bytes) -> dict[str, Any] | None:
    """The answer to ADD; None where a plugin of a chain had nothing to say.

    Raises:
        BadResult: it is no answer.
    """
    if not stdout.strip():
        return None
    try:
        found = orjson.loads(stdout)
    except ValueError as error:
        raise BadResult(f"the result makes no sense: {error}") from None
    if not isinstance(found, dict):
        raise BadResult("the result makes no sense: it is no object")
    return found


def supported(stdout: bytes) -> frozenset[str]:
    """The versions in an answer to VERSION; none where it makes no sense."""
    try:
        return frozenset(map(str, orjson.loads(stdout)["supportedVersions"]))
    except (ValueError, KeyError, TypeError):
        return frozenset()


def place(found: Mapping[str, Any] | None) -> Place:
    """What the last plugin's answer says of the pod.

    Raises:
        BadResult: it says nothing of an address.
    """
    try:
        return _place(found or {})
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, BadResult):
            raise
        raise BadResult(f"the result makes no sense: {error!r}") from None


def _place(found: Mapping[str, Any]) -> Place:
    if "ip4" in found or "ip6" in found:  # before 0.3.0
        old = [found[key] for key in ("ip4", "ip6") if found.get(key)]
        entries: list[dict[str, Any]] = [
            {"address": entry["ip"], "gateway": entry.get("gateway")} for entry in old
        ]
    else:
        entries = list(found.get("ips") or ())
    interfaces = list(found.get("interfaces") or ())
    mac = next((str(i.get("mac") or "") for i in interfaces if i.get("sandbox")), "")
    addresses: list[str] = []
    gateways: dict[int, str] = {}
    for entry in entries:
        owner = entry.get("interface")
        if owner is not None and interfaces and not interfaces[int(owner)].get("sandbox"):
            continue  # an address of this machine
        address = ipaddress.ip_interface(entry["address"])
        addresses.append(address.with_prefixlen)
        if gateway := entry.get("gateway"):
            gateways.setdefault(address.version, str(ipaddress.ip_address(gateway)))
    if not addresses:
        raise BadResult("the plugins have given the pod no IP address")
    return Place(
        tuple(sorted(addresses, key=lambda a: ":" in a)),
        tuple(gateways[version] for version in sorted(gateways)),
        mac,
        tuple(str(i["name"]) for i in interfaces if i.get("name") and not i.get("sandbox")),
    )
