"""Which pods selectors mean, as pods and namespaces come, change and go.

A group is there once, however many policies and chains name it, and only as long as one does. A
change finds the groups that it touches, so its cost does not follow the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from wherry.kube.network_policy.elements import NamedSet, Pod
from wherry.kube.network_policy.policies import Group


@dataclass(slots=True)
class Members:
    """The pods that a group means at present (by their keys), and who asks for it.

    ``sets`` and ``policies`` are its users' own: sets with what its pods have, and policies that
    isolate its pods.
    """

    group: Group
    pods: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)
    users: int = 0
    sets: dict[str, NamedSet] = field(default_factory=dict)
    policies: set[str] = field(default_factory=set)


class Groups:
    """Pods, namespaces, and the groups that were asked for.

    ``replaced`` is told which member was another pod before: None for one that comes or goes.
    """

    def __init__(self, replaced: Callable[[Members, Pod | None, Pod | None], None]) -> None:
        self._replaced = replaced
        self.pods: dict[str, Pod] = {}
        self._pods_in: dict[str, set[str]] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._members: dict[Group, Members] = {}
        self._within: dict[str, dict[Group, None]] = {}  # those of one namespace
        self._wide: dict[Group, None] = {}  # those of namespaces by their labels
        self._with: dict[str, set[Group]] = {}  # those that mean a pod

    def __getitem__(self, group: Group) -> Members:
        return self._members[group]

    def of(self, key: str) -> Set[Group]:
        """Those that mean the pod called ``key``."""
        return self._with.get(key, frozenset())

    def acquire(self, group: Group) -> Members:
        """One more asks for a group."""
        members = self._members.get(group)
        if members is None:
            members = self._members[group] = Members(group)
            if group.namespaces is None:
                self._within.setdefault(group.namespace, {})[group] = None
                within = {group.namespace}
            elif group.everywhere:
                self._wide[group] = None
                within = set(self._pods_in)
            else:
                self._wide[group] = None
                within = {name for name in self._namespaces if self._selects(group, name)}
                members.namespaces = within
            for namespace in within:
                for key in self._pods_in.get(namespace, ()):
                    pod = self.pods[key]
                    if (pod.local or not group.local) and group.pods.matches(pod.labels):
                        self._join(members, key, pod)
        members.users += 1
        return members

    def release(self, group: Group) -> None:
        """One less asks for it."""
        members = self._members[group]
        members.users -= 1
        if members.users:
            return
        for key in members.pods:
            self._with[key].discard(group)
        del self._members[group]
        if group.namespaces is None:
            del self._within[group.namespace][group]
        else:
            del self._wide[group]

    def set_pod(self, key: str, pod: Pod | None) -> None:
        """The pod called ``key`` is this now; None: it has no addresses, or is gone."""
        old = self.pods.get(key)
        if pod is not None:
            self.pods[key] = pod
            self._pods_in.setdefault(pod.namespace, set()).add(key)
        elif old is not None:
            del self.pods[key]
            self._pods_in[old.namespace].discard(key)
        before = set(self.of(key))
        after = set(self._meaning(pod)) if pod is not None else set()
        for group in before - after:
            self._leave(self._members[group], key, old)
        for group in before & after:
            self._replaced(self._members[group], old, pod)
        for group in after - before:
            self._join(self._members[group], key, pod)

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
            members = self._members[group]
            selected = self._selects(group, name)
            if selected == (name in members.namespaces):
                continue
            (members.namespaces.add if selected else members.namespaces.discard)(name)
            for key in tuple(self._pods_in.get(name, ())):
                pod = self.pods[key]
                if not group.pods.matches(pod.labels):
                    continue
                if selected:
                    self._join(members, key, pod)
                else:
                    self._leave(members, key, pod)

    def _meaning(self, pod: Pod) -> Iterator[Group]:
        for group in self._within.get(pod.namespace, ()):
            if (pod.local or not group.local) and group.pods.matches(pod.labels):
                yield group
        for group in self._wide:
            within = group.everywhere or pod.namespace in self._members[group].namespaces
            if within and group.pods.matches(pod.labels):
                yield group

    def _selects(self, group: Group, namespace: str) -> bool:
        labels = self._namespaces.get(namespace)
        return (
            labels is not None and group.namespaces is not None and group.namespaces.matches(labels)
        )

    def _join(self, members: Members, key: str, pod: Pod | None) -> None:
        members.pods.add(key)
        self._with.setdefault(key, set()).add(members.group)
        self._replaced(members, None, pod)

    def _leave(self, members: Members, key: str, pod: Pod | None) -> None:
        members.pods.discard(key)
        self._with[key].discard(members.group)
        self._replaced(members, pod, None)
