"""What a pod's ``/etc/resolv.conf`` says, from its policy, its own wishes and the node's. No I/O.

https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/, limits as in
pkg/apis/core/validation and pkg/kubelet/network/dns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wherry.engine.cri.types import DNSConfig
from wherry.host.resolv_conf import PATH
from wherry.kube.api import meta
from wherry.kube.api.names import SUBDOMAIN_MAX
from wherry.kube.kubelet import pods

Object = dict[str, Any]

MAX_SERVERS, MAX_SEARCHES, MAX_SEARCH_CHARACTERS = 3, 32, 2048


def dns_config(
    pod: Object,
    cluster_dns: Sequence[str],
    cluster_domain: str,
    host: DNSConfig,
    path: str = PATH,
) -> tuple[DNSConfig, list[str]]:
    """The pod's resolver, and what had to be left out of it (for events).

    All empty stands for the machine's own. The node's is ``host``, from the file at ``path``;
    without a file the pod may find one on its own loopback. Without a cluster DNS the policies that
    want it fall back to the node's.
    """
    spec = pod["spec"]
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    own = spec.get("dnsConfig") or {}
    if policy == "ClusterFirst" and pods.is_host_network(pod):
        policy = "Default"
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not cluster_dns:
        policy = "Default"
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    if policy == "Default":
        if not any(own.values()) and path == PATH:
            return DNSConfig(), []
        if path:
            servers, searches, options = list(host.servers), list(host.searches), list(host.options)
        else:
            servers, searches = ["127.0.0.1"], ["."]
    elif policy != "None":
        servers = list(cluster_dns)
        namespace = meta.namespace(pod)
        searches = [
            f"{namespace}.svc.{cluster_domain}",
            f"svc.{cluster_domain}",
            cluster_domain,
            *host.searches,
        ]
        options = ["ndots:5"]
    servers += own.get("nameservers") or ()
    searches += own.get("searches") or ()
    for option in own.get("options") or ():
        name = option["name"]
        options = [o for o in options if o.partition(":")[0] != name]
        options.append(f"{name}:{option['value']}" if option.get("value") else name)
    servers, searches = list(dict.fromkeys(servers)), list(dict.fromkeys(searches))
    return _within_limits(DNSConfig(servers, searches, options))


def _within_limits(wanted: DNSConfig) -> tuple[DNSConfig, list[str]]:
    complaints = []
    servers = list(wanted.servers)[:MAX_SERVERS]
    if len(servers) < len(wanted.servers):
        complaints.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, "
            f"the applied nameserver line is: {' '.join(servers)}"
        )
    # Longer ones make some resolvers abort (glibc 2.28); the node's file may have such.
    searches = [name for name in wanted.searches[:MAX_SEARCHES] if len(name) <= SUBDOMAIN_MAX]
    while len(" ".join(searches)) > MAX_SEARCH_CHARACTERS:
        searches.pop()
    if len(searches) < len(wanted.searches):
        complaints.append(
            "Search Line limits were exceeded, some search paths have been omitted, "
            f"the applied search line is: {' '.join(searches)}"
        )
    return DNSConfig(servers, searches, list(wanted.options)), complaints
