"""``wherry token`` and ``wherry join``: a cluster of several machines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wherry.cli.words import fail
from wherry.launcher.instance import Instance, InstanceError


def add(
    commands: Any,
    place: argparse.ArgumentParser,
    existing: Callable[[argparse.Namespace], Instance],
) -> None:
    """Add the commands to the others; ``place`` has ``--data-dir``, ``existing`` reads it."""
    parser = commands.add_parser("token", help="bootstrap tokens, by which nodes join")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    create = actions.add_parser("create", parents=[place], help="make a token and print it")
    create.add_argument("token", nargs="?", default="", help="one of your own: [a-z0-9]{6}.{16}")
    create.add_argument(
        "--ttl",
        default="24h",
        metavar="DURATION",
        help="how long it is good, as 1h30m; 0: for ever (%(default)s)",
    )
    create.add_argument("--description", default="", help="what it is for")
    create.add_argument(
        "--groups",
        action="append",
        metavar="GROUP[,GROUP]",
        help="who shows it is of these groups; may repeat",
    )
    create.add_argument(
        "--usages",
        action="append",
        metavar="USAGE[,USAGE]",
        help="signing, authentication (both); may repeat",
    )
    create.add_argument(
        "--print-join-command",
        action="store_true",
        help="print the whole command for the new node instead",
    )
    create.set_defaults(run=lambda options: _create(existing(options), options))

    listing = actions.add_parser("list", parents=[place], help="show the tokens")
    listing.set_defaults(run=lambda options: _list(existing(options)))

    delete = actions.add_parser("delete", parents=[place], help="delete tokens")
    delete.add_argument("tokens", nargs="+", metavar="TOKEN", help="a token, or its id")
    delete.set_defaults(run=lambda options: _delete(existing(options), options))

    join = commands.add_parser(
        "join", parents=[place], help="make this machine a node of another's cluster"
    )
    join.add_argument("endpoint", metavar="HOST:PORT", help="its API server")
    join.add_argument("--token", required=True, help="as `wherry token create` printed it")
    join.add_argument(
        "--discovery-token-ca-cert-hash",
        action="append",
        default=[],
        metavar="sha256:HASH",
        help="the cluster's authority must have this public key; may repeat",
    )
    join.add_argument(
        "--discovery-token-unsafe-skip-ca-verification",
        action="store_true",
        help="believe whoever has the token",
    )
    join.add_argument("--node-name", help="name of this node (default: the host's name)")
    join.add_argument(
        "--node-ip", help="its address for others (default: the one that leads to the API server)"
    )
    join.add_argument(
        "--kubelet-config", type=Path, metavar="FILE", help="a KubeletConfiguration for its kubelet"
    )
    join.add_argument(
        "--proxy-mode",
        choices=("nftables", "iptables", "userspace"),
        metavar="MODE",
        help="how this node leads clients to Services (default: as the cluster's first node when "
        "the token was made); `wherry up --proxy-mode` changes it",
    )
    add_plugins(join)
    join.set_defaults(run=_join)


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Options of a node whose pods are connected by plugins."""
    parser.add_argument(
        "--cni-conf-dir",
        metavar="DIR",
        help="pods are connected by the CNI plugins that are configured there, as /etc/cni/net.d; "
        "is kept with the instance; '' connects them by Wherry",
    )
    parser.add_argument(
        "--cni-bin-dir",
        metavar="DIR[:DIR]",
        help="where these plugins are (/opt/cni/bin:/usr/lib/cni)",
    )


def _create(instance: Instance, options: argparse.Namespace) -> int:
    from wherry.kube.api import bootstrap
    from wherry.kube.client.standalone import seconds
    from wherry.launcher import tokens

    try:
        lasts = 0.0 if options.ttl == "0" else seconds(options.ttl)
    except argparse.ArgumentTypeError as error:
        return fail(f"--ttl {error}")
    try:
        token = tokens.create(
            instance,
            options.token,
            seconds=lasts,
            usages=_words(options.usages) or bootstrap.USAGES,
            groups=_words(options.groups) or (bootstrap.GROUP,),
            description=options.description,
        )
    except tokens.TokenFailed as error:
        return fail(str(error))
    print(tokens.join_command(instance, token) if options.print_join_command else token)
    return 0


def _words(lists: list[str] | None) -> list[str]:
    return [word for text in lists or () for word in text.split(",") if word]


def _list(instance: Instance) -> int:
    from wherry.launcher import tokens

    rows: list[tuple[str, ...]] = [
        ("TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS")
    ]
    try:
        found, faults = tokens.listed(instance)
    except tokens.TokenFailed as error:
        return fail(str(error))
    for fault in faults:
        fail(fault)
    rows += found
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if len(rows) > 1 else ():
        print("   ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
    return 0


def _delete(instance: Instance, options: argparse.Namespace) -> int:
    from wherry.launcher import tokens

    try:
        for text in options.tokens:
            print(f'bootstrap token "{tokens.delete(instance, text)}" deleted')
    except tokens.TokenFailed as error:
        return fail(str(error))
    return 0


def _join(options: argparse.Namespace) -> int:
    from wherry.launcher import join, requirements, up

    faults = requirements.missing()
    if faults:
        return fail("\nwherry: ".join(faults))
    try:
        known = join.introduction(
            options.endpoint,
            options.token,
            options.discovery_token_ca_cert_hash,
            unpinned=options.discovery_token_unsafe_skip_ca_verification,
        )
        address = up.node_address(options.node_ip) if options.node_ip else None
        text = up.kubelet_configuration(str(options.kubelet_config or ""))
        node, begun = join.join(
            options.data_dir,
            known,
            node_name=options.node_name,
            node_ip=address,
            chosen={
                "kubelet_config": text,
                "proxy_mode": options.proxy_mode or "",
                "cni_conf_dir": up.directories(options.cni_conf_dir or ""),
                "cni_bin_dir": up.directories(options.cni_bin_dir or ""),
            },
        )
    except (join.JoinFailed, join.StartFailed, InstanceError, ValueError, OSError) as error:
        return fail(str(error))
    print(f"wherry has joined: node {node.node_name} of {node.joined} {begun}")
    return 0
