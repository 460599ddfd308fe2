"""Policies, pods and namespaces, and the rules for this node that follow from them.

What chains, combinations, maps and sets are, ``net.policy_table`` says. Who is in a set follows the
``groups``; policies and the pods they select make chains and combinations, here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from wherry.kube.network_policy.elements import Elements, NamedSet, Pod, digest, version
from wherry.kube.network_policy.groups import Groups, Members
from wherry.kube.network_policy.policies import ALL_PORTS, EVERY_POD, Group, Policy, Rule
from wherry.net.policy_table import Allow, Rules, Touched

_LONGEST = 120  # of the name of a chain, in characters; nftables bears 127
SIDES = ("ingress", "egress")
_NAME_SERVER = "kube-system/"  # a key that no pod has


class Model:
    """What the cluster says, and ``rules``, what follows from it for this node.

    ``families`` are the versions of IP that pods have addresses of.
    """

    def __init__(self, families: tuple[int, ...] = (4,)) -> None:
        self.rules = Rules()
        self._touched = Touched()
        self._elements = Elements(self.rules.sets)
        self._families = families
        self._groups = Groups(self._member_replaced)
        self._policies: dict[str, Policy] = {}
        self._verdicts: dict[str, set[tuple[str, str, str]]] = {}  # elements that judge a pod
        self._combined: dict[str, tuple[str, ...]] = {}  # combinations by the pods they judge
        self._sets: dict[str, list[NamedSet]] = {}  # that a chain names
        self._uses: Counter[str] = Counter()  # of chains and sets

    def take_touched(self) -> Touched:
        """What may have changed since the last call."""
        touched, self._touched = self._touched, Touched()
        touched.sets = self._elements.take_touched()
        return touched

    @property
    def has_policies(self) -> bool:
        return bool(self._policies)

    @property
    def pending(self) -> bool:
        """Whether something may have changed since ``take_touched``."""
        return bool(self._touched or self._elements.touched)

    # ---- what the cluster says

    def set_pod(self, key: str, pod: Pod | None) -> None:
        """The pod called ``key`` is this now; None: it has no addresses, or is gone."""
        if self._groups.pods.get(key) != pod:
            self._groups.set_pod(key, pod)
            self._judge(key)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """The labels of a namespace; None: it is gone."""
        self._groups.set_namespace(name, labels)

    def set_policy(self, key: str, policy: Policy | None) -> None:
        """The policy called ``key`` says this now; None: it is gone."""
        old = self._policies.get(key)
        if old == policy:
            return
        affected: set[str] = set()
        if policy is not None:
            target = self._groups.acquire(policy.target)
            target.policies.add(key)
            affected |= target.pods
        if old is not None:
            former = self._groups[old.target]
            affected |= former.pods
            if policy is None or policy.target != old.target:
                former.policies.discard(key)
        if policy is None:
            del self._policies[key]
        else:
            self._policies[key] = policy
            for side in SIDES:
                chain = _chain(side, key)
                if chain in self.rules.policies:
                    self._fill(chain, side, policy)
        for pod in affected:
            self._judge(pod)
        if old is not None:
            self._groups.release(old.target)

    def set_name_server(self, addresses: tuple[str, ...]) -> None:
        """Where the cluster's name server is on this node; it is said once.

        It is no pod, but is judged as the one that others have, with what selects that.
        """
        ports = (("dns", "udp", 53), ("dns-tcp", "tcp", 53))
        self.set_pod(
            _NAME_SERVER, Pod("kube-system", {"k8s-app": "kube-dns"}, addresses, False, ports)
        )
        for address in addresses:
            self._elements.want(f"names{version(address)}", address)

    # ---- sets

    def _member_replaced(self, members: Members, old: Pod | None, new: Pod | None) -> None:
        """One pod of a group is another than it was."""
        for name, held in members.sets.items():
            before, after = held.elements(old), held.elements(new)
            for key in before - after:
                self._elements.give_back(name, key)
            for key in after - before:
                self._elements.want(name, key)

    def _take(self, needed: NamedSet) -> None:
        """One more rule names a set."""
        name = needed.name
        self._uses[name] += 1
        first = self._uses[name] == 1
        if first:
            self._elements.begin(name)
        if needed.group is None:
            for block in needed.blocks if first else ():
                self._elements.want(name, block)
            return
        members = self._groups.acquire(needed.group)
        if first:
            members.sets[name] = needed
            for key in members.pods:
                for element in needed.elements(self._groups.pods[key]):
                    self._elements.want(name, element)

    def _give(self, needed: NamedSet) -> None:
        """One less names it."""
        name = needed.name
        self._uses[name] -= 1
        if not self._uses[name]:
            del self._uses[name]
            self._elements.end(name)
            if needed.group is not None:
                del self._groups[needed.group].sets[name]
        if needed.group is not None:
            self._groups.release(needed.group)

    # ---- chains

    def _judge(self, key: str) -> None:
        """See to it that a pod of this node is judged by the policies that select it."""
        pod = self._groups.pods.get(key)
        combinations: dict[str, tuple[str, ...]] = {}
        elements: set[tuple[str, str, str]] = set()
        if pod is not None and pod.local:
            selecting = sorted(
                policy for group in self._groups.of(key) for policy in self._groups[group].policies
            )
            for side in SIDES:
                said = tuple(p for p in selecting if getattr(self._policies[p], side) is not None)
                if said:
                    name = f"{side}-{digest(said)}"
                    combinations[name] = said
                    elements |= {(f"{side}{version(ip)}", ip, name) for ip in pod.ips}
            if combinations:
                elements |= {(f"itself{version(ip)}", f"{ip} . {ip}", "") for ip in pod.ips}
                elements |= {(f"isolated{version(ip)}", ip, "") for ip in pod.ips}
        for name, policies in combinations.items():
            self._use_combination(name, policies)
        before = self._verdicts.pop(key, set())
        if elements:
            self._verdicts[key] = elements
        for element in before - elements:
            self._elements.give_back(*element)
        for element in elements - before:
            self._elements.want(*element)
        former = self._combined.pop(key, ())
        if combinations:
            self._combined[key] = tuple(combinations)
        for name in former:
            self._drop_combination(name)

    def _use_combination(self, name: str, policies: tuple[str, ...]) -> None:
        self._uses[name] += 1
        if self._uses[name] > 1:
            return
        side = name.partition("-")[0]
        chains = tuple(_chain(side, policy) for policy in policies)
        self.rules.combinations[name] = chains
        self._touched.combinations.add(name)
        for policy, chain in zip(policies, chains, strict=True):
            self._uses[chain] += 1
            if self._uses[chain] == 1:
                self._fill(chain, side, self._policies[policy])

    def _drop_combination(self, name: str) -> None:
        self._uses[name] -= 1
        if self._uses[name]:
            return
        del self._uses[name]
        self._touched.combinations.add(name)
        for chain in self.rules.combinations.pop(name):
            self._uses[chain] -= 1
            if not self._uses[chain]:
                del self._uses[chain], self.rules.policies[chain]
                self._touched.policies.add(chain)
                for each in self._sets.pop(chain):
                    self._give(each)

    def _fill(self, chain: str, side: str, policy: Policy) -> None:
        """Have a chain say what ``policy`` says."""
        named: list[NamedSet] = []
        rules: dict[Allow, None] = {}
        for rule in getattr(policy, side) or ():
            for allow, sets in _allows(rule, side, policy.target, self._families):
                rules[allow] = None
                named += sets
        for each in named:
            self._take(each)
        for each in self._sets.get(chain, ()):
            self._give(each)
        self._sets[chain] = named
        if self.rules.policies.get(chain) != tuple(rules):
            self.rules.policies[chain] = tuple(rules)
            self._touched.policies.add(chain)


def _allows(
    rule: Rule, side: str, target: Group, families: tuple[int, ...]
) -> Iterator[tuple[Allow, list[NamedSet]]]:
    """A rule of a policy as rules of its chain, each with the sets that it names."""
    ingress = side == "ingress"
    others: list[tuple[int, Group | None, list[NamedSet]]] = []
    if rule.everyone:
        others.append((0, None, []))
    for family in families:
        others += [(family, g, [NamedSet(f"peers{family}", g)]) for g in rule.groups]
        blocks = tuple(block for block in rule.blocks if version(block) == family)
        if blocks:
            others.append((family, None, [NamedSet(f"blocks{family}", None, blocks)]))
    for family, group, sets in others:
        peers = sets[0].name if sets else ""
        if rule.ports is None:
            yield Allow(ingress, family, peers), sets
            continue
        # The names of ports are those that the pods give them which answer.
        answering = target if ingress else group or EVERY_POD
        for ports in rule.ports:
            if ALL_PORTS in ports.ranges:
                yield Allow(ingress, family, peers, ports.protocol), sets
                continue
            if ports.ranges:
                yield Allow(ingress, family, peers, ports.protocol, ports.ranges), sets
            for name in ports.names:
                for each in (family,) if family else families:
                    kind = f"named{each}-{ports.protocol}"
                    named = NamedSet(kind, answering, port=(ports.protocol, name))
                    allow = Allow(ingress, each, peers, ports.protocol, named=named.name)
                    yield allow, [*sets, named]


def _chain(side: str, policy: str) -> str:
    """The name of the chain of a policy."""
    name = f"{side}-{policy}"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 20]}-{digest(policy)}"
