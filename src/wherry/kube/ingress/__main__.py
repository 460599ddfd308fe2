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

from wherry.host.resolv_conf import parse
from wherry.host.tasks import run_until
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS
from wherry.kube.client.client import Client
from wherry.kube.client.https import KubeconfigError, from_kubeconfig, in_cluster
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.standalone import seconds
from wherry.kube.ingress import flags, leadership, statuses
from wherry.kube.ingress.addresses import Addresses, Fixed, OfNodes, OfService, own_labels
from wherry.kube.ingress.controller import IngressController
from wherry.kube.ingress.leadership import Leadership
from wherry.kube.ingress.nginx import Nginx, NginxError, find, listeners
from wherry.kube.ingress.settings import Settings

log = logging.getLogger("wherry.kube.ingress")

_NAME = "nginx-ingress-controller"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wherry-ingress", description=(__doc__ or "").strip())
    parser.add_argument("--kubeconfig", type=Path, help="without it: as the pod's ServiceAccount")
    parser.add_argument("--http-port", type=int, default=80, help="(%(default)s)")
    parser.add_argument("--https-port", type=int, default=443, help="(%(default)s)")
    flags.add(parser)
    parser.add_argument(
        "--publish-service",
        default="",
        metavar="NAMESPACE/NAME",
        help="the Service in front of us; without it and --publish-status-address we are reached "
        "at the nodes on which pods like this one run",
    )
    parser.add_argument(
        "--report-node-internal-ip-address",
        action="store_true",
        help="at the nodes' internal addresses, though they have external ones",
    )
    parser.add_argument(
        "--election-id",
        default="ingress-controller-leader",
        metavar="NAME",
        help="the Lease in the pod's namespace whose holder writes statuses (%(default)s)",
    )
    parser.add_argument(
        "--election-ttl",
        type=seconds,
        default=leadership.TTL,
        metavar="DURATION",
        help="others take over after so long a silence (%(default)gs)",
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
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.publish_service and given.publish_status_address:
        parser.error("--publish-service and --publish-status-address are mutually exclusive")
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
    if given.kubeconfig is not None:
        transport = from_kubeconfig(given.kubeconfig, user_agent=_NAME)
    else:
        transport = in_cluster(user_agent=_NAME)
    client = Client(transport, manager=_NAME)
    leading = _leadership(client, given)
    stop = _stopping(given.shutdown_grace_period, leading)
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
            addresses=await _addresses(client, given),
            leadership=leading,
            own_class=False,
            options=flags.options(given),
        )
        informers.start()
        await run_until(stop, controller.run())
        if given.update_status and given.update_status_on_shutdown:
            await _take_back(client, controller)
    finally:
        await nginx.stop()
        await informers.stop()
        await transport.close()


def _stopping(grace: float, leading: Leadership) -> asyncio.Event:
    """Set ``grace`` seconds after the process is told to end; whoever stays writes statuses from
    the first moment on, so that nobody writes what is taken back in the last."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        leading.resign()
        loop.call_later(grace, stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    return stop


def _leadership(client: Client, given: argparse.Namespace) -> Leadership:
    """Among the pods of a namespace; outside of pods there is no other."""
    namespace, name = _own()
    if not (namespace and name):
        return Leadership()
    ttl = given.election_ttl or leadership.TTL
    return leadership.by_lease(client, namespace, given.election_id, name, ttl)


async def _take_back(client: Client, controller: IngressController) -> None:
    """Where this was the last of its kind, nobody is reached at our addresses any longer."""
    namespace, name = _own()
    try:
        if not (name and await statuses.is_followed(client, namespace, name)):
            await statuses.take_back(client, controller.ours())
    except (StatusError, ConnectionError) as error:
        log.warning("who serves on is not known, and statuses stay: %s", error)


def _own() -> tuple[str, str]:
    """The pod that this is."""
    return os.environ.get("POD_NAMESPACE", ""), os.environ.get("POD_NAME", "")


async def _addresses(client: Client, given: argparse.Namespace) -> Addresses:
    if given.publish_service:
        return OfService(client, given.publish_service)
    told = flags.addresses(flags.options(given))
    namespace, name = _own()
    internal = given.report_node_internal_ip_address
    if told or not (internal or (namespace and name)):
        return Fixed(told)
    if not (namespace and name):
        raise KubeconfigError("POD_NAMESPACE and POD_NAME must say which pod this is")
    own = await client.get(PODS, name, namespace)
    return OfNodes(client, namespace, own_labels(own), internal=internal)


def _resolver(path: Path = Path("/etc/resolv.conf")) -> str:
    """The pod's first name server, as nginx writes addresses."""
    first = next(iter(parse(path.read_text()).servers), "")
    return f"[{first}]" if ":" in first else first


if __name__ == "__main__":
    sys.exit(main())
