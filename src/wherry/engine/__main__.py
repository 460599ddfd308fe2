"""The engine alone, for development and tests: ``python -m wherry.engine --data-dir D …``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from wherry.engine.api.listeners import TLSAddress
from wherry.engine.engine import Engine, purge_all, slot_config, stop_all
from wherry.host.notify import notify


def main() -> None:
    """Serve until SIGTERM or SIGINT; with ``--stop`` or ``--purge``, clear away what runs."""
    parser = argparse.ArgumentParser(prog="python -m wherry.engine", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--socket", type=Path, help="default: docker.sock in the run directory")
    parser.add_argument("--slot", type=int, default=0, help="whose names and ranges to use")
    parser.add_argument(
        "--host", metavar="tcp://HOST:PORT", help="serve there, too, with the keys of --tls…"
    )
    parser.add_argument("--tlscacert", type=Path, help="whose clients may come in")
    parser.add_argument("--tlscert", type=Path)
    parser.add_argument("--tlskey", type=Path)
    parser.add_argument("--log-level", default="INFO")
    parser.add_argument("--stop", action="store_true", help="with no daemon: end all containers")
    parser.add_argument("--purge", action="store_true", help="as --stop, and leave nothing")
    parser.add_argument(
        "--userns-remap", default="", help='"default" or user[:group]: who containers\' root is'
    )
    options = parser.parse_args()
    tcp = _tcp(parser, options) if options.host else None
    logging.basicConfig(
        level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    config = slot_config(
        options.data_dir.resolve(), options.run_dir.resolve(), options.slot, socket.gethostname()
    )
    config = replace(config, userns_remap=options.userns_remap)

    async def clear() -> None:
        await stop_all(config, 1.0)
        if options.purge:
            await purge_all(config)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        engine = Engine(config)
        await engine.open()
        await engine.serve(options.socket or config.run_dir / "docker.sock", tcp)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, engine.reload)
        notify("READY=1")
        await stop.wait()
        await engine.close()

    import uvloop

    uvloop.run(clear() if options.stop or options.purge else serve())


def _tcp(parser: argparse.ArgumentParser, options: argparse.Namespace) -> TLSAddress:
    address = urlsplit(options.host)
    keys = (options.tlscacert, options.tlscert, options.tlskey)
    if address.scheme != "tcp" or not address.hostname or not address.port:
        parser.error(f"--host: {options.host} is not tcp://HOST:PORT")
    if None in keys:
        parser.error("--host needs --tlscacert, --tlscert and --tlskey: without, all were root")
    return TLSAddress(address.hostname, address.port, *keys)


if __name__ == "__main__":
    main()
