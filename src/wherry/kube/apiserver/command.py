"""The API server alone, on its store, as a process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

from wherry.kube.apiserver import flags
from wherry.kube.apiserver.authn import keys
from wherry.kube.apiserver.server import APIServer, APIServerConfig
from wherry.kube.store.opening import open_store
from wherry.kube.store.types import StoreInUse, StoreUnavailable


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wherry.kube.apiserver", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="where the store lies")
    parser.add_argument("--store", default="sqlite", help="sqlite, or etcd://HOST:PORT,…")
    parser.add_argument("--port", type=int, default=6443, help="0: any that is free")
    parser.add_argument("--advertise-address", default="127.0.0.1")
    parser.add_argument("--service-cidr", default="10.96.0.0/16")
    parser.add_argument("--tls-cert", type=Path, required=True)
    parser.add_argument("--tls-key", type=Path, required=True)
    parser.add_argument("--client-ca", type=Path, help="whose client certificates count")
    parser.add_argument("--kubelet-client-certificate", type=Path)
    parser.add_argument("--kubelet-client-key", type=Path)
    parser.add_argument("--kubelet-certificate-authority", type=Path)
    parser.add_argument("--proxy-client-cert-file", type=Path, help="for aggregated API servers")
    parser.add_argument("--proxy-client-key-file", type=Path)
    flags.add(parser)
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    given = flags.settings(arguments)
    told = given["authentication"]
    if told.signing_key is None:
        key = arguments.data_dir / "sa.key"
        keys.ensure(key)
        given["authentication"] = replace(told, signing_key=key)
    store = await open_store(arguments.store, arguments.data_dir)
    server = APIServer(
        APIServerConfig(
            advertise_address=arguments.advertise_address,
            port=arguments.port,
            service_cidr=arguments.service_cidr,
            tls_cert=arguments.tls_cert,
            tls_key=arguments.tls_key,
            client_ca=arguments.client_ca,
            kubelet_client_cert=arguments.kubelet_client_certificate,
            kubelet_client_key=arguments.kubelet_client_key,
            kubelet_ca=arguments.kubelet_certificate_authority,
            proxy_client_cert=arguments.proxy_client_cert_file,
            proxy_client_key=arguments.proxy_client_key_file,
            **given,
        ),
        store,
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await server.open()
        port = await server.serve()
        print(f"listening on {port}", flush=True)
        await stop.wait()
    finally:
        await server.close()
        await store.close()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    import uvloop

    # What was imported lives for ever; and few of a request's objects refer to each other.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        uvloop.run(_run(_arguments()))
    except (StoreInUse, StoreUnavailable, OSError, ValueError) as error:
        print(f"apiserver: {error}", file=sys.stderr)
        return 1
    return 0
