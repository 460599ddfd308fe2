"""Policies, pods and namespaces, and the rules for this node that follow from them.

Each change finds what it touches: a pod the selectors that may mean it, a policy its own selectors.
Selectors are shared by all policies that have them, and looked after only while a chain of this
node needs them. So the cost follows the change, not the cluster.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property

from wherry.kube.network_policy.policies import ALL_PORTS, EVERY_POD, Group, Policy, Rule
from wherry.net.policy_table import Allow, Rules, Touched

_LONGEST = 120  # of the name of a chain, in characters; nftables bears 127
SIDES = ("ingress", "egress")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has addresses of its own; ``ports`` are those with a name: name, protocol, number.

    ``local``: it is on this node.
    """

    namespace: str
    labels: Mapping[str, str]
    ips: tuple[str, ...]
    local: bool = False
    ports: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True)
class _Need:
    """A set that a rule needs: the addresses of a ``group``, or its ``port`` (protocol, name), or
    ``blocks``."""

    kind: str
    group: Group | None
    blocks: tuple[str, ...] = ()
    port: tuple[str, str] | None = None

    @cached_property
    def set(self) -> str:
        """Its name."""
        return f"{self.kind}-{_hash((self.group, self.blocks, self.port))}"

    def elements(self, pod: Pod | None) -> Set[str]:
        """What a pod of the group has in it."""
        return frozenset(self._elements(pod))

    def _elements(self, pod: Pod | None) -> Iterator[str]:
        if pod is None:
            return
        family = int(self.kind.partition("-")[0][-1])
        for ip in pod.ips:
            if _version(ip) != family:
                continue
            if self.port is None:
                yield ip
                continue
            for name, protocol, number in pod.ports:
                if (protocol, name) == self.port:
                    yield f"{ip} . {number}"


@dataclass(slots=True)
class _Members:
    """The pods that a group means at present, and the sets that follow from it."""

    group: Group
    pods: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)
    users: int = 0
    sets: dict[str, _Need] = field(default_factory=dict)
    policies: set[str] = field(default_factory=set)  # whose target it is


class Model:
    """What the cluster says, and ``rules``, what follows from it for this node.

    ``families`` are the versions of IP that pods have addresses of.
    """

    def __init__(self, families: tuple[int, ...] = (4,)) -> None:
        self.rules = Rules()
        self._touched = Touched()
        self._families = families
        self._pods: dict[str, Pod] = {}
        self._pods_in: dict[str, set[str]] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._policies: dict[str, Policy] = {}
        self._groups: dict[Group, _Members] = {}
        self._groups_of: dict[str, dict[Group, None]] = {}  # by namespace
        self._wide: dict[Group, None] = {}  # those of namespaces by their labels
        self._groups_with: dict[str, set[Group]] = {}  # those that mean a pod
        # How many say that an element is in a set, and with which value.
        self._counts: dict[str, dict[str, Counter[str]]] = {}
        self._verdicts: dict[str, set[tuple[str, str, str]]] = {}  # elements that judge a pod
        self._combined: dict[str, tuple[str, ...]] = {}  # combinations by the pods they judge
        self._needs: dict[str, list[_Need]] = {}  # by chain
        self._uses: Counter[str] = Counter()  # of chains and sets

    def take_touched(self) -> Touched:
        """What may have changed since the last call."""
        touched, self._touched = self._touched, Touched()
        return touched

    @property
    def has_policies(self) -> bool:
        return bool(self._policies)

    @property
    def pending(self) -> bool:
        """Whether something may have changed since ``take_touched``."""
        return bool(self._touched)

    # ---- what the cluster says

    def set_pod(self, key: str, pod: Pod | None) -> None:
        """The pod called ``key`` is this now; None: it has no addresses, or is gone."""
        old = self._pods.get(key)
        if old == pod:
            return
        if pod is None:
            former = self._pods.pop(key)
            self._pods_in[former.namespace].discard(key)
        else:
            self._pods[key] = pod
            self._pods_in.setdefault(pod.namespace, set()).add(key)
        before = set(self._groups_with.get(key, ()))
        after = set(self._groups_for(pod)) if pod is not None else set()
        for group in before - after:
            self._leave(self._groups[group], key, old)
        for group in before & after:
            self._replace(self._groups[group], old, pod)
        for group in after - before:
            self._join(self._groups[group], key, pod)
        self._judge(key)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """The labels of a namespace; None: it is gone."""
        if self._namespaces.get(name) == labels:
            return
        if labels is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = labels
        for group in self._wide:
            if group.everywhere:
                continue
            members = self._groups[group]
            selected = self._selects_namespace(group, name)
            if selected == (name in members.namespaces):
                continue
            (members.namespaces.add if selected else members.namespaces.discard)(name)
            for key in tuple(self._pods_in.get(name, ())):
                pod = self._pods[key]
                if not group.pods.matches(pod.labels):
                    continue
                if selected:
                    self._join(members, key, pod)
                else:
                    self._leave(members, key, pod)

    def set_policy(self, key: str, policy: Policy | None) -> None:
        """The policy called ``key`` says this now; None: it is gone."""
        old = self._policies.get(key)
        if old == policy:
            return
        affected: set[str] = set()
        if policy is not None:
            target = self._acquire(policy.target)
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
            self._release(old.target)

    # ---- groups

    def _groups_for(self, pod: Pod) -> Iterator[Group]:
        for group in self._groups_of.get(pod.namespace, ()):
            if (pod.local or not group.local) and group.pods.matches(pod.labels):
                yield group
        for group in self._wide:
            within = group.everywhere or pod.namespace in self._groups[group].namespaces
            if within and group.pods.matches(pod.labels):
                yield group

    def _selects_namespace(self, group: Group, name: str) -> bool:
        labels = self._namespaces.get(name)
        return (
            labels is not None and group.namespaces is not None and group.namespaces.matches(labels)
        )

    def _acquire(self, group: Group) -> _Members:
        members = self._groups.get(group)
        if members is None:
            members = self._groups[group] = _Members(group)
            if group.namespaces is None:
                self._groups_of.setdefault(group.namespace, {})[group] = None
                within = {group.namespace}
            elif group.everywhere:
                self._wide[group] = None
                within = set(self._pods_in)
            else:
                self._wide[group] = None
                within = {name for name in self._namespaces if self._selects_namespace(group, name)}
                members.namespaces = within
            for namespace in within:
                for key in self._pods_in.get(namespace, ()):
                    pod = self._pods[key]
                    if (pod.local or not group.local) and group.pods.matches(pod.labels):
                        self._join(members, key, pod)
        members.users += 1
        return members

    def _release(self, group: Group) -> None:
        members = self._groups[group]
        members.users -= 1
        if members.users:
            return
        for key in members.pods:
            self._groups_with[key].discard(group)
        del self._groups[group]
        if group.namespaces is None:
            del self._groups_of[group.namespace][group]
        else:
            del self._wide[group]

    def _join(self, members: _Members, key: str, pod: Pod | None) -> None:
        members.pods.add(key)
        self._groups_with.setdefault(key, set()).add(members.group)
        self._replace(members, None, pod)

    def _leave(self, members: _Members, key: str, pod: Pod | None) -> None:
        members.pods.discard(key)
        self._groups_with[key].discard(members.group)
        self._replace(members, pod, None)

    def _replace(self, members: _Members, old: Pod | None, new: Pod | None) -> None:
        """One of the members is another than it was."""
        for name, need in members.sets.items():
            before, after = need.elements(old), need.elements(new)
            for key in before - after:
                self._count(name, key, "", -1)
            for key in after - before:
                self._count(name, key, "", 1)

    # ---- sets

    def _count(self, name: str, key: str, value: str, change: int) -> None:
        """One more, or one less, says that ``key`` is in a set, with ``value`` in a map."""
        values = self._counts.setdefault(name, {}).setdefault(key, Counter())
        values[value] += change
        if not values[value]:
            del values[value]
        if values:
            # Two pods have one address only while one goes and the other comes.
            self.rules.sets[name][key] = min(values)
        else:
            del self._counts[name][key], self.rules.sets[name][key]
        self._touched.sets.setdefault(name, set()).add(key)

    def _take(self, need: _Need) -> None:
        """One more rule needs a set."""
        name = need.set
        self._uses[name] += 1
        first = self._uses[name] == 1
        if first:
            self.rules.sets[name] = {}
            self._touched.sets.setdefault(name, set())
        if need.group is None:
            for block in need.blocks if first else ():
                self._count(name, block, "", 1)
            return
        members = self._acquire(need.group)
        if first:
            members.sets[name] = need
            for key in members.pods:
                for element in need.elements(self._pods[key]):
                    self._count(name, element, "", 1)

    def _give(self, need: _Need) -> None:
        name = need.set
        self._uses[name] -= 1
        if not self._uses[name]:
            del self._uses[name]
            self._touched.sets.setdefault(name, set()).update(self.rules.sets.pop(name))
            self._counts.pop(name, None)
            if need.group is not None:
                del self._groups[need.group].sets[name]
        if need.group is not None:
            self._release(need.group)

    # ---- chains

    def _judge(self, key: str) -> None:
        """See to it that a pod of this node is judged by the policies that select it."""
        pod = self._pods.get(key)
        combinations: dict[str, tuple[str, ...]] = {}
        elements: set[tuple[str, str, str]] = set()
        if pod is not None and pod.local:
            selecting = sorted(
                policy
                for group in self._groups_with.get(key, ())
                for policy in self._groups[group].policies
            )
            for side in SIDES:
                said = tuple(p for p in selecting if getattr(self._policies[p], side) is not None)
                if said:
                    name = f"{side}-{_hash(said)}"
                    combinations[name] = said
                    elements |= {(f"{side}{_version(ip)}", ip, name) for ip in pod.ips}
            if combinations:
                elements |= {(f"itself{_version(ip)}", f"{ip} . {ip}", "") for ip in pod.ips}
                elements |= {(f"isolated{_version(ip)}", ip, "") for ip in pod.ips}
        for name, policies in combinations.items():
            self._use_combination(name, policies)
        before = self._verdicts.pop(key, set())
        if elements:
            self._verdicts[key] = elements
        for element in before - elements:
            self._count(*element, -1)
        for element in elements - before:
            self._count(*element, 1)
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
                for need in self._needs.pop(chain):
                    self._give(need)

    def _fill(self, chain: str, side: str, policy: Policy) -> None:
        """Have a chain say what ``policy`` says."""
        needs: list[_Need] = []
        rules: dict[Allow, None] = {}
        for rule in getattr(policy, side) or ():
            for allow, needed in _allows(rule, side, policy.target, self._families):
                rules[allow] = None
                needs += needed
        for need in needs:
            self._take(need)
        for need in self._needs.get(chain, ()):
            self._give(need)
        self._needs[chain] = needs
        if self.rules.policies.get(chain) != tuple(rules):
            self.rules.policies[chain] = tuple(rules)
            self._touched.policies.add(chain)


def _allows(
    rule: Rule, side: str, target: Group, families: tuple[int, ...]
) -> Iterator[tuple[Allow, list[_Need]]]:
    """A rule of a policy as rules of its chain, each with the sets that it needs."""
    ingress = side == "ingress"
    others: list[tuple[int, Group | None, list[_Need]]] = []
    if rule.everyone:
        others.append((0, None, []))
    for family in families:
        others += [(family, g, [_Need(f"peers{family}", g)]) for g in rule.groups]
        blocks = tuple(block for block in rule.blocks if _version(block) == family)
        if blocks:
            others.append((family, None, [_Need(f"blocks{family}", None, blocks)]))
    for family, group, needs in others:
        peers = needs[0].set if needs else ""
        if rule.ports is None:
            yield Allow(ingress, family, peers), needs
            continue
        # The names of ports are those that the pods give them which answer.
        answering = target if ingress else group or EVERY_POD
        for ports in rule.ports:
            if ALL_PORTS in ports.ranges:
                yield Allow(ingress, family, peers, ports.protocol), needs
                continue
            if ports.ranges:
                yield Allow(ingress, family, peers, ports.protocol, ports.ranges), needs
            for name in ports.names:
                for version in (family,) if family else families:
                    kind = f"named{version}-{ports.protocol}"
                    named = _Need(kind, answering, port=(ports.protocol, name))
                    allow = Allow(ingress, version, peers, ports.protocol, named=named.set)
                    yield allow, [*needs, named]


def _chain(side: str, policy: str) -> str:
    """The name of the chain of a policy."""
    name = f"{side}-{policy}"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 20]}-{_hash(policy)}"


def _hash(of: object) -> str:
    return hashlib.blake2s(repr(of).encode(), digest_size=8).hexdigest()


def _version(address: str) -> int:
    return 6 if ":" in address else 4
