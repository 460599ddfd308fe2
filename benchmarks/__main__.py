"""Run the benchmarks named on the command line, or all of them, and print one table."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from benchmarks import (
    apiserver,
    cluster,
    controllers,
    dns,
    engine,
    images,
    ingress,
    kubelet,
    network_policy,
    proxy,
    scheduler,
    services,
)
from benchmarks.harness import Figure

BENCHMARKS: dict[str, Callable[[], list[Figure]]] = {
    "up": cluster.up,
    "pod": cluster.pod,
    "deployment": cluster.deployment,
    "memory": cluster.memory_and_idle,
    "kubelet_pods": kubelet.pods,
    "kubelet_restart": kubelet.restart,
    "kubelet_probes": kubelet.probes,
    "kubelet_streams": kubelet.streams,
    "dns": dns.answers,
    "dns_busy": dns.busy,
    "dns_follows": dns.follows,
    "ingress": ingress.rate,
    "ingress_changes": ingress.changes,
    "network_policy": network_policy.changes,
    "docker_run": engine.docker_run,
    "docker_exec": engine.docker_exec,
    "docker_burst": engine.docker_burst,
    "docker_filter": engine.docker_filter,
    "docker_memory": engine.docker_memory,
    "docker_ps": engine.docker_ps,
    "load_save": images.load_and_save,
    "push_pull": images.push_and_pull,
    "build": images.build,
    "apiserver_ready": apiserver.ready,
    "apiserver_create": apiserver.create,
    "apiserver_get": apiserver.get,
    "apiserver_list": apiserver.lists,
    "apiserver_many": apiserver.many,
    "apiserver_watchers": apiserver.watchers,
    "apiserver_growth": apiserver.growth,
    "controllers_deployed": controllers.deployed,
    "controllers_namespace": controllers.namespace,
    "controllers_idle": controllers.idle,
    "controllers_autoscalers": controllers.autoscalers,
    "proxy_rules": proxy.rules,
    "proxy_chains": proxy.chains,
    "service_ready": services.ready,
    "service_rate": services.rate,
    "service_update": services.update,
    "scheduler_pending": scheduler.pending,
    "scheduler_linear": scheduler.linear,
    "scheduler_one_more": scheduler.one_more,
}


def main(names: list[str]) -> int:
    """Print a line a figure: median of the runs, spread, what we want, and the peer's median."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 2
    # Whoever is told to end takes along what it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    print(f"{'figure':<46}{'median':>10}{'min–max':>18}{'target':>10}{'peer':>10}")
    for name in names or BENCHMARKS:
        for figure in BENCHMARKS[name]():
            print(figure.line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
