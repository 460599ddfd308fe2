"""``python -m wherry.kube.metrics``: the metrics server alone, for the cluster of a kubeconfig.

It makes what the cluster must hold to find it (RBAC, Service, APIService), then serves.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from wherry.host.tasks import run_until
from wherry.kube.api import spans
from wherry.kube.api.errors import StatusError
from wherry.kube.client.client import Client
from wherry.kube.client.https import KubeconfigError, from_kubeconfig
from wherry.kube.metrics import manifest
from wherry.kube.metrics.scraper import Kubelets
from wherry.kube.metrics.server import MetricsConfig, MetricsServer


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wherry.kube.metrics", description=__doc__)
    add = parser.add_argument
    add("--kubeconfig", type=Path, required=True)
    add("--bind-address", default="0.0.0.0")
    add("--secure-port", type=int, default=10250)
    add("--advertise-address", help="where the API server finds it; without, no Service is made")
    add("--tls-cert-file", type=Path, required=True)
    add("--tls-private-key-file", type=Path, required=True)
    add("--tls-ca-file", type=Path, help="what that certificate comes from; without, any counts")
    add("--requestheader-client-ca-file", type=Path, required=True)
    add("--requestheader-allowed-names", type=lambda text: text.split(","), default=())
    add("--kubelet-client-certificate", type=Path)
    add("--kubelet-client-key", type=Path)
    add("--kubelet-certificate-authority", type=Path, help="without, any kubelet is believed")
    add("--metric-resolution", type=spans.parse, default=15.0, help="as 15s or 1m")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    client = Client(from_kubeconfig(arguments.kubeconfig), manager="metrics-server")
    server = MetricsServer(
        client,
        MetricsConfig(
            arguments.tls_cert_file,
            arguments.tls_private_key_file,
            arguments.requestheader_client_ca_file,
            arguments.requestheader_allowed_names,
            Kubelets(
                arguments.kubelet_client_certificate,
                arguments.kubelet_client_key,
                arguments.kubelet_certificate_authority,
            ),
            arguments.metric_resolution,
        ),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        port = await server.listen(arguments.bind_address, arguments.secure_port)
        wanted = []
        if arguments.advertise_address:
            wanted = manifest.service(arguments.advertise_address, port)
        authority = arguments.tls_ca_file.read_bytes() if arguments.tls_ca_file else b""
        await manifest.install(client, [*wanted, *manifest.objects(authority)])
        await run_until(stop, server.run())
    finally:
        await server.close()
        await client.close()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_run(_arguments()))
    except (KubeconfigError, StatusError, OSError, ValueError) as error:
        print(f"metrics server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
