"""PrioritySort: the most important pods first, of equals the one that waits longest."""

from __future__ import annotations

from wherry.kube.scheduler.framework import QueueSort
from wherry.kube.scheduler.snapshot import PodInfo


class PrioritySort(QueueSort):
    name = "PrioritySort"

    def key(self, pod: PodInfo, queued: float) -> tuple[int, float]:
        return -pod.priority, queued
