"""The proxy's configuration file: ``KubeProxyConfiguration`` of kubeproxy.config.k8s.io/v1alpha1.

``Settings`` has what something here acts upon. What the file may say beyond that is taken and has
no effect, so that a file written for another kube-proxy can be used.
https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from wherry.kube.proxy.modes import MODES, NFTABLES

API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says; None: as the instance has it."""

    mode: str = NFTABLES
    healthz: Address | None = None
    metrics: Address | None = None
    tcp_be_liberal: bool = False


def parse(text: str) -> Settings:
    """The settings in ``text``, the defaults where it is empty.

    Raises:
        ValueError: it is no such configuration; the text says why.
    """
    if not text.strip():
        return Settings()
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"the proxy's configuration is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("the proxy's configuration is no mapping")
    said = document.get("apiVersion"), document.get("kind")
    if said != (API_VERSION, KIND):
        raise ValueError(
            f"the proxy's configuration: no kind {said[1]!r} is registered for version "
            f"{said[0]!r}; {KIND} of {API_VERSION} is wanted"
        )
    mode = document.get("mode") or NFTABLES
    if mode not in MODES:
        raise ValueError(
            f'the proxy\'s configuration: mode: Invalid value: "{mode}": must be '
            + ", ".join(MODES[:-1])
            + f" or {MODES[-1]}"
        )
    return Settings(
        mode=mode,
        healthz=_address(document, "healthzBindAddress"),
        metrics=_address(document, "metricsBindAddress"),
        tcp_be_liberal=_tcp_be_liberal(document),
    )


def _tcp_be_liberal(document: dict[str, Any]) -> bool:
    conntrack = document.get("conntrack") or {}
    if not isinstance(conntrack, dict):
        raise ValueError(
            "the proxy's configuration: conntrack: "
            f'Invalid value: "{conntrack}": must be a mapping'
        )
    value = conntrack.get("tcpBeLiberal") or False
    if not isinstance(value, bool):
        raise ValueError(
            "the proxy's configuration: conntrack.tcpBeLiberal: "
            f'Invalid value: "{value}": must be true or false'
        )
    return value


def _address(document: dict[str, Any], field: str) -> Address | None:
    value = document.get(field) or ""
    if not value:
        return None
    host, separator, port = str(value).rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        separator = ""
        number = 0
    if not separator or not 0 < number < 65536:
        raise ValueError(
            f'the proxy\'s configuration: {field}: Invalid value: "{value}": must be IP:port'
        )
    return str(address), number
