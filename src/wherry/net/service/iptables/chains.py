"""Service addresses as chains of iptables: one a Service and one an endpoint. Pure.

The chains, their names and what a packet meets in them are kube-proxy's
(https://kubernetes.io/docs/reference/networking/virtual-ips/): ``KUBE-SERVICES`` leads by address
to ``KUBE-SVC-…`` (or ``KUBE-SVL-…``, where a policy leaves only this node's endpoints), by way of
``KUBE-EXT-…`` where it was sent to an address outside, and of ``KUBE-FW-…`` where not everybody
may; that draws an endpoint at random, whose ``KUBE-SEP-…`` translates. ``KUBE-MARK-MASQ`` marks
what ``KUBE-POSTROUTING`` hides behind this machine. What nobody answers table filter refuses.

Rules are written as iptables-save prints them, so that a proxy that starts anew sees what is there
already; where it is printed otherwise, it is written again.

Chains begin with ``KUBE`` in the first instance of a machine only; others put their number behind
it, as a table of iptables is everybody's.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from wherry.net.service.ports import Endpoint, ServicePort

MARK = "0x4000/0x4000"
TABLES = ("filter", "nat")
Chain = tuple[str, str]  # of a table, of that name
Rules = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """What our chains are called."""

    prefix: str = "KUBE"

    @property
    def owner(self) -> str:
        """The chain that says whose the others are."""
        return f"{self.prefix}-WHERRY"

    def of(self, word: str) -> str:
        """One of the chains that there are always."""
        return f"{self.prefix}-{word}"

    def service(self, kind: str, served: ServicePort, rest: str = "") -> str:
        """A chain of a Service's own."""
        return f"{self.prefix}-{kind}-{_hash(served.name + served.protocol + rest)}"

    def has(self, chain: str) -> bool:
        """Whether a chain of that name is ours."""
        return chain.startswith(f"{self.prefix}-")


@dataclass(slots=True)
class Part:
    """What one port of a Service adds: chains of its own, and rules in those of all."""

    chains: dict[Chain, Rules] = field(default_factory=dict)
    shared: dict[Chain, list[str]] = field(default_factory=dict)

    def share(self, table: str, chain: str, rule: str) -> None:
        """Add a rule to a chain of all."""
        self.shared.setdefault((table, chain), []).append(rule)


@functools.lru_cache(1 << 16)
def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest).decode()[:16]


# ---- what there is always

_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1/128"}


def jumps(names: Names) -> dict[Chain, Rules]:
    """The rules at the beginning of iptables' own chains."""
    new = "-m conntrack --ctstate NEW"

    def jump(comment: str, word: str, only: str = "") -> str:
        return f"{only} {_comment(comment)} -j {names.of(word)}".strip()

    firewall = jump("kubernetes load balancer firewall", "PROXY-FIREWALL", new)
    services = jump("kubernetes service portals", "SERVICES", new)
    outside = jump("kubernetes externally-visible service portals", "EXTERNAL-SERVICES", new)
    nobody = jump("kubernetes addresses without a service", "REFUSE", new)
    loopback = jump("kubernetes loopback addresses", "FIREWALL")
    portals = jump("kubernetes service portals", "SERVICES")
    return {
        ("filter", "INPUT"): (firewall, outside, loopback),
        ("filter", "FORWARD"): (
            firewall,
            jump("kubernetes forwarding rules", "FORWARD"),
            services,
            outside,
            nobody,
        ),
        ("filter", "OUTPUT"): (firewall, services, outside, nobody),
        ("nat", "PREROUTING"): (portals,),
        ("nat", "OUTPUT"): (portals,),
        ("nat", "POSTROUTING"): (jump("kubernetes postrouting rules", "POSTROUTING"),),
    }


def frame(
    names: Names, family: str, services: Sequence[str], *, liberal: bool = False
) -> dict[Chain, Rules]:
    """The chains of all, without a Service; ``services`` are ranges of ``family``.

    ``liberal`` is how the kernel tracks TCP (``net.conntrack.tcp_window``).
    """
    translated = "-m conntrack --ctstate DNAT -j RETURN"
    # Nothing that was sent to ::1 can leave by another link and find back.
    elsewhere = "! -d ::1/128 " if family == "ip6" else ""
    local = "-m addrtype --dst-type LOCAL"
    # A late packet of an endpoint is not translated back. The client, who has no connection with
    # the endpoint's own address, would answer it with a reset, and that ends the good one.
    invalid = () if liberal else ("-m conntrack --ctstate INVALID -j DROP",)
    refuse = [translated]
    for cidr in services:
        refuse += [f"-d {cidr} -p tcp {_refuse(family, 'tcp')}", f"-d {cidr} {_refuse(family)}"]
    return {
        ("filter", names.owner): (),
        ("filter", names.of("SERVICES")): (translated,),
        ("filter", names.of("EXTERNAL-SERVICES")): (translated,),
        ("filter", names.of("PROXY-FIREWALL")): (translated,),
        ("filter", names.of("REFUSE")): tuple(refuse),
        ("filter", names.of("FORWARD")): (
            *invalid,
            f"{_comment('kubernetes forwarding rules')} -m mark --mark {MARK} -j ACCEPT",
            f"{_comment('kubernetes forwarding conntrack rule')} "
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
        firewall(names): (),
        ("nat", names.owner): (),
        ("nat", names.of("SERVICES")): (
            elsewhere
            + _comment(
                "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
            )
            + f" {local} -j {names.of('NODEPORTS')}",
        ),
        ("nat", names.of("NODEPORTS")): (),
        ("nat", names.of("MARK-MASQ")): (f"-j MARK --set-xmark {MARK}",),
        ("nat", names.of("POSTROUTING")): (
            f"-m mark ! --mark {MARK} -j RETURN",
            "-j MARK --set-xmark 0x4000/0x0",
            f"{_comment('kubernetes service traffic requiring SNAT')} -j MASQUERADE --random-fully",
        ),
    }


def first(names: Names, chain: Chain) -> bool:
    """Whether Services' rules come before those that are always in ``chain``."""
    return chain == ("nat", names.of("SERVICES"))


def firewall(names: Names) -> Chain:
    """The chain that says by which links connections from 127.0.0.1 may leave (IPv4)."""
    return "filter", names.of("FIREWALL")


def closed(link: str) -> str:
    """The rule of that chain for a link: nothing comes in by it for 127.0.0.1."""
    return (
        f"-i {link} -d {_LOOPBACK['ip']} {_comment('block incoming localnet connections')} "
        "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
    )


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def _refuse(family: str, protocol: str = "") -> str:
    if protocol == "tcp":
        return "-j REJECT --reject-with tcp-reset"
    return f"-j REJECT --reject-with icmp{'6' if family == 'ip6' else ''}-port-unreachable"


def _host(address: str) -> str:
    return f"{address}/128" if ":" in address else f"{address}/32"


def _recent(chain: str, what: str) -> str:
    return f"-m recent {what} --name {chain}"


def _client(family: str) -> str:
    mask = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" if family == "ip6" else "255.255.255.255"
    return f"--mask {mask} --rsource"


def _chance(of: int) -> str:
    """One in so many, as the kernel rounds it."""
    return f"{round((1 << 31) / of) / (1 << 31):.11f}"


# ---- what a Service adds


def part(names: Names, served: ServicePort, pods: Sequence[str]) -> Part:
    """What ``served`` adds; ``pods`` are the ranges of its family, at most one."""
    return _Writer(names, served, pods).part()


class _Writer:
    """Writes the chains and rules of one port of a Service."""

    def __init__(self, names: Names, served: ServicePort, pods: Sequence[str]) -> None:
        self._names = names
        self._served = served
        self._pods = pods
        self._mark = names.of("MARK-MASQ")
        self._reached = bool(served.outer_addresses or served.node_port)
        self._balancing = self._balance()
        self._made = Part()

    def part(self) -> Part:
        """All of it."""
        chains = self._made.chains
        for endpoints, chain in self._balancing.items():
            chains["nat", chain] = tuple(self._draw(endpoints))
        for endpoint in sorted(self._served.endpoints):
            chains["nat", self._endpoint(endpoint)] = tuple(self._translate(endpoint))
        self._inside()
        if self._reached:
            self._outside()
        return self._made

    def _balance(self) -> dict[tuple[Endpoint, ...], str]:
        """Which chain draws among which endpoints: KUBE-SVC among those of the whole cluster."""
        served = self._served
        outer = served.outside if served.masquerade else served.everywhere
        sets = [outer] if self._reached and outer else []
        sets += [served.inside, served.everywhere, served.outside]
        found: dict[tuple[Endpoint, ...], str] = {}
        for endpoints in sets:
            if endpoints and endpoints not in found:
                kind, rest = "SVL" if found else "SVC", "" if len(found) < 2 else "outside"
                found[endpoints] = self._names.service(kind, served, rest)
        return found

    def _draw(self, endpoints: Sequence[Endpoint]) -> Iterator[str]:
        served = self._served
        said = [(self._endpoint(at), _comment(f"{served.name} -> {_at(at)}")) for at in endpoints]
        if served.affinity:
            for chain, comment in said:
                yield (
                    f"{comment} {_recent(chain, f'--rcheck --seconds {served.affinity} --reap')} "
                    f"{_client(served.family)} -j {chain}"
                )
        for left, (chain, comment) in zip(range(len(said), 0, -1), said, strict=True):
            drawn = f" -m statistic --mode random --probability {_chance(left)}" if left > 1 else ""
            yield f"{comment}{drawn} -j {chain}"

    def _endpoint(self, endpoint: Endpoint) -> str:
        return self._names.service("SEP", self._served, _at(endpoint))

    def _translate(self, endpoint: Endpoint) -> Iterator[str]:
        served, chain = self._served, self._endpoint(endpoint)
        comment = _comment(served.name)
        yield f"-s {_host(endpoint[0])} {comment} -j {self._mark}"
        keep = f" {_recent(chain, '--set')} {_client(served.family)}" if served.affinity else ""
        yield (
            f"-p {served.protocol} {comment}{keep} -m {served.protocol} "
            f"-j DNAT --to-destination {_at(endpoint)}"
        )

    def _inside(self) -> None:
        served, services = self._served, self._names.of("SERVICES")
        at, port = served.cluster_ip, served.port
        if not served.inside:
            why, fate = _nobody(served, served.inside_elsewhere)
            self._made.share("filter", services, f"{_to(served, at, port, why)} {fate}")
            return
        chain = self._balancing[served.inside]
        # Who comes from neither a pod nor this machine knows no way back from a pod but through
        # here.
        strangers = "".join(f"! -s {cidr} " for cidr in self._pods)
        from_them = _to(served, at, port, "cluster IP", "-m addrtype ! --src-type LOCAL ")
        self._made.chains["nat", chain] = (
            f"{strangers}{from_them} -j {self._mark}",
            *self._made.chains["nat", chain],
        )
        self._made.share("nat", services, f"{_to(served, at, port, 'cluster IP')} -j {chain}")

    def _outside(self) -> None:
        served, names, made = self._served, self._names, self._made
        ext, firewall_ = names.service("EXT", served), names.service("FW", served)
        led = bool(served.outside or served.everywhere)
        if led:
            made.chains["nat", ext] = tuple(self._external())
        guarded = bool(served.sources and served.balancer_ips)
        if guarded and led:
            comment = _comment(f"{served.name} loadbalancer IP")
            allowed = (f"-s {cidr} {comment} -j {ext}" for cidr in served.sources)
            made.chains["nat", firewall_] = tuple(allowed)
        places = [(at, "external IP", ext) for at in served.external_ips]
        places += [
            (at, "loadbalancer IP", firewall_ if guarded else ext)
            for at in served.balancer_ips
            if at not in served.external_ips
        ]
        why, fate = _nobody(served, served.outside_elsewhere)
        for address, what, chain in places:
            if address == served.cluster_ip:
                continue
            if led:
                to = _to(served, address, served.port, what)
                made.share("nat", names.of("SERVICES"), f"{to} -j {chain}")
            if chain == firewall_:
                self._guard(address, firewall_)
            if not served.outside:
                to = _to(served, address, served.port, why)
                made.share("filter", names.of("EXTERNAL-SERVICES"), f"{to} {fate}")
        if served.node_port:
            if led:
                to = _to(served, "", served.node_port, "nodeport")
                made.share("nat", names.of("NODEPORTS"), f"{to} -j {ext}")
            if not served.outside:
                to = _to(served, "", served.node_port, why, "-m addrtype --dst-type LOCAL ")
                made.share("filter", names.of("EXTERNAL-SERVICES"), f"{to} {fate}")

    def _guard(self, address: str, by: str) -> None:
        """Those who may are translated, or refused; others are told nothing."""
        served, guards = self._served, self._names.of("PROXY-FIREWALL")
        to = _to(served, address, served.port, f"traffic not accepted by {by}")
        for cidr in () if served.outside else served.sources:
            self._made.share("filter", guards, f"-s {cidr} {to} -j RETURN")
        self._made.share("filter", guards, f"{to} -j DROP")

    def _external(self) -> Iterator[str]:
        """Where clients of an address outside are led, by where they are."""
        served = self._served
        what = f"{served.name} external destinations"
        if served.masquerade:
            yield f"{_comment(f'masquerade traffic for {what}')} -j {self._mark}"
        elif served.everywhere:
            chain = self._balancing[served.everywhere]
            local = "-m addrtype --src-type LOCAL"
            for cidr in self._pods:
                yield f"-s {cidr} {_comment(f'pod traffic for {what}')} -j {chain}"
            yield f"{_comment(f'masquerade LOCAL traffic for {what}')} {local} -j {self._mark}"
            yield f"{_comment(f'route LOCAL traffic for {what}')} {local} -j {chain}"
        if served.outside:
            yield f"-j {self._balancing[served.outside]}"


def _at(endpoint: Endpoint) -> str:
    address, port = endpoint
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _to(served: ServicePort, address: str, port: int, what: str, only: str = "") -> str:
    """What finds packets for a place of the Service, ``only`` some of them."""
    comment = _comment(f"{served.name} {what}")
    at = f"-d {_host(address)} " if address else ""
    return f"{at}-p {served.protocol} {only}{comment} -m {served.protocol} --dport {port}"


def _nobody(served: ServicePort, elsewhere: bool) -> tuple[str, str]:
    """Why nobody answers, and what becomes of the packet."""
    if elsewhere:
        return "has no local endpoints", "-j DROP"
    return "has no endpoints", _refuse(served.family, served.protocol)
