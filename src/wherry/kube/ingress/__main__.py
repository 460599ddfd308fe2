"""The ingress controller as a pod's process: a daemon that watches, and the nginx that serves.

Options have the names of ingress-nginx's. What the requests were goes to standard output. Told to
end, it serves on while the pod's address is taken out of use, and lets requests under way end.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from wherry.host.tasks import run_until
from wherry.kube.api import meta
from wherry.kube.api.resources import PODS
from wherry.kube.client.client import Client
from wherry.kube.client.https import KubeconfigError, from_kubeconfig, in_cluster
from wherry.kube.client.informer import SharedInformers
from wherry.kube.ingress.addresses import Addresses, Fixed, OfNodes, OfService
from wherry.kube.ingress.controller import IngressController
from wherry.kube.ingress.nginx import Nginx, NginxError, find, listeners
from wherry.kube.ingress.render import Settings

log = logging.getLogger("wherry.kube.ingress")

_NAME = "nginx-ingress-controller"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wherry-ingress", description=(__doc__ or "").strip())
    parser.add_argument("--kubeconfig", type=Path, help="without it: as the pod's ServiceAccount")
    parser.add_argument("--http-port", type=int, default=80, help="(%(default)s)")
    parser.add_argument("--https-port", type=int, default=443, help="(%(default)s)")
    parser.add_argument("--ingress-class", default="nginx", help="of old annotations (%(default)s)")
    parser.add_argument(
        "--default-ssl-certificate", default="", metavar="NAMESPACE/NAME", help="for other hosts"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--publish-service", default="", metavar="NAMESPACE/NAME", help="the Service in front of us"
    )
    where.add_argument(
        "--publish-status-address", default="", metavar="ADDRESS,…", help="where we are reached"
    )
    where.add_argument(
        "--report-node-internal-ip-address",
        action="store_true",
        help="we are reached at the nodes on which pods like this one run",
    )
    parser.add_argument(
        "--directory", type=Path, default=Path("/run/ingress"), help="(%(default)s)"
    )
    parser.add_argument(
        "--shutdown-grace-period",
        type=float,
        default=3.0,
        help="seconds to serve on once told to end (%(default)g)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        uvloop.run(_serve(given))
    except (KubeconfigError, NginxError) as error:
        log.error("%s", error)
        return 1
    return 0


async def _serve(given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, loop.call_later, given.shutdown_grace_period, stop.set)
    if given.kubeconfig is not None:
        transport = from_kubeconfig(given.kubeconfig, user_agent=_NAME)
    else:
        transport = in_cluster(user_agent=_NAME)
    client = Client(transport, manager=_NAME)
    informers = SharedInformers(client)
    nginx = Nginx(find(), given.directory)
    settings = Settings(
        str(given.directory),
        listeners(given.http_port),
        listeners(given.https_port),
        given.https_port,
        resolver=_resolver(),
        access_log=f"/proc/{os.getpid()}/fd/1",
        error_log=f"/proc/{os.getpid()}/fd/2",
    )
    try:
        controller = IngressController(
            client,
            informers,
            nginx,
            settings,
            class_name=given.ingress_class,
            addresses=await _addresses(client, given),
            own_class=False,
            default_certificate=given.default_ssl_certificate,
        )
        informers.start()
        await run_until(stop, controller.run())
    finally:
        await nginx.stop()
        await informers.stop()
        await transport.close()


async def _addresses(client: Client, given: argparse.Namespace) -> Addresses:
    if given.publish_service:
        return OfService(client, given.publish_service)
    if given.report_node_internal_ip_address:
        namespace, name = os.environ.get("POD_NAMESPACE", ""), os.environ.get("POD_NAME", "")
        if not namespace or not name:
            raise KubeconfigError("POD_NAMESPACE and POD_NAME must say which pod this is")
        own = await client.get(PODS, name, namespace)
        changing = ("pod-template-hash", "controller-revision-hash", "pod-template-generation")
        labels = {key: value for key, value in meta.labels(own).items() if key not in changing}
        return OfNodes(client, namespace, labels)
    return Fixed(filter(None, given.publish_status_address.split(",")))


def _resolver(path: Path = Path("/etc/resolv.conf")) -> str:
    """The pod's first name server, as nginx writes addresses."""
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            return f"[{words[1]}]" if ":" in words[1] else words[1]
    return ""


if __name__ == "__main__":
    sys.exit(main())
