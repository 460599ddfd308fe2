"""A component as a process of its own: against any API server, by a kubeconfig, alone or as one of
several of whom the holder of a Lease acts.

Options have the names of kube-controller-manager's and kube-scheduler's.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from wherry.host.tasks import run_until
from wherry.kube.client import election
from wherry.kube.client.client import Client
from wherry.kube.client.election import LeaderElector, LeadershipLost
from wherry.kube.client.https import KubeconfigError, from_kubeconfig

log = logging.getLogger(__name__)

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(text: str) -> float:
    """The seconds of a duration such as ``1m30s`` or ``500ms``, as an argparse type."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text}: want a duration such as 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def boolean(text: str) -> bool:
    """``true`` or ``false``, as an argparse type."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text}: want true or false")
    return text.lower() == "true"


def add_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of where to find the API server and of leader election; ``name`` is the
    component's, and its Lease's."""
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        default=os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser(),
        help="where the API server is and who we are to it ($KUBECONFIG)",
    )
    parser.add_argument("--context", default="", help="another context of the kubeconfig")
    leading = parser.add_argument_group("leader election")
    leading.add_argument(
        "--leader-elect",
        type=boolean,
        nargs="?",
        const=True,
        default=True,
        metavar="BOOL",
        help="act only while holding the lease, so that several may run (true)",
    )
    for option, default, what in (
        ("lease-duration", election.LEASE_DURATION, "others take over after so long a silence"),
        ("renew-deadline", election.RENEW_DEADLINE, "stop when it could not be renewed so long"),
        ("retry-period", election.RETRY_PERIOD, "how often it is renewed"),
    ):
        leading.add_argument(
            f"--leader-elect-{option}",
            type=seconds,
            default=default,
            metavar="DURATION",
            help=f"{what} ({default:g}s)",
        )
    leading.add_argument("--leader-elect-resource-name", default=name, metavar="NAME")
    leading.add_argument(
        "--leader-elect-resource-namespace", default="kube-system", metavar="NAMESPACE"
    )


def run(given: argparse.Namespace, name: str, work: Callable[[Client], Awaitable[None]]) -> int:
    """Be the component ``name`` until SIGTERM or SIGINT, or until the lease is lost; returns the
    exit code. A component that lost its lease ends, for whoever started it to start it again:
    nothing of what it knew may be acted upon.
    """
    import uvloop

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        uvloop.run(_until_told(given, name, work))
    except (KubeconfigError, LeadershipLost) as error:
        log.error("%s", error)
        return 1
    return 0


async def _until_told(
    given: argparse.Namespace, name: str, work: Callable[[Client], Awaitable[None]]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    transport = from_kubeconfig(given.kubeconfig, given.context, user_agent=name)
    client = Client(transport, manager=name)

    async def act() -> None:
        await work(client)

    async def lead() -> None:
        # Unique among candidates, also among those of one machine.
        identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        elector = LeaderElector(
            client,
            given.leader_elect_resource_name,
            identity,
            namespace=given.leader_elect_resource_namespace,
            lease_duration=given.leader_elect_lease_duration,
            renew_deadline=given.leader_elect_renew_deadline,
            retry_period=given.leader_elect_retry_period,
        )
        await elector.run(act)

    try:
        await run_until(stop, lead() if given.leader_elect else act())
    finally:
        await transport.close()
