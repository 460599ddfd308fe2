"""Containers of the engine as the kubelet sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wherry.engine.container.container import Container
from wherry.engine.cri import naming
from wherry.engine.cri.types import (
    IMAGE_ADDED,
    ContainerEvent,
    ContainerMetadata,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    Image,
    PodSandboxState,
    PodSandboxStatus,
)
from wherry.engine.events import Event
from wherry.engine.image.image import Image as StoredImage
from wherry.runtime.types import Usage

_KINDS = {"create": "created", "start": "started", "die": "stopped", "destroy": "deleted"}


def sandbox_status(container: Container, primary: int = 4) -> PodSandboxStatus:
    """A sandbox, from its pause container; its addresses of IP version ``primary`` come first."""
    state = container.state
    ready = state.running and not state.restarting
    labels, annotations = naming.split_labels(container)
    return PodSandboxStatus(
        id=container.id,
        metadata=naming.pod_metadata(container),
        state=PodSandboxState.READY if ready else PodSandboxState.NOTREADY,
        created_at=container.created_at,
        ips=tuple(
            sorted(
                (a for e in container.endpoints.values() for a in e.addresses),
                key=lambda address: (":" in address) != (primary == 6),
            )
        ),
        labels=labels,
        annotations=annotations,
    )


def container_status(container: Container) -> ContainerStatus:
    """A container of a pod."""
    state = container.state
    labels, annotations = naming.split_labels(container)
    where, reason = _state(container)
    ended = where is ContainerState.EXITED
    return ContainerStatus(
        id=container.id,
        pod_sandbox_id=container.labels[naming.SANDBOX_ID],
        metadata=ContainerMetadata(
            container.labels[naming.CONTAINER_NAME], naming.attempt(container)
        ),
        state=where,
        created_at=container.created_at,
        started_at=state.started_at,
        finished_at=(state.finished_at or container.created_at) if ended else 0,
        exit_code=state.exit_code if ended else 0,
        image=str(container.config["Image"]),
        image_ref=container.image_id,
        reason=reason,
        message=state.error,
        labels=labels,
        annotations=annotations,
        log_path=Path(container.log_path) if container.log_path else None,
        user=tuple(container.account),
    )


def _state(container: Container) -> tuple[ContainerState, str]:
    state = container.state
    if state.running:
        return ContainerState.RUNNING, ""
    if state.error:
        return ContainerState.EXITED, "ContainerCannotRun"
    if not state.started_at:
        return ContainerState.CREATED, ""
    if state.oom_killed:
        return ContainerState.EXITED, "OOMKilled"
    return ContainerState.EXITED, "Error" if state.exit_code else "Completed"


def container_stats(
    container: Container,
    usage: Usage,
    cgroup: str,
    interfaces: Mapping[str, Mapping[str, int]],
) -> ContainerStats:
    """What a running container or sandbox uses."""
    table = usage.memory_stat
    return ContainerStats(
        id=container.id,
        labels=naming.split_labels(container)[0],
        cpu_usage=usage.cpu_total,
        memory_working_set=usage.memory_working_set,
        memory_rss=table.get("total_rss", table.get("anon", 0)),
        name=container.name,
        image=str(container.config["Image"]),
        cgroup=cgroup,
        started_at=container.state.started_at,
        cpu_user=usage.cpu_user,
        cpu_system=usage.cpu_system,
        cpu_periods=usage.periods,
        cpu_throttled_periods=usage.throttled_periods,
        cpu_throttled=usage.throttled_time,
        memory_usage=usage.memory,
        memory_cache=table.get("total_cache", table.get("file", 0)),
        memory_mapped=table.get("total_mapped_file", table.get("file_mapped", 0)),
        memory_swap=table.get("total_swap", 0),
        memory_maximum=usage.memory_maximum,
        memory_failures=usage.memory_failures,
        memory_limit=usage.memory_limit,
        page_faults=table.get("total_pgfault", table.get("pgfault", 0)),
        major_page_faults=table.get("total_pgmajfault", table.get("pgmajfault", 0)),
        processes=usage.pids,
        interfaces=interfaces,
    )


def image(stored: StoredImage) -> Image:
    """An image of the store."""
    return Image(
        id=stored.id,
        repo_tags=stored.repo_tags,
        repo_digests=stored.repo_digests,
        size=stored.size,
        user=str(stored.settings.get("User") or ""),
    )


def container_event(event: Event) -> ContainerEvent | None:
    """What an event of the engine means to a kubelet; None where it means nothing."""
    if event.type == "image":
        gone = event.action in ("untag", "delete", "prune")
        return None if gone else ContainerEvent(IMAGE_ADDED, "", "", "")
    kind = _KINDS.get(event.action)
    role = event.attributes.get(naming.TYPE)
    if event.type != "container" or kind is None or role is None:
        return None
    sandbox = event.id if role == naming.SANDBOX else event.attributes[naming.SANDBOX_ID]
    return ContainerEvent(kind, event.id, sandbox, event.attributes[naming.POD_UID])
