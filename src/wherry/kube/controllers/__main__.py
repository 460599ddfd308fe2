"""``python -m wherry.kube.controllers``: the controllers as a process of their own.

Any API server will do. Several may run: one acts, the others wait for its lease. All controllers
act as the user of the kubeconfig.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from wherry.kube.client import standalone
from wherry.kube.client.client import Client
from wherry.kube.controllers import flags, run_controllers

NAME = "kube-controller-manager"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser("python -m wherry.kube.controllers", description=__doc__)
    standalone.add_flags(parser, NAME)
    flags.add(parser)
    given = parser.parse_args(arguments)
    try:
        options = flags.options(given)
    except (ValueError, OSError) as error:
        parser.error(str(error))

    async def work(client: Client) -> None:
        await run_controllers(client, options)

    return standalone.run(given, NAME, work)


if __name__ == "__main__":
    sys.exit(main())
