"""The last words of a container: its termination message.

What it wrote to its ``terminationMessagePath`` (at most 4096 bytes), or with
``FallbackToLogsOnError``, where it wrote nothing and failed, the end of its log (at most 80 lines
and 2048 bytes).
https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from __future__ import annotations

import os
from pathlib import Path

from wherry.engine.cri.types import ContainerStatus
from wherry.kube.kubelet import containers, pods
from wherry.kube.kubelet.logs import LogOptions, LogReader, tail_offset
from wherry.kube.kubelet.view import pod_uid
from wherry.kube.kubelet.volumes.manager import Volumes

MAX_MESSAGE = 4096
MAX_LOG, MAX_LOG_LINES = 2048, 80


def last_words(status: ContainerStatus, volumes: Volumes) -> str:
    """The termination message of a container that has ended; empty if it left none."""
    message = ""
    if status.annotations.get(pods.MESSAGE_PATH):
        directory = volumes.pod_directory(pod_uid(status))
        name, attempt = status.metadata.name, status.metadata.attempt
        message = _read_end(containers.message_file(directory, name, attempt), MAX_MESSAGE)
    fallback = status.annotations.get(pods.MESSAGE_POLICY) == "FallbackToLogsOnError"
    if not message and fallback and status.exit_code != 0 and status.log_path is not None:
        message = _end_of_log(status.log_path)
    return message


def _read_end(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""  # it never started, or the pod's directory has been removed


def _end_of_log(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(tail_offset(file, MAX_LOG_LINES))
            output = LogReader(LogOptions()).feed(file.read())
    except OSError:
        return ""
    return output[-MAX_LOG:].decode("utf-8", "replace")
