"""The engine alone, for development and tests: ``python -m wherry.engine --data-dir D …``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
from pathlib import Path

from wherry.engine.engine import Engine, purge_all, slot_config, stop_all
from wherry.host.notify import notify


def main() -> None:
    """Serve until SIGTERM or SIGINT; with ``--stop`` or ``--purge``, clear away what runs."""
    parser = argparse.ArgumentParser(prog="python -m wherry.engine", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--socket", type=Path, help="default: docker.sock in the run directory")
    parser.add_argument("--slot", type=int, default=0, help="names and ranges to use, 0 to 13")
    parser.add_argument("--log-level", default="INFO")
    parser.add_argument("--stop", action="store_true", help="with no daemon: end all containers")
    parser.add_argument("--purge", action="store_true", help="as --stop, and leave nothing")
    options = parser.parse_args()
    logging.basicConfig(
        level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    config = slot_config(
        options.data_dir.resolve(), options.run_dir.resolve(), options.slot, socket.gethostname()
    )

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
        await engine.serve(options.socket or config.run_dir / "docker.sock")
        notify("READY=1")
        await stop.wait()
        await engine.close()

    import uvloop

    uvloop.run(clear() if options.stop or options.purge else serve())


if __name__ == "__main__":
    main()
