"""Ingress on this machine: the controller in the server's process, an nginx that outlives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wherry.kube.ingress.nginx import Nginx, find, listeners
from wherry.launcher.instance import Instance

if TYPE_CHECKING:
    from wherry.kube.client.transport import Transport

ACCOUNT = "ingress-controller"
"""The ServiceAccount in kube-system as which the controller acts."""

OFF = "off"


def normalise(text: str) -> str:
    """``HTTP:HTTPS`` as ports, from a user's ``80:443``; empty for ``off``.

    Raises:
        ValueError: it is no pair of ports.
    """
    if text in ("", OFF):
        return ""
    http, colon, https = text.partition(":")
    numbers = [int(part) for part in (http, https) if part.isascii() and part.isdigit()]
    if not colon or len(numbers) != 2 or not all(0 < number < 65536 for number in numbers):
        raise ValueError(f"--ingress {text}: give two ports, as 80:443, or off")
    if numbers[0] == numbers[1]:
        raise ValueError(f"--ingress {text}: the two ports must be different")
    return f"{numbers[0]}:{numbers[1]}"


def ports(instance: Instance) -> tuple[int, int]:
    """Where HTTP and HTTPS are served."""
    http, _, https = instance.ingress.partition(":")
    return int(http), int(https)


def _directory(instance: Instance) -> Path:
    # Not in the data directory, which is root's alone: the processes that serve are nobody's.
    return instance.run_dir / "ingress"


async def run(instance: Instance, transport: Transport) -> None:
    """Serve the Ingresses of ``instance`` until cancelled.

    Raises:
        NginxError: nginx is not here, or does not start.
    """
    # Not at the top: whoever starts or stops an instance needs none of it.
    from wherry.kube.client.client import Client
    from wherry.kube.client.informer import SharedInformers
    from wherry.kube.ingress.addresses import Fixed
    from wherry.kube.ingress.controller import IngressController
    from wherry.kube.ingress.render import Settings

    http, https = ports(instance)
    client = Client(transport, manager=ACCOUNT)
    informers = SharedInformers(client)
    directory = _directory(instance)
    controller = IngressController(
        client,
        informers,
        Nginx(find(), directory),
        Settings(
            str(directory), listeners(http), listeners(https), https, resolver=_resolver(instance)
        ),
        addresses=Fixed(instance.node_ips),
    )
    informers.start()
    try:
        await controller.run()
    finally:
        await informers.stop()


def _resolver(instance: Instance) -> str:
    """The cluster's name server as nginx writes it."""
    address = instance.cluster_dns[0]
    return f"[{address}]" if ":" in address else address


def is_running(instance: Instance) -> bool:
    """Whether an nginx of the instance serves, with or without its controller."""
    return Nginx("", _directory(instance)).pid is not None


async def clear(instance: Instance) -> None:
    """Stop the nginx that was left running."""
    await Nginx("", _directory(instance)).stop()
