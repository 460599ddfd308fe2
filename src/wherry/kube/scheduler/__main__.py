"""``python -m wherry.kube.scheduler``: the scheduler as a process of its own.

Any API server will do. Several may run: one acts, the others wait for its lease.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wherry.kube.client import standalone
from wherry.kube.client.client import Client
from wherry.kube.scheduler import config_file, run_scheduler

NAME = "kube-scheduler"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser("python -m wherry.kube.scheduler", description=__doc__)
    standalone.add_flags(parser, NAME)
    parser.add_argument("--config", type=Path, help="a KubeSchedulerConfiguration")
    given = parser.parse_args(arguments)
    try:
        configuration = config_file.load(given.config) if given.config else None
    except (ValueError, OSError) as error:
        parser.error(str(error))

    async def work(client: Client) -> None:
        await run_scheduler(client, configuration)

    return standalone.run(given, NAME, work)


if __name__ == "__main__":
    sys.exit(main())
