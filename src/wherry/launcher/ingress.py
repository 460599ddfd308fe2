"""Ingress on this machine: the controller in the server's process, an nginx that outlives it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.kube.ingress.nginx import Nginx, find, listeners
from wherry.launcher.instance import Instance

if TYPE_CHECKING:
    from wherry.kube.client.transport import Transport

log = logging.getLogger(__name__)

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


def canonical(arguments: Iterable[str]) -> tuple[str, ...]:
    """The controller's options as they are kept; none but empty ones are none.

    Raises:
        ValueError: one is wrong.
    """
    given = tuple(argument for argument in arguments if argument)
    if given:
        from wherry.kube.ingress import flags

        flags.read(given)
    return given


def _told(instance: Instance) -> Path:
    """The file with the addresses that statuses say, for when Ingresses are served no longer."""
    return instance.data_dir / "ingress.addresses"


def concerns(instance: Instance) -> bool:
    """Whether there is something to do: to serve, or to take back what was said."""
    return bool(instance.ingress) or _told(instance).exists()


async def run(instance: Instance, transport: Transport, *, shared: bool) -> None:
    """Serve the Ingresses of ``instance`` until cancelled; or end that, and say so.

    Args:
        instance: of which the options are.
        transport: to the API server, as ``ACCOUNT``.
        shared: other servers may serve the same Ingresses.

    Raises:
        NginxError: nginx is not here, or does not start.
    """
    if instance.ingress:
        await _serve(instance, transport, shared=shared)
    else:
        await clear(instance)
        await _take_back(instance, transport)
        await asyncio.get_running_loop().create_future()


async def _take_back(instance: Instance, transport: Transport) -> None:
    """Statuses say our addresses no longer; others' addresses are none of ours."""
    from wherry.kube.api.errors import StatusError
    from wherry.kube.api.resources import INGRESS_CLASSES, INGRESSES
    from wherry.kube.client.client import Client
    from wherry.kube.ingress import flags, statuses
    from wherry.kube.ingress.addresses import Fixed
    from wherry.kube.ingress.world import is_ours

    client = Client(transport, manager=ACCOUNT)
    addresses = Fixed(_told(instance).read_text().split()).current()
    options = flags.read(instance.ingress_args)
    try:
        if options.update_status and options.update_status_on_shutdown:
            classes = (await client.list(INGRESS_CLASSES))["items"]
            ingresses = (await client.list(INGRESSES))["items"]
            ours = [i for i in ingresses if is_ours(i, classes, options.ingress_class)]
            await statuses.take_back(client, ours, only=addresses or [])
    except (StatusError, ConnectionError) as error:
        log.warning("Ingresses say that they are served, which is tried again later: %s", error)
    else:
        _told(instance).unlink()


async def _serve(instance: Instance, transport: Transport, *, shared: bool) -> None:
    """Serve until cancelled.

    Raises:
        NginxError: nginx is not here, or does not start.
    """
    # Not at the top: whoever starts or stops an instance needs none of it.
    from wherry.kube.client.client import Client
    from wherry.kube.client.informer import SharedInformers
    from wherry.kube.ingress import flags, leadership
    from wherry.kube.ingress.addresses import Fixed
    from wherry.kube.ingress.controller import IngressController
    from wherry.kube.ingress.manifests import LEASE
    from wherry.kube.ingress.settings import Settings

    options = flags.read(instance.ingress_args)
    addresses = flags.addresses(options) or list(instance.node_ips)
    _told(instance).write_text("\n".join(addresses))
    identity = f"{instance.node_name}_{uuid.uuid4()}"  # a machine may have several instances
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
        addresses=Fixed(addresses),
        leadership=leadership.by_lease(client, "kube-system", LEASE, identity) if shared else None,
        options=options,
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
    return Nginx("", _directory(instance)).serves


async def clear(instance: Instance) -> None:
    """Stop the nginx that was left running."""
    await Nginx("", _directory(instance)).stop()
