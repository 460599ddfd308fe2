"""``wherry up``: from whatever is there to a node that is Ready."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from pathlib import Path

from wherry.host.pidfile import AlreadyRunning, PidFile
from wherry.launcher import instance as instances
from wherry.launcher import pki, supervise
from wherry.launcher.instance import Instance


class UpFailed(Exception):
    """Nothing was started; the text says why."""


@dataclass(frozen=True, slots=True)
class Started:
    """The instance, and how long it took to start (None: it ran already)."""

    instance: Instance
    seconds: float | None


def up(data_dir: Path, *, api_port: int | None = None, node_name: str | None = None) -> Started:
    """Start what does not run of the instance in ``data_dir`` and wait until its node is Ready.

    Raises:
        InstanceError, UpFailed: nothing was changed.
        StartFailed: a daemon did not start; what this call started is stopped again.
    """
    instance = instances.open_or_create(data_dir, api_port=api_port, node_name=node_name)
    try:
        lock = PidFile(instance.run_dir / "up.pid")
    except AlreadyRunning as error:
        raise UpFailed(
            f"another `wherry up` is under way on {data_dir} (pid {error.pid})"
        ) from None
    try:
        running = {state.name for state in supervise.states(instance) if state.pid is not None}
        if running == set(supervise.DAEMONS):
            return Started(instance, None)
        try:
            if "server" not in running:
                _check_port(instance.api_port, "API server")
            if "node" not in running:
                _check_port(instance.kubelet_port, "kubelet")
        except UpFailed:
            if not instance.kubeconfig.exists():  # never started: forget the choice of ports too
                instances.forget(instance)
            raise
        pki.ensure(instance)
        return Started(instance, asyncio.run(supervise.start(instance)))
    finally:
        lock.release()


def _check_port(port: int, who: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise UpFailed(
                f"{who}: listen tcp 0.0.0.0:{port}: bind: address already in use"
            ) from error
