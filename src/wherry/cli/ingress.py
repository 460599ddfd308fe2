"""``wherry ingress``: what a cluster needs to serve Ingresses from pods."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the others."""
    parser = commands.add_parser("ingress", help="serve Ingresses from pods")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    manifest = actions.add_parser("manifest", help="print what to apply (YAML)")
    manifest.add_argument(
        "--kind",
        choices=("loadbalancer", "nodeport", "daemonset"),
        default="loadbalancer",
        help="a Deployment behind a Service of this type, or a DaemonSet in the nodes' own network "
        "(%(default)s)",
    )
    manifest.add_argument("--http-port", type=int, default=80, help="(%(default)s)")
    manifest.add_argument("--https-port", type=int, default=443, help="(%(default)s)")
    manifest.add_argument(
        "--node-selector",
        action="append",
        default=[],
        metavar="LABEL=VALUE",
        help="only on such nodes; may repeat",
    )
    manifest.set_defaults(run=_manifest)


def _manifest(options: argparse.Namespace) -> int:
    import yaml

    from wherry.engine.image.own import INGRESS
    from wherry.kube.ingress.manifests import manifests

    selector = dict(entry.partition("=")[::2] for entry in options.node_selector)
    objects = manifests(
        options.kind,
        INGRESS,
        http=options.http_port,
        https=options.https_port,
        selector=selector,
    )
    yaml.safe_dump_all(objects, sys.stdout, sort_keys=False, default_flow_style=False)
    return 0
