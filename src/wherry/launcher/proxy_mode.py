"""How a node's proxy leads clients to Services: what was chosen, and whether the machine can."""

from __future__ import annotations

from wherry.launcher.instance import Instance


def of(instance: Instance) -> str:
    """The mode of that node's proxy."""
    if instance.proxy_mode:
        return instance.proxy_mode
    from wherry.kube.proxy import config_file

    return config_file.parse(instance.proxy_config).mode


def check(mode: str) -> None:
    """Raises ValueError where the machine has not what the mode needs."""
    from wherry.net.service.iptables import programs

    if mode == "iptables" and (fault := programs.missing()):
        raise ValueError(f"the proxy's mode iptables: {fault}")


def of_new_node(told: str) -> str:
    """What a new node keeps where its cluster's mode is ``told``: nothing for the default one, and
    for one that is not known here."""
    from wherry.kube.proxy.modes import MODES, NFTABLES

    return told if told in MODES and told != NFTABLES else ""
